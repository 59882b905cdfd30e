"""Phases of gpu.py: trainings to an accuracy, and searches."""

import statistics
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import record
from archives import Archive, read
from gpu_phases import Phase, digits, recipe
from time_to_accuracy import course

TARGETS = (84.5, 90.0, 92.0, 94.0)
"""Percent of the test set."""


def accuracy(phase: Phase) -> None:
    archive = read(phase.data or digits(phase, "digits").data)
    names = ("shipped", "accurate") if phase.data else ("digits",)
    for name in names:
        settings = recipe(name)
        device = phase.chosen(settings.train.precision)
        next(course(settings.with_values({"train.epochs": 1 if phase.quick else 2}), archive, device))  # the warm-up
        courses = []
        for seed in range(1 if phase.quick else 3):
            device.prepare()
            courses.append(list(course(settings.with_values({"train.seed": seed}), archive, device)))
            phase.note(name, _times(courses, "with flips"))
    size = record.Size(16, 2, 128) if phase.quick else record.Size()
    larger, device = _at_least_32_pixels(archive), phase.chosen()
    next(record.course(larger, device, 0, size))  # the warm-up
    courses = []
    for seed in range(1 if phase.quick else 3):
        device.prepare()
        courses.append(list(record.course(larger, device, seed, size)))
        phase.note("record", _times(courses, "with six views"))


def _at_least_32_pixels(archive: Archive) -> Archive:
    """The same images, smaller ones enlarged by repeating pixels."""
    channels, *sides = archive.meta.shape
    times = max(1, 32 // min(sides))
    shape = channels, times * sides[0], times * sides[1]
    parts = [
        images._replace(pixels=images.pixels.repeat(times, axis=1).repeat(times, axis=2))
        for images in (archive.training, archive.test)
    ]
    return Archive(replace(archive.meta, shape=shape), *parts)


def _times(courses: list[list[tuple[float, float, float]]], augmented: str) -> dict[str, Any]:
    """Mean seconds to each target (null: not by all seeds), and the mean of the last accuracies, percent."""
    found: dict[str, Any] = {}
    for target in TARGETS:
        times = [next((s for s, plain, _ in each if plain >= target), None) for each in courses]
        reached = [at for at in times if at is not None]
        found[f"to {target:g} %"] = round(statistics.fmean(reached), 2) if len(reached) == len(times) else None
    found["seconds"] = round(statistics.fmean(each[-1][0] for each in courses), 2)
    found["accuracy"] = round(statistics.fmean(each[-1][1] for each in courses), 2)
    found[augmented] = round(statistics.fmean(each[-1][2] for each in courses), 2)
    return found | {"seeds": len(courses)}


def searches(phase: Phase) -> None:
    project = digits(phase, "searches")
    trials, epochs = (2, 1) if phase.quick else (24, 4)
    for workers in (1, 2) if phase.quick else (1, 4, 8):
        values = {"train.device": phase.device, "tune.sampler": "random", "tune.scheduler": "none", "tune.confirm": 0}
        values |= {"train.epochs": epochs}
        command = [sys.executable, "-m", "pipeline.tune", "--trials", str(trials), "--workers", str(workers)]
        command += [
            "--study",
            f"workers-{workers}",
            *(part for pair in values.items() for part in ("--set", "=".join(map(str, pair)))),
        ]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=project.root, capture_output=True, text=True)
        took_s = time.perf_counter() - began
        found = {"seconds": round(took_s, 1), "trials/minute": round(60 * trials / took_s, 1)}
        phase.expect(f"{workers} workers", done.returncode == 0, found if done.returncode == 0 else done.stderr[-500:])
