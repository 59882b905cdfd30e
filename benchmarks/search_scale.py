"""What the owner of a large search costs, on workers that train nothing.

    python benchmarks/search_scale.py                              # orders as fast as the owner gives them
    python benchmarks/search_scale.py --paced 10 --workers 1024    # epochs of 10 s in real time, for a minute
    python benchmarks/search_scale.py --trials 1000 --workers 16 --profile owner.prof

A study of params.yaml's space, whose full training has 50 epochs, is filled with a number of trials that have paused or
ended. The owner goes on with it, with all of its records (Optuna's journal, MLflow's SQLite store, confusion matrices;
or without MLflow). CPU time is that of all its threads, without imports.

Without --paced no worker takes any time: the figures are CPU time per epoch report, and the reports per second at
which one core is full. With --paced an epoch takes that many seconds (each order's by chance 20 % more or less).
Workers join during the first epoch and begin as if at all stages of an order. The figures are the share of a core, and
how long workers wait from the end of an order until the next one is given, both in the second half of the time.
"""

import argparse
import cProfile
import heapq
import json
import math
import os
import random
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from optuna.storages import BaseStorage
from search_owner import CONFUSION, META, PARAMS, curve

from pipeline import config
from pipeline.config import Config
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.search.engines.base import EpochDone, Failed, Message, Order, Paused, TargetReached
from pipeline.search.engines.simulated import SimulatedEngine
from pipeline.search.schedulers.asha import Asha
from pipeline.search.schedulers.freeze_thaw import FreezeThaw
from pipeline.search.space.space import Space
from pipeline.search.studies.budget import budget_of
from pipeline.search.studies.journal import journal
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.owner import Limits, Owner
from pipeline.search.studies.proposals import Proposals
from pipeline.search.studies.recorder import Recorder, StudyRun
from pipeline.search.studies.samplers import Proposer
from pipeline.search.studies.trials import Trial, TrialSetup
from pipeline.search.studies.watcher import Watcher
from pipeline.tracking import Tracker

EPOCHS = 50


