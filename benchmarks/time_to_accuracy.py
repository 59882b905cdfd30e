"""Time that recipes need to reach a test accuracy, in one run.

    python benchmarks/time_to_accuracy.py --data cifar-10-python.tar.gz
    python benchmarks/time_to_accuracy.py --data data --recipes shipped --seeds 1 --json
    python benchmarks/time_to_accuracy.py --data data --recipes shipped,quick,resnet20=1

A recipe is a params.yaml: `shipped` is that of the root, the others are folders of examples/, such as `resnet20`. Each
is trained as the stage train does it, with validation after each epoch. The clock runs from the moment that the images
are in memory to the end of an epoch. After each epoch the test set is scored too, outside of that time. A target is
reached when the accuracy of an epoch is at least as high (Coleman et al. 2017, "DAWNBench"). This measures speed: where
the test accuracy chose a value of a recipe, docs/results.md says so. Figures "with flips" use test-time augmentation
(evaluate.tta: flip).

JSON: {"recipes": {NAME: {"84.5": mean seconds, "90": mean seconds, "epochs": .., "accuracy": mean at the end, ...,
"tta_flip": {the same with flips}}}}. A target is null unless all seeds reached it.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from archives import HELP, PARAMS, Archive, read
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline import config
from pipeline.batches.batches import OrderedBatches
from pipeline.cli import guarded
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.evaluation.inference import predict
from pipeline.machine import Machine
from pipeline.training import loop
from pipeline.training.device import Device
from pipeline.training.parts import Parts

EXAMPLES = PARAMS.parent / "examples"
TARGETS = (84.5, 90.0)
"""Percent of the test set."""


@dataclass
class Course:
    """How one training went."""

    seconds: list[float] = field(default_factory=list)
    """At the end of each epoch."""
    accuracies: list[float] = field(default_factory=list)
    """Of the test set, percent, after each epoch."""
    with_flips: list[float] = field(default_factory=list)
    """The same with test-time augmentation."""


def file_of(recipe: str) -> Path:
    """Raises ConfigError for a name that is none."""
    path = PARAMS if recipe == "shipped" else EXAMPLES / recipe / "params.yaml"
    if not path.is_file():
        there = ", ".join(["shipped", *sorted(found.parent.name for found in EXAMPLES.glob("*/params.yaml"))])
        raise ConfigError(f"--recipes: there is no recipe {recipe}; there are {there}.")
    return path


def recipes_of(text: str, seeds: int) -> dict[str, tuple[Config, int]]:
    """Of each recipe of NAME,NAME=SEEDS,...: its settings and how many seeds it is trained with."""
    found = {}
    for part in text.split(","):
        name, _, own = part.partition("=")
        if own and not (own.isdigit() and int(own)):
            raise ConfigError(f"--recipes: the number of seeds in {part} must be at least 1, as in {name}=1.")
        found[name] = config.load(file_of(name)), int(own or seeds)
    return found


def course(settings: Config, archive: Archive, device: Device) -> Iterator[tuple[float, float, float]]:
    """Seconds, and percent of the test set without and with flips, after each epoch."""
    everything = np.arange(len(archive.test.labels))
    test = OrderedBatches(device.loader(archive.test), everything, batch_size=settings.evaluate.batch_size)
    began = time.perf_counter()
    parts = Parts.build(settings, archive.meta, archive.training, device)
    ready_s = time.perf_counter() - began
    for epoch in loop.fit(*parts, settings.train, device):
        found = (predict(parts.network, test, device, flip=flip) for flip in (False, True))
        plain, flipped = (100 * float((each.argmax(1) == archive.test.labels).mean()) for each in found)
        yield ready_s + epoch.elapsed_s, plain, flipped


def summary(courses: list[Course]) -> dict[str, Any]:
    """The means over the seeds."""
    return {
        **figures([(one.seconds, one.accuracies) for one in courses]),
        "epochs": len(courses[0].seconds),
        "seconds": round(statistics.fmean(one.seconds[-1] for one in courses), 1),
        "seeds": len(courses),
        "tta_flip": figures([(one.seconds, one.with_flips) for one in courses]),
    }


def figures(courses: list[tuple[list[float], list[float]]]) -> dict[str, float | None]:
    """Of seconds and percent after each epoch: mean seconds to each target, mean and deviation of the last percent."""
    found: dict[str, float | None] = {}
    for target in TARGETS:
        firsts = (
            next((second for second, accuracy in zip(*each, strict=True) if accuracy >= target), None)
            for each in courses
        )
        times = [first for first in firsts if first is not None]
        found[f"{target:g}"] = round(statistics.fmean(times), 1) if len(times) == len(courses) else None
    ends = [accuracies[-1] for _, accuracies in courses]
    found["accuracy"] = round(statistics.fmean(ends), 2)
    found["accuracy_sd"] = round(statistics.stdev(ends), 2) if len(ends) > 1 else None
    return found


def table(results: dict[str, list[Course]]) -> str:
    targets = [f"{target:g}" for target in TARGETS]
    lines = ["recipe                 epochs  accuracy          seconds" + "".join(f"  to {name} %" for name in targets)]
    for recipe, courses in results.items():
        found = summary(courses)
        for name, part in ((recipe, found), ("  with flips", found["tta_flip"])):
            spread = f" ± {part['accuracy_sd']:.2f}" if part["accuracy_sd"] is not None else ""
            times = (f"{part[target]} s" if part[target] else "not" for target in targets)
            lines.append(
                f"{name:21}  {found['epochs']:>6}  {part['accuracy']:.2f} %{spread:8}  {found['seconds']:>7}"
                + "".join(f"  {at:>9}" for at in times)
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=HELP)
    parser.add_argument(
        "--recipes", default="shipped,resnet20", help="NAME=SEEDS has seeds of its own (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print JSON alone; progress goes to stderr")
    arguments = parser.parse_args()
    if not arguments.data.exists():
        parser.error(f"--data: {arguments.data} does not exist")
    if arguments.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {arguments.seeds}")
    recipes = recipes_of(arguments.recipes, arguments.seeds)

    archive = read(arguments.data)
    results: dict[str, list[Course]] = {recipe: [] for recipe in recipes}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    # The time that is left follows from what ended in this period, and an epoch may take longer than rich's own 30 s.
    with Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=3600) as progress:
        # In turns, so that a machine that is slower for a while is so for all of them.
        for seed in range(max(seeds for _, seeds in recipes.values())):
            for recipe, (settings, seeds) in recipes.items():
                if seed >= seeds:
                    continue
                device = Device.choose("auto", settings.train.precision, arguments.threads, Machine.probe())
                device.prepare()
                bar = progress.add_task(f"{recipe}, seed {seed}", total=settings.train.epochs)
                results[recipe].append(Course())
                seeded = settings.with_values({"train.seed": seed})
                for seconds, accuracy, with_flips in course(seeded, archive, device):
                    results[recipe][-1].seconds.append(round(seconds, 1))
                    results[recipe][-1].accuracies.append(round(accuracy, 2))
                    results[recipe][-1].with_flips.append(round(with_flips, 2))
                    line = f"{recipe}, seed {seed}: {accuracy:.2f} %, {with_flips:.2f} % with flips"
                    progress.update(bar, advance=1, description=line)
                progress.remove_task(bar)
                progress.print(f"{line}, after {settings.train.epochs} epochs and {seconds:.0f} s")
    if arguments.json:
        content = {
            recipe: summary(courses) | {"courses": [asdict(one) for one in courses]}
            for recipe, courses in results.items()
        }
        print(json.dumps({"recipes": content}))
        return
    print(f"{device.name}, {device.threads} threads, {device.precision}; PyTorch {torch.__version__}")
    print(table(results))


if __name__ == "__main__":
    sys.exit(guarded(main))
