"""Speed and memory of a training if the C library keeps the memory that a step frees, or returns it to the kernel.

    python benchmarks/kept_memory.py
    python benchmarks/kept_memory.py --turns 15 --json

Two processes train the shipped network on noise. One sets up the CPU as this project does, the other as PyTorch does.
They take turns of a few steps. Printed are the median images/s of each, the median of the ratios of the turns, and the
memory of each at its end. Without glibc the two are the same.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import torch
from archives import PARAMS
from rich.console import Console
from rich.progress import Progress
from torch.nn import functional as F

from pipeline import config, networks
from pipeline.cli import guarded
from pipeline.config import Config
from pipeline.machine import Machine
from pipeline.records import Meta
from pipeline.training import device
from pipeline.training.device import Device
from pipeline.training.loop import place

STEPS = 2
"""In a turn."""


def steps(settings: Config, chosen: Device) -> Iterator[float]:
    """Images/s of some steps, again and again."""
    classes = tuple(str(label) for label in range(10))
    meta = Meta("noise", classes, (3, 32, 32), (0.5,) * 3, (0.25,) * 3, counts={}, digest="", source="")
    network = networks.build(settings.model, meta, seed=0)
    place(network, chosen)
    size = settings.train.batch_size
    images = torch.randint(256, (size, *meta.shape), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (size,))
    while True:
        began = time.perf_counter()
        for _ in range(STEPS):
            network.zero_grad()
            with chosen.autocast():
                loss = F.cross_entropy(network(images), labels)
            loss.backward()
        yield STEPS * size / (time.perf_counter() - began)


def work(settings: Config, threads: int | None, keep: bool, owner: Connection) -> None:
    """Answers each message with the images/s of a turn."""
    chosen = Device.choose("cpu", settings.train.precision, threads, Machine.probe())
    if keep:
        chosen.prepare()
    else:
        with mock.patch.object(device, "_keep_freed_memory"):
            chosen.prepare()
    turns = steps(settings, chosen)
    while owner.recv():
        owner.send(next(turns))
    owner.send(resident_mb())


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="that count (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        parser.error("this is about Linux's C library")

    settings = config.load(PARAMS)
    spawn = get_context("spawn")
    lines: dict[str, Connection] = {}
    for name, keep in (("kept", True), ("given back", False)):
        lines[name], far_end = spawn.Pipe()
        spawn.Process(target=work, args=(settings, arguments.threads, keep, far_end), daemon=True).start()

    turns: list[dict[str, float]] = []
    with Progress(console=Console(stderr=True), disable=arguments.json) as progress:
        for _ in progress.track(range(arguments.turns + 3), description="turns"):
            turns.append({})
            for name, line in lines.items():
                line.send(True)
                turns[-1][name] = line.recv()
    counted = turns[3:]
    held = {}
    for name, line in lines.items():
        line.send(False)
        held[name] = round(line.recv())
    result = {name: round(statistics.median(turn[name] for turn in counted), 1) for name in lines}
    ratio = round(statistics.median(turn["kept"] / turn["given back"] for turn in counted), 3)
    if arguments.json:
        print(json.dumps({"images_per_second": result, "ratio": ratio, "resident_mb": held}))
        return
    for name in lines:
        print(f"{name:10}  {result[name]:>6,.0f} images/s  {held[name]:>6,} MB")
    print(f"keeping it is {ratio:.2f} times as fast (median of {arguments.turns} turns)")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