class PacedEngine(SimulatedEngine):
    """Workers whose epochs take real time. It notes how long each waited for an order."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.began_s = time.monotonic()
        self.waits_s: list[float] = []
        self.reports = self._given = 0
        self._draw = random.Random(0)
        self._idle = deque(self.began_s + self.epoch_s * number / self.workers for number in range(self.workers))
        """Since when the free workers are free, in order."""

    @property
    def free(self) -> int:
        now_s = time.monotonic()
        return next((number for number, since_s in enumerate(self._idle) if since_s > now_s), len(self._idle))

    def submit(self, order: Order) -> None:
        now_s = time.monotonic()
        self.waits_s.append(now_s - self._idle.popleft())
        self._given += 1
        # The first orders are cut short by chance, as if the workers had been at work for long.
        factor = self._draw.uniform(0.8, 1.2) if self._given > self.workers else self._draw.random()
        self._now_s = now_s
        self._factor = factor
        super().submit(order)

    def _schedule(self, epochs_from_now: int, message: Message) -> None:
        due_s = self._now_s + epochs_from_now * self.epoch_s * self._factor
        heapq.heappush(self._events, (due_s, next(self._count), message))

    def next(self, timeout_s: float) -> Message | None:
        now_s = time.monotonic()
        due_s = min(self._events[0][0] if self._events else now_s + timeout_s, now_s + timeout_s)
        if self._idle and self._idle[-1] > now_s:
            due_s = min(due_s, next(since_s for since_s in self._idle if since_s > now_s))
        if due_s > now_s:
            time.sleep(due_s - now_s)
        if not self._events or self._events[0][0] > time.monotonic():
            return None
        due_s, _, message = heapq.heappop(self._events)
        self.reports += isinstance(message, EpochDone)
        if isinstance(message, TargetReached | Paused | Failed):
            self._busy.discard(message.trial)
            self._idle.append(due_s)
        return message

    def clock_s(self) -> float:
        return time.monotonic()


class Until(Watcher):
    """Halts the owner after a number of reports, or when time is up."""

    def __init__(self, reports: float = math.inf, skipped: int = 0, seconds: float = math.inf) -> None:
        """The first `skipped` reports are not measured: those of the orders with which all workers begin."""
        self.reports, self.skipped, self.end_s = reports, skipped, time.monotonic() + seconds
        self.half_s = time.monotonic() + seconds / 2
        self.began, self.began_s = (time.process_time(), time.thread_time()), time.monotonic()
        self.first_wait_s = 0.0
        self.owner: Owner
        self.seen = 0

    def trained(self, trial: Trial, epoch: object) -> None:
        self.seen += 1
        if self.seen == self.skipped:
            self.began = time.process_time(), time.thread_time()
        if self.seen >= self.skipped + self.reports:
            self.owner.halt()

    def tick(self) -> None:
        engine = self.owner.engine
        if isinstance(engine, PacedEngine) and not self.first_wait_s and time.monotonic() > self.half_s:
            # All workers are at work by now.
            self.first_wait_s = max(engine.waits_s[: engine.workers])
            self.began, self.began_s = (time.process_time(), time.thread_time()), time.monotonic()
            engine.waits_s, engine.reports = [], 0
        if time.monotonic() > self.end_s:
            self.owner.halt()


def filled(ledger: Ledger, space: Space, rungs: Sequence[int], trials: int, curves: Any) -> None:
    """Enters trials that have paused at the rungs, most of them at the first, and one in a hundred that is finished."""
    shares = np.cumsum([0.6, 0.25, 0.1, 0.04, 0.01])
    generator = np.random.default_rng(0)
    with mock.patch("os.fsync"):  # it would take most of the time
        for values in space.random(generator, trials):
            rung = rungs[min(int(np.searchsorted(shares, generator.random())), len(rungs) - 1)]
            trial = ledger.enter(values, space.distributions, rung, seed=1)
            for epoch, score in enumerate(curves(values)[:rung], 1):
                ledger.score(trial, epoch, score)
            if rung == EPOCHS:
                ledger.end(trial, Outcome.FINISHED)
            else:
                ledger.reach(trial, rung)
                trial.attributes.pop("reached")  # MLflow has no run of it


def measured(options: argparse.Namespace, workers: int, trials: int, mlflow: bool) -> dict[str, float]:
    """One study."""
    planned = max(2 * trials, trials + 8 * workers)
    settings = config.load(PARAMS, {"train.epochs": EPOCHS, "tune.trials": planned})
    space = Space.of(settings)
    curves = curve(space, EPOCHS)
    scheduler = Asha(EPOCHS, 1, 3) if options.scheduler == "asha" else FreezeThaw(space, EPOCHS)

    def config_of(trial: Trial) -> Config:
        return settings.of_trial({**trial.values, "train.seed": trial.attributes["seed"]})

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        project = Project(Path(folder), Path(folder))
        name = "benchmark"
        storage: BaseStorage = journal(project.optuna_journal)
        if options.storage:
            from pipeline.search.studies.database import Database

            storage, name = Database(options.storage), f"benchmark-{time.time()}"
        ledger = Ledger(storage, name)
        setup = TrialSetup(config_of=config_of, epochs=EPOCHS, folder=project.root / "trials")

        with ledger.putting_off():
            filled(ledger, space, scheduler.rungs, trials, curves)

        def owner_of(engine: SimulatedEngine, until: Until, *watchers: Watcher) -> Owner:
            until.owner = Owner(
                ledger=ledger,
                source=Proposals(planned, space, Proposer(space, options.sampler, 0), 0, EPOCHS),
                scheduler=scheduler,
                engine=engine,
                setup=setup,
                limits=Limits(budget=budget_of(settings)),
                watchers=(*watchers, until),
            )
            return until.owner

        before = len(ledger.trials)
        watchers: list[Watcher] = []
        if mlflow:
            tracker = stack.enter_context(Tracker(project))
            parent = tracker.open("study-benchmark", name="study")
            tags = {f"version.{word}": "1.2.3" for word in "abcdefgh"}
            watchers = [
                Recorder(study=StudyRun(tracker, parent, META, tags), ledger=ledger, setup=setup, phase="trial")
            ]
        if options.paced:
            engine: SimulatedEngine = PacedEngine(curves, workers, options.paced, CONFUSION)
            until = Until(seconds=options.seconds)
        else:
            engine = SimulatedEngine(curves, workers, confusion=CONFUSION)
            until = Until(options.reports, workers)
        owner = owner_of(engine, until, *watchers)
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        wall_s = time.monotonic()
        with tracker.putting_off() if mlflow else nullcontext():
            owner.run()
        loop_s = time.monotonic() - wall_s
        if options.profile:
            profile.disable()
            profile.dump_stats(options.profile)
        cpu_s, own_s = until.began
        figures = {
            "workers": workers,
            "trials before": before,
            "trials": len(ledger.trials),
            "mlflow": mlflow,
            "s": loop_s,
            "main thread": (time.thread_time() - own_s),
        }
        unsent = tracker.waiting if mlflow else 0
        if not options.paced:
            stack.close()  # until MLflow has all of it
        elif mlflow:
            stack.pop_all()  # it would take minutes
        figures["cpu s"] = time.process_time() - cpu_s
        if isinstance(engine, PacedEngine):
            loop_s = time.monotonic() - until.began_s
            waits_s = np.sort(engine.waits_s or [0.0])
            figures |= {
                "reports/s": engine.reports / loop_s,
                "cores": figures["cpu s"] / loop_s,
                "main": figures["main thread"] / loop_s,
                "first wait": until.first_wait_s,
                "longest wait": waits_s[-1],
                "99 % wait": waits_s[int(0.99 * (len(waits_s) - 1))],
                "median wait": waits_s[len(waits_s) // 2],
                "orders": len(engine.waits_s),
                "unsent": unsent,
            }
        else:
            reports = until.seen - until.skipped
            figures |= {
                "reports": reports,
                "ms a report": figures["cpu s"] / reports * 1000,
                "of it main": figures["main thread"] / reports * 1000,
                "reports/s": reports / figures["cpu s"],
            }
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000], help="in the study already")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16, 256, 1024])
    parser.add_argument("--reports", type=int, default=2000, help="of a measurement (default: %(default)s)")
    parser.add_argument("--paced", type=float, default=0.0, metavar="S", help="seconds an epoch takes; 0: none")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a measurement with --paced")
    parser.add_argument("--scheduler", choices=("freeze_thaw", "asha"), default="freeze_thaw")
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe", help="with asha")
    parser.add_argument("--mlflow", choices=("both", "yes", "no"), default="both")
    parser.add_argument("--storage", help="address of a PostgreSQL database, in place of the journal")
    parser.add_argument("--profile", type=Path, help="file for the profile of the owner's thread (of the last study)")
    options = parser.parse_args()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    # Imports, and what is made once.
    once = argparse.Namespace(**vars(options) | {"reports": 60, "paced": 0, "profile": None})
    measured(once, 32, 10, options.mlflow != "no")
    for mlflow in {"both": (False, True), "yes": (True,), "no": (False,)}[options.mlflow]:
        for trials in options.trials:
            for workers in options.workers:
                figures = measured(options, workers, trials, mlflow)
                print(json.dumps({name: round(float(value), 4) for name, value in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
