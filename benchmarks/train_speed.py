"""Training speed: this project's loop and a plain one, in one run.

    python benchmarks/train_speed.py --data cifar-10-python.tar.gz
    python benchmarks/train_speed.py --data data --images 2560 --repeats 5 --json

Both train a ResNet-20 on CIFAR-10, with the same network, optimizer, batch size, augmentation (crop and flip) and
number of threads. The plain loop is that of most tutorials: PIL images, torchvision transforms, a DataLoader with 2
workers, fp32. Ours runs with its shipped settings and, where these mean bf16, in fp32 too. They take turns of one epoch
each, after one that does not count. Printed are the median images/s of each and the median of the ratios of the turns.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from archives import HELP, RESNET20, read
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from pipeline import config, networks
from pipeline.batches.batches import OrderedBatches, TrainingBatches
from pipeline.batches.images import Images
from pipeline.cli import guarded
from pipeline.config import Config
from pipeline.machine import Machine
from pipeline.records import Meta
from pipeline.training import loop
from pipeline.training.device import Device


class PilImages(Dataset[tuple[Tensor, int]]):
    """As torchvision.datasets.CIFAR10 does it: each image becomes a PIL image, then goes through the transforms."""

    def __init__(self, images: Images, meta: Meta) -> None:
        self.images = images
        height = meta.shape[1]
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(height, padding=height // 8),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(meta.mean, meta.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images.pixels[index])), int(self.images.labels[index])


def plain(settings: Config, meta: Meta, images: Images, device: torch.device) -> Iterator[float]:
    """Images/s of one epoch after the other."""
    network = networks.build(settings.model, meta, seed=0).network.to(device)
    optimizer = optim.SGD(
        network.parameters(),
        settings.train.learning_rate,
        settings.train.momentum,
        weight_decay=settings.train.weight_decay,
        nesterov=True,
    )
    loader = DataLoader(
        PilImages(images, meta),
        settings.train.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        persistent_workers=True,
    )
    while True:
        began, loss_sum = time.perf_counter(), 0.0
        network.train()
        for pixels, labels in loader:
            loss = F.cross_entropy(network(pixels.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
        yield len(loader) * settings.train.batch_size / (time.perf_counter() - began)


def ours(settings: Config, meta: Meta, images: Images, device: Device) -> Iterator[float]:
    """Likewise."""
    everything = np.arange(len(images.labels))
    loader = device.loader(images)
    batches = TrainingBatches(
        loader,
        everything,
        batch_size=settings.train.batch_size,
        policy=settings.augment,
        fill=meta.mean,
        seed=0,
    )
    some = OrderedBatches(loader, everything[:100], batch_size=100)
    network = networks.build(settings.model, meta, seed=0)
    for epoch in loop.fit(network, batches, some, settings.train, device):
        yield epoch.images_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=HELP)
    parser.add_argument("--images", type=int, default=5120, help="images in an epoch (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    if not arguments.data.exists():
        parser.error(f"--data: {arguments.data} does not exist")

    meta, training, _ = read(arguments.data)
    images = training._replace(
        pixels=np.array(training.pixels[: arguments.images]), labels=training.labels[: arguments.images]
    )
    settings = config.load(RESNET20, {"train.epochs": arguments.repeats + 1})
    shipped = Device.choose("auto", settings.train.precision, arguments.threads, Machine.probe())
    fp32 = Device.choose("auto", "fp32", arguments.threads, Machine.probe())
    shipped.prepare()
    loops = {"ours": ours(settings, meta, images, shipped), "plain": plain(settings, meta, images, fp32.handle)}
    if shipped != fp32:
        loops["ours_fp32"] = ours(settings, meta, images, fp32)

    turns: list[dict[str, float]] = []
    # The time that is left follows from what ended in this period, and a turn may take longer than rich's own 30 s.
    with Progress(console=Console(stderr=True), disable=arguments.json, speed_estimate_period=3600) as progress:
        for _ in progress.track(range(arguments.repeats + 1), description="turns"):
            turns.append({name: next(loop) for name, loop in loops.items()})
    turns = turns[1:]
    result = {name: round(statistics.median(turn[name] for turn in turns), 1) for name in loops}
    result["ratio"] = round(statistics.median(turn["ours"] / turn["plain"] for turn in turns), 3)
    if "ours_fp32" in loops:
        result["ratio_fp32"] = round(statistics.median(turn["ours_fp32"] / turn["plain"] for turn in turns), 3)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{shipped.name}, {shipped.threads} threads; batch {settings.train.batch_size}; {arguments.repeats} turns")
    print(f"  plain loop, fp32    {result['plain']:>8,.0f} images/s")
    print(
        f"  ours, {shipped.precision} (shipped) {result['ours']:>8,.0f} images/s   {result['ratio']:.2f} times as fast"
    )
    if "ours_fp32" in loops:
        print(f"  ours, fp32          {result['ours_fp32']:>8,.0f} images/s   {result['ratio_fp32']:.2f} times as fast")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
