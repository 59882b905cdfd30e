"""Speed, size and memory of every family of networks, on images of 32 x 32 pixels.

    python benchmarks/families.py
    python benchmarks/families.py --families resnet,vgg16 --batch-size 64 --json

Each family trains a few steps on noise in CIFAR-10's shape, by the project's own loop and at the paper's width, in a
separate process. Printed are parameters, multiply-accumulate operations (MACs) per image, the median of images/s over
the epochs of training, and the peak memory: on a GPU that of the device, else that of the process beyond the libraries.
"""

import argparse
import importlib
import json
import multiprocessing
import resource
import statistics
import sys
from typing import Any

from archives import RESNET20
from rich.console import Console
from rich.progress import Progress

from pipeline import config
from pipeline.cli import guarded
from pipeline.errors import ConfigError

FAMILIES: dict[str, dict[str, Any]] = {
    "speed": {"model.family": "speed", "model.depth": 8, "model.width": 48},
    "resnet20": {"model.family": "resnet", "model.depth": 20, "model.width": 16},
    "resnet56": {"model.family": "resnet", "model.depth": 56, "model.width": 16},
    "plain20": {"model.family": "plain", "model.depth": 20, "model.width": 16},
    **{name: {"model.family": "torchvision", "model.name": name} for name in ("resnet18", "resnet34", "resnet50")},
    **{name: {"model.family": name, "model.width": 64} for name in ("vgg11", "vgg13", "vgg16", "vgg19")},
    "resnet18-imagenet": {"model.family": "torchvision", "model.name": "resnet18", "model.stem": "imagenet"},
}


GPU_STEPS, CPU_STEPS = 50, 4
"""Of an epoch. On a GPU fewer would measure what an epoch costs beside its steps."""


def measure(values: dict[str, Any], batch_size: int, steps: int | None, threads: int | None) -> dict[str, float]:
    """Figures of one family; memory in megabytes (1e6 bytes)."""
    import numpy as np

    from pipeline import networks
    from pipeline.batches.batches import OrderedBatches, TrainingBatches
    from pipeline.batches.images import Images
    from pipeline.machine import Machine
    from pipeline.records import Meta
    from pipeline.training import loop
    from pipeline.training.device import Device

    importlib.import_module("mlflow")  # a training has it too
    bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    settings = config.load(RESNET20, values | {"train.batch_size": batch_size, "train.epochs": 4})
    meta = Meta("noise", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")
    device = Device.choose("auto", settings.train.precision, threads, Machine.probe())
    device.prepare()
    if device.handle.type == "cuda":
        bare = 0  # its peak is that of the GPU, which has no libraries
    steps = steps or (CPU_STEPS if device.handle.type == "cpu" else GPU_STEPS)
    random = np.random.default_rng(0)
    count = steps * batch_size
    images = Images(random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 10)
    network = networks.build(settings.model, meta, seed=0, initial=False)
    loader = device.loader(images)
    batches = TrainingBatches(
        loader,
        np.arange(count),
        batch_size=batch_size,
        policy=settings.augment,
        fill=meta.mean,
        seed=0,
    )
    few = OrderedBatches(loader, np.arange(10), batch_size=10)
    epochs = list(loop.fit(network, batches, few, settings.train, device))
    return {
        "parameters": networks.parameters(network),
        "macs": networks.macs(network, meta),
        # The first epoch is the warm-up.
        "images_per_second": round(statistics.median(epoch.images_per_second for epoch in epochs[1:]), 1),
        "above_mb": round(device.peak_memory_bytes() / 1e6 - bare / 1e6),
    }


def line(name: str, row: dict[str, float]) -> str:
    return (
        f"{name:16}  {row['parameters'] / 1e6:>8.2f} M  {row['macs'] / 1e6:>5,.0f} M  "
        f"{row['images_per_second']:>8,.0f}  {row['above_mb']:>4,.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES), help="default: all, %(default)s")
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument(
        "--steps", type=int, default=None, help=f"of each of four epochs (default: {CPU_STEPS}, on a GPU {GPU_STEPS})"
    )
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print JSON alone; progress goes to stderr")
    arguments = parser.parse_args()
    chosen = arguments.families.split(",")
    if strangers := [name for name in chosen if name not in FAMILIES]:
        raise ConfigError(f"--families: there is no {strangers[0]}; there are {', '.join(FAMILIES)}.")

    found: dict[str, dict[str, float]] = {}
    if not arguments.json:
        print("family             parameters     MACs  images/s   memory", flush=True)
    # The time that is left follows from what ended in this period, and a family may take longer than rich's own 30 s.
    with Progress(
        console=Console(stderr=True), redirect_stdout=sys.stdout.isatty(), speed_estimate_period=3600
    ) as progress:
        for name in progress.track(chosen, description="families"):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                what = (FAMILIES[name], arguments.batch_size, arguments.steps, arguments.threads)
                found[name] = pool.apply(measure, what)
            if not arguments.json:
                print(line(name, found[name]), flush=True)
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
