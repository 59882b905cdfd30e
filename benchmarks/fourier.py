"""Speed of convolutions of small images by Fourier transform on a CPU (pipeline/networks/fourier.py).

    python benchmarks/fourier.py
    python benchmarks/fourier.py --turns 15 --precision fp32 --json

Measured are single convolutions with their gradients, and whole steps of the shipped recipe and of examples/accurate,
on noise. The Fourier transform and direct convolutions take turns. Printed are the median times of each and the median
of the ratios of the turns.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from archives import PARAMS
from rich.console import Console
from rich.progress import Progress
from torch.nn import functional as F

from pipeline import config, networks
from pipeline.cli import guarded
from pipeline.config import Config
from pipeline.machine import Machine
from pipeline.networks import fourier
from pipeline.records import Meta
from pipeline.training.device import Device
from pipeline.training.loop import place
from pipeline.training.optimizers import build_optimizer

SHAPES = [
    *((500, side, 256, 256) for side in (2, 3, 4, 7, 8, 10)),
    *((500, 9, inputs, outputs) for inputs, outputs in ((64, 256), (64, 64))),
    *((500, 7, inputs, outputs) for inputs, outputs in ((128, 128), (48, 96))),
    (500, 15, 64, 256),
    *((images, 7, 256, 256) for images in (100, 200, 1000)),
]
"""Images, their side, channels that come in and go out."""
RECIPES = {"shipped": PARAMS, "accurate": PARAMS.parent / "examples" / "accurate" / "params.yaml"}
Work = Callable[[], object]


def layer(images: int, side: int, inputs: int, outputs: int, device: Device) -> tuple[Work, Work]:
    """By the transform, direct: each with its gradients."""
    features = torch.randn(images, inputs, side, side).contiguous(memory_format=torch.channels_last)
    if device.precision == "bf16":
        features = features.bfloat16()
    weight = torch.randn(outputs, inputs, 3, 3).contiguous(memory_format=torch.channels_last).requires_grad_()
    coming = torch.randn(images, outputs, side, side).to(features).contiguous(memory_format=torch.channels_last)
    features.requires_grad_()

    def work(convolve: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        with device.autocast():
            convolved = convolve(features, weight)
        torch.autograd.grad(convolved, (features, weight), coming)

    return (
        lambda: work(fourier.convolve),
        lambda: work(lambda features, weight: F.conv2d(features, weight, padding=1)),
    )


PAYS = fourier.pays


def never(features: torch.Tensor, weight: torch.Tensor) -> bool:
    return False


def steps(settings: Config, device: Device) -> tuple[Work, Work]:
    """A step of a training by the transform where it pays, and one without it."""
    meta = Meta("noise", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, counts={}, digest="", source="")
    size, bf16 = settings.train.batch_size, device.precision == "bf16"
    images = torch.randint(256, (size, *meta.shape), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (size,))

    def work(by_fourier: bool) -> Work:
        network = networks.build(settings.model, meta, seed=0)
        network.prepare(images)
        place(network, device)
        optimizer = build_optimizer(network, settings.train, fused=device.fused_optimizer, bf16=bf16)

        def step() -> None:
            fourier.pays = PAYS if by_fourier else never
            with device.autocast():
                loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return step

    return work(True), work(False)


def timed(work: Work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="that count (default: %(default)s)")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    if arguments.turns < 1:
        parser.error(f"--turns must be at least 1, got {arguments.turns}")
    device = Device.choose("cpu", arguments.precision, arguments.threads, Machine.probe())
    device.prepare()

    pairs: dict[str, Callable[[], tuple[Work, Work]]] = {}
    for images, side, inputs, outputs in SHAPES:
        name = f"{inputs} -> {outputs} channels, {images} images of {side} x {side}"
        pairs[name] = partial(layer, images, side, inputs, outputs, device)
    for recipe, path in RECIPES.items():
        settings = config.load(path)
        pairs[f"step of {recipe}, {settings.train.batch_size} images"] = partial(steps, settings, device)

    found = {}
    with Progress(console=Console(stderr=True), disable=arguments.json) as progress:
        bar = progress.add_task("turns", total=len(pairs) * (arguments.turns + 2))
        for name, make in pairs.items():
            turns = []
            works = make()
            for _ in range(arguments.turns + 2):
                turns.append([timed(work) for work in works])
                progress.advance(bar)
            by_fourier, direct = zip(*turns[2:], strict=True)
            found[name] = {
                "fourier_ms": round(1000 * statistics.median(by_fourier), 1),
                "direct_ms": round(1000 * statistics.median(direct), 1),
                "ratio": round(statistics.median(slow / fast for fast, slow in turns[2:]), 2),
            }
    if arguments.json:
        print(json.dumps({"device": device.described(), "turns": arguments.turns, "medians": found}))
        return
    print(f"{device.name}, {device.threads} threads, {device.precision}; PyTorch {torch.__version__}")
    print(f"{'':55}  fourier    direct   ratio")
    for name, one in found.items():
        print(f"{name:55}  {one['fourier_ms']:>5.1f} ms  {one['direct_ms']:>5.1f} ms  {one['ratio']:.2f}")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
