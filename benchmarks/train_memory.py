"""Peak memory of a training on the CPU beyond that of the libraries alone.

    python benchmarks/train_memory.py
    python benchmarks/train_memory.py --batch-size 256 --precision bf16 --json

A ResNet-20 takes 30 steps on 50,000 images of noise in CIFAR-10's shape in a separate process. The images are
memory-mapped from disk, as in a training. The memory of the libraries is that of the same process before the images and
the network are loaded.
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


def measure(batch_size: int, precision: str, folder: Path) -> dict[str, float]:
    """Megabytes (1e6 bytes) of resident memory."""
    import numpy as np

    from pipeline import config
    from pipeline.batches.batches import TrainingBatches
    from pipeline.batches.images import load_images
    from pipeline.machine import Machine
    from pipeline.records import Meta
    from pipeline.training import loop
    from pipeline.training.device import Device
    from pipeline.training.parts import Parts

    importlib.import_module("mlflow")  # a training has it too
    bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    values: dict[str, Any] = {"train.batch_size": batch_size, "train.epochs": 1, "train.validation_share": 0.1}
    settings = config.load(RESNET20, values)
    meta = Meta("noise", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")
    device = Device.choose("cpu", precision, None, Machine.probe())
    device.prepare()
    images = load_images(folder, meta)
    network, _, validation = Parts.build(settings, meta, images, device)
    loader = device.loader(images)
    batches = TrainingBatches(
        loader,
        np.arange(STEPS * batch_size),
        batch_size=batch_size,
        policy=settings.augment,
        fill=meta.mean,
        seed=0,
    )
    list(loop.fit(network, batches, validation, settings.train, device))
    return {"libraries_mb": bare / 1e6, "peak_mb": device.peak_memory_bytes() / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="fp32", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()

    import numpy as np

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random = np.random.default_rng(0)
        np.save(folder / "images.npy", random.integers(0, 256, (50_000, 32, 32, 3), dtype=np.uint8))
        np.save(folder / "labels.npy", np.arange(50_000) % 10)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply(measure, (arguments.batch_size, arguments.precision, folder))
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
