"""The time that recipes take to a test accuracy, in one run.

    python benchmarks/time_to_accuracy.py --data cifar-10-python.tar.gz
    python benchmarks/time_to_accuracy.py --data data --recipes shipped --seeds 1 --json

A recipe is a params.yaml: `shipped` is the root's, the others are folders of examples/, such as `resnet20`, after the
ResNet paper. Each is trained as the stage train does it, with its validation after each epoch. The clock runs from
the moment that the pictures are in memory to the end of an epoch. After each epoch the test set is scored too, outside
of that time; a target counts as reached when the accuracy of an epoch is at least as high (Coleman et al. 2017,
"DAWNBench"). It is a measure of speed: no value of a recipe is chosen by it.

JSON: {"recipes": {NAME: {"84.5": mean seconds, "90": mean seconds, "epochs": .., "accuracy": mean at the end, ...}}};
a target is null unless all seeds reached it.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from archives import HELP, PARAMS, Archive, read
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline import config, training
from pipeline.command import guarded
from pipeline.config import Config
from pipeline.data import OrderedBatches
from pipeline.device import Device
from pipeline.errors import ConfigError
from pipeline.machine import Machine

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

    def reached(self, target: float) -> float | None:
        """Seconds to the first epoch that is at least so good."""
        return next((at for at, found in zip(self.seconds, self.accuracies, strict=True) if found >= target), None)


def file_of(recipe: str) -> Path:
    """Raises ConfigError for a name that is none."""
    path = PARAMS if recipe == "shipped" else EXAMPLES / recipe / "params.yaml"
    if not path.is_file():
        there = ", ".join(["shipped", *sorted(found.parent.name for found in EXAMPLES.glob("*/params.yaml"))])
        raise ConfigError(f"--recipes: there is no recipe {recipe}; there are {there}.")
    return path


def course(settings: Config, archive: Archive, device: Device) -> Iterator[tuple[float, float]]:
    """Seconds and percent of the test set after each epoch."""
    test = OrderedBatches(
        archive.test, np.arange(len(archive.test.labels)), batch_size=settings.evaluate.batch_size, device=device.handle
    )
    began = time.perf_counter()
    parts = training.Parts.of(settings, archive.meta, archive.training, device)
    ready_s = time.perf_counter() - began
    for epoch in training.fit(*parts, settings.train, device):
        logits, labels = training.infer(parts.network, test, device)
        yield ready_s + epoch.elapsed_s, 100 * (logits.argmax(1) == labels).float().mean().item()


def summary(courses: list[Course]) -> dict[str, float | int | None]:
    """The means over the seeds."""
    found: dict[str, float | int | None] = {}
    for target in TARGETS:
        times = [one.reached(target) for one in courses]
        found[f"{target:g}"] = round(statistics.fmean(t for t in times if t), 1) if all(times) else None
    ends = [one.accuracies[-1] for one in courses]
    return found | {
        "epochs": len(courses[0].seconds),
        "accuracy": round(statistics.fmean(ends), 2),
        "accuracy_sd": round(statistics.stdev(ends), 2) if len(ends) > 1 else None,
        "seconds": round(statistics.fmean(one.seconds[-1] for one in courses), 1),
        "seeds": len(courses),
    }


def table(results: dict[str, list[Course]]) -> str:
    lines = ["recipe         epochs  accuracy          seconds" + "".join(f"  to {target:g} %" for target in TARGETS)]
    for recipe, courses in results.items():
        found = summary(courses)
        spread = f" ± {found['accuracy_sd']:.2f}" if found["accuracy_sd"] is not None else ""
        accuracy = f"{found['accuracy']:.2f} %{spread}"
        times = (f"{found[f'{target:g}']} s" if found[f"{target:g}"] else "not" for target in TARGETS)
        lines.append(
            f"{recipe:13}  {found['epochs']:>6}  {accuracy:16}  {found['seconds']:>7}"
            + "".join(f"  {at:>9}" for at in times)
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=HELP)
    parser.add_argument("--recipes", default="shipped,resnet20", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print JSON alone; progress goes to stderr")
    arguments = parser.parse_args()
    if not arguments.data.exists():
        parser.error(f"--data: {arguments.data} does not exist")
    if arguments.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {arguments.seeds}")
    recipes = {recipe: config.load(file_of(recipe)) for recipe in arguments.recipes.split(",")}

    archive = read(arguments.data)
    results: dict[str, list[Course]] = {recipe: [] for recipe in recipes}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        # In turns, so that a machine that is slower for a while is so for all of them.
        for seed in range(arguments.seeds):
            for recipe, settings in recipes.items():
                device = Device.choose("auto", settings.train.precision, arguments.threads, Machine.probe())
                device.prepare()
                bar = progress.add_task(f"{recipe}, seed {seed}", total=settings.train.epochs)
                results[recipe].append(Course())
                for seconds, accuracy in course(settings.with_values({"train.seed": seed}), archive, device):
                    results[recipe][-1].seconds.append(round(seconds, 1))
                    results[recipe][-1].accuracies.append(round(accuracy, 2))
                    progress.update(bar, advance=1, description=f"{recipe}, seed {seed}: {accuracy:.2f} %")
                progress.remove_task(bar)
                course_told = " ".join(f"{accuracy:.2f}" for accuracy in results[recipe][-1].accuracies)
                progress.print(f"{recipe}, seed {seed}, {results[recipe][-1].seconds[-1]:.0f} s: {course_told} %")
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
