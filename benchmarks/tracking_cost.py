"""CPU time and memory that recording runs in MLflow costs the recording process.

    python benchmarks/tracking_cost.py
    python benchmarks/tracking_cost.py --runs 2000 --epochs 2 --burst --json

A parent run and child runs are recorded in a fresh SQLite store. Each has 12 params, 16 tags, a dataset, 7 metrics per
epoch and a confusion matrix. Every third run is paused halfway and resumed. All records of an epoch are sent before the
next one starts, as in a search whose epochs last seconds. With --burst nothing waits, and the sender takes many epochs
at once. The same is done with twice the epochs: the difference is the cost of an epoch, the rest that of a run. CPU
time is that of all threads, without MLflow's import and the creation of the database. The runs are recorded in four
quarters, so that a cost that grows with the number of runs shows.
"""

import argparse
import gc
import json
import multiprocessing
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.outcome import Outcome
from pipeline.records import Meta

CLASSES = [f"class {number}" for number in range(10)]
MATRIX = [[90 if row == column else 1 for column in CLASSES] for row in CLASSES]
CIFAR10 = Meta(
    name="cifar10",
    classes=tuple(CLASSES),
    shape=(3, 32, 32),
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    counts={"train": 50_000, "test": 10_000},
    digest="sha256:0123456789abcdef",
    source="https://example.org/cifar10",
)
QUARTERS = 4


@dataclass
class Clock:
    """Wall time of the main thread's calls to the tracker."""

    calls_s: float = 0.0
    longest_s: float = 0.0

    @contextmanager
    def call(self) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        elapsed_s = time.perf_counter() - begun
        self.calls_s += elapsed_s
        self.longest_s = max(self.longest_s, elapsed_s)


def record(tracker: Any, number: int, epochs: int, clock: Clock, settle: Callable[[], None]) -> None:
    key = f"study-{number}"
    with clock.call():
        run = tracker.open(key, name=f"trial {number}", parent="study", new=True)
        with run.batch():
            run.log_params({f"train.param_{index}": number / 7 for index in range(12)})
            run.set_tags({f"tag.{index}": f"{number} {index}" for index in range(15)} | {"study.number": number})
            run.log_dataset(CIFAR10, {"training": 45_000, "validation": 5_000}, "training")
    for epoch in range(1, epochs + 1):
        settle()
        if number % 3 == 2 and epoch == epochs // 2 + 1:
            with clock.call():
                run.finish(Outcome.PAUSED)
            settle()
            with clock.call():
                run = tracker.open(key, parent="study")
            settle()
        with clock.call():
            run.log_metrics({f"train.metric_{index}": epoch + number / 7 + index for index in range(7)}, step=epoch)
    settle()
    with clock.call(), run.batch():
        run.log_confusion_matrix(MATRIX, CLASSES)
        run.finish(Outcome.FINISHED)
    settle()


def quarters(runs: int) -> Iterator[range]:
    for quarter in range(QUARTERS):
        yield range(runs * quarter // QUARTERS, runs * (quarter + 1) // QUARTERS)


def measure(runs: int, epochs: int, burst: bool) -> dict[str, Any]:
    """Measures this process: call it in one of its own."""
    import psutil

    from pipeline.files import Project
    from pipeline.tracking import Timing, Tracker

    sent = threading.Event()

    def drain() -> None:
        while tracker.waiting:
            sent.wait(timeout=1)
            sent.clear()

    folder = Path(tempfile.mkdtemp())
    process, clock, cpu_s = psutil.Process(), Clock(), []
    try:
        # Long enough for records of the same moment to be sent together, as in a search.
        timing = Timing(linger_s=0.02)
        with Tracker(Project(folder, folder), on_sent=sent.set, timing=timing) as tracker:
            tracker.open("study", name="study")
            record(tracker, runs, 3, Clock(), drain)  # the first run takes longer, because of imports
            gc.collect()
            before = process.memory_info().rss, process.num_fds()
            for quarter in quarters(runs):
                begun = time.process_time()
                for number in quarter:
                    record(tracker, number, epochs, clock, (lambda: None) if burst else drain)
                drain()
                cpu_s.append((time.process_time() - begun) / len(quarter))
            gc.collect()
            after = process.memory_info().rss, process.num_fds()
    finally:
        shutil.rmtree(folder)
    return {
        "cpu_s": cpu_s,
        "calls_s": clock.calls_s / runs,
        "longest_s": clock.longest_s,
        "rss_mb": after[0] / 1e6,
        "grown_mb": (after[0] - before[0]) / 1e6,
        "grown_handles": after[1] - before[1],
    }


def compare(runs: int, epochs: int, burst: bool) -> dict[str, Any]:
    """Costs of a run and of an epoch, from two measurements in a process each."""
    more = 2 * epochs
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        few, many = pool.starmap(measure, [(runs, epochs, burst), (runs, more, burst)], chunksize=1)

    epoch_s = (fmean(many["cpu_s"]) - fmean(few["cpu_s"])) / (more - epochs)
    return {
        "runs": runs,
        "epochs": epochs,
        "burst": burst,
        "run_ms": 1000 * (fmean(few["cpu_s"]) - epochs * epoch_s),
        "epoch_ms": 1000 * epoch_s,
        "run_with_its_epochs_by_quarter_ms": [1000 * value for value in few["cpu_s"]],
        "main_thread_ms": 1000 * few["calls_s"],
        "longest_call_ms": 1000 * few["longest_s"],
        "grown_mb": few["grown_mb"],
        "grown_handles": few["grown_handles"],
        "rss_mb": few["rss_mb"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--burst", action="store_true", help="record without waiting for MLflow")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.runs < QUARTERS:
        parser.error(f"--runs must be at least {QUARTERS}, got {arguments.runs}")
    result = compare(arguments.runs, arguments.epochs, arguments.burst)
    if arguments.json:
        print(json.dumps(result))
        return
    by_quarter = ", ".join(f"{value:.1f}" for value in result["run_with_its_epochs_by_quarter_ms"])
    print(f"CPU: {result['run_ms']:.1f} ms a run and {result['epoch_ms']:.1f} ms an epoch")
    print(f"     {by_quarter} ms a run with its {arguments.epochs} epochs, by quarter of the {arguments.runs} runs")
    print(f"main thread: {result['main_thread_ms']:.1f} ms a run in calls, the longest {result['longest_call_ms']:.1f}")
    print(f"memory: {result['rss_mb']:.0f} MB, {result['grown_mb']:+.1f} over the runs", end="; ")
    print(f"open files: {result['grown_handles']:+}")


if __name__ == "__main__":
    main()
