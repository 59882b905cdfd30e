"""Peak memory of a training on the CPU beyond that of the libraries alone.

    python benchmarks/train_memory.py
    python benchmarks/train_memory.py --batch-size 256 --precision bf16 --json
    python benchmarks/train_memory.py --gigabytes 30

A ResNet-20 takes 30 steps on images of noise in CIFAR-10's shape in a separate process. The images are memory-mapped
from disk, as in a training, and spread evenly over the file. The memory of the libraries is that of the same process
before the images and the network are loaded.

With --gigabytes the file is of that size and sparse, with black images, all of which are read once in random order
before the training: what is measured is whether the memory of a process grows with the images that it reads.
"""

import argparse
import importlib
import json
import multiprocessing
import resource
import tempfile
from pathlib import Path
from typing import Any

from archives import RESNET20

STEPS = 30
IMAGE_BYTES = 32 * 32 * 3
VALIDATION = 5_000


def measure(batch_size: int, precision: str, folder: Path, everything: bool) -> dict[str, float]:
    """Megabytes (1e6 bytes) of resident memory."""
    import numpy as np

    from pipeline import config
    from pipeline.batches.batches import OrderedBatches
    from pipeline.batches.images import load_images
    from pipeline.machine import Machine
    from pipeline.records import Meta
    from pipeline.training import loop
    from pipeline.training.device import Device
    from pipeline.training.parts import Parts

    importlib.import_module("mlflow")  # a training has it too
    bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    values: dict[str, Any] = {"train.batch_size": batch_size, "train.epochs": 1}
    settings = config.load(RESNET20, values)
    meta = Meta("noise", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")
    device = Device.choose("cpu", precision, None, Machine.probe())
    device.prepare()
    images = load_images(folder, meta)
    count = len(images.labels)
    if everything:
        order = np.random.default_rng(0).permutation(count)
        for _ in OrderedBatches(device.loader(images), order, batch_size=1000).epoch():
            pass
    spread = np.linspace(0, count - 1, STEPS * batch_size + VALIDATION).astype(np.int64)
    held_out = np.linspace(0, len(spread) - 1, VALIDATION).astype(np.int64)
    positions = np.delete(spread, held_out), spread[held_out]
    list(loop.fit(*Parts.build(settings, meta, images, device, positions=positions), settings.train, device))
    return {"libraries_mb": bare / 1e6, "peak_mb": device.peak_memory_bytes() / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="fp32", help="default: %(default)s")
    parser.add_argument(
        "--gigabytes", type=float, help="size of the images (1e9 bytes; default: 50,000 images of noise)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()

    import numpy as np

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.gigabytes:
            count = int(arguments.gigabytes * 1e9) // IMAGE_BYTES
            with (folder / "images.npy").open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (count, 32, 32, 3)}
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + count * IMAGE_BYTES)
        else:
            count = 50_000
            random = np.random.default_rng(0)
            np.save(folder / "images.npy", random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))
        np.save(folder / "labels.npy", np.arange(count) % 10)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply(measure, (arguments.batch_size, arguments.precision, folder, bool(arguments.gigabytes)))
    result["above_mb"] = result["peak_mb"] - result["libraries_mb"]
    result = {name: round(value) for name, value in result.items()}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"ResNet-20, batch {arguments.batch_size}, {arguments.precision}: peak {result['peak_mb']:,} MB, of which"
        )
        print(f"  libraries {result['libraries_mb']:,} MB, training {result['above_mb']:,} MB")


if __name__ == "__main__":
    main()
