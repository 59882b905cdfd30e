"""Search methods: the regret of each after 5, 10, 15 and 20 full trainings, on learning curves of real networks.

    python benchmarks/search.py --data DIR
    python benchmarks/search.py --data DIR --tasks 126026,7593 --methods ours,tpe --seeds 1 --workers 4 --json

DIR holds lcbench/: the surrogate of the YAHPO benchmark (Pfisterer et al. 2022) for LCBench (Zimmer et al. 2021). It
predicts the validation accuracy of a network after each of 52 epochs, for 34 tasks and any values of seven
hyperparameters. It needs onnxruntime: pip install -e ".[bench]".

The cost of a search is the number of epochs that all its workers have trained / 52. A worker takes one unit of
simulated time per epoch. Regret is (best - found) / (best - median). `best` is that of 1,500 random configurations,
`median` that of 300, and `found` is the final accuracy of the best trial that was trained to the end. Regret is 1 until
there is such a trial. Below 0 it is better than those 1,500. `ours` is the shipped scheduler with its own sampler and a
budget of 0.4 full trainings per trial. The others are Optuna's samplers and pruners with their defaults and no budget.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.storages import InMemoryStorage
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.cli import guarded
from pipeline.config import Range
from pipeline.errors import DataError
from pipeline.records import Epoch
from pipeline.search.engines.simulated import SimulatedEngine
from pipeline.search.schedulers.freeze_thaw import FreezeThaw
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values
from pipeline.search.studies.budget import PAUSING_BUDGET
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.owner import Limits, Owner, Watcher
from pipeline.search.studies.proposals import Proposals
from pipeline.search.studies.samplers import Proposer
from pipeline.search.studies.trials import Trial, TrialSetup

Floats = NDArray[np.float64]

EPOCHS = 52
COSTS = (5, 10, 15, 20)
DEVELOPMENT = (
    *("126026", "146212", "167149", "167161", "167181", "167185", "167200", "168329", "168331", "168868", "168910"),
    *("189862", "189866", "189905", "189908", "34539", "7593"),
)
AXES = {
    "batch_size": Range(low=16, high=512, log=True, when={}),
    "learning_rate": Range(low=1e-4, high=1e-1, log=True, when={}),
    "momentum": Range(low=0.1, high=0.99, when={}),
    "weight_decay": Range(low=1e-5, high=1e-1, log=True, when={}),
    "num_layers": Range(low=1, high=5, when={}),
    "max_units": Range(low=64, high=1024, log=True, when={}),
    "max_dropout": Range(low=0.0, high=1.0, when={}),
}
"""In the order of the surrogate's inputs, after the epoch."""
SPACE = Space(AXES, {name: axis.low for name, axis in AXES.items()})


@dataclass(frozen=True, eq=False)
class Surrogate:
    """The learning curves of LCBench."""

    session: Any
    numbers: Mapping[str, int]
    """Of the tasks."""

    @classmethod
    def load(cls, folder: Path) -> "Surrogate":
        """From the folder that holds lcbench/, or from lcbench itself. Raises DataError."""
        try:
            import onnxruntime
        except ImportError:
            raise DataError('The learning curves need onnxruntime: pip install -e ".[bench]"') from None
        folders = (folder / "lcbench", folder)
        found = next((each for each in folders if (each / "model.onnx").is_file()), None)
        if found is None:
            raise DataError(f"There is no lcbench/model.onnx in {folder}.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(
                str(found / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
            numbers = json.loads((found / "encoding.json").read_text())["OpenML_task_id"]
            # The encoding has one more task, on which the surrogate was not trained.
            keys = json.loads((found / "config_space.json").read_text())["hyperparameters"]
            tasks = next(key["choices"] for key in keys if key["name"] == "OpenML_task_id")
            return cls(session, {task: numbers[task] for task in tasks})
        except Exception as error:
            raise DataError(f"{found} can't be read: {error}") from error

    def curves(self, task: str, many: Sequence[Values]) -> Floats:
        """Validation accuracy, 0..1, [n, 52]."""
        values = np.array([[configuration[name] for name in AXES] for configuration in many], dtype=np.float32)
        epochs = np.tile(np.arange(1, EPOCHS + 1, dtype=np.float32), len(many))
        inputs = {
            "x_cat": np.full((len(epochs), 1), self.numbers[task], dtype=np.int32),
            "x_cont": np.column_stack([epochs, np.repeat(values, EPOCHS, axis=0)]),
        }
        outputs = self.session.run(None, inputs)[0]
        return outputs[:, 1].reshape(len(many), EPOCHS).astype(np.float64) / 100

    @cache  # noqa: B019  one surrogate lives as long as the process
    def references(self, task: str) -> tuple[float, float]:
        """The best final accuracy of 1,500 random configurations, and the median of 300."""
        generator = np.random.default_rng(0)
        best = self.curves(task, SPACE.random(generator, 1_500))[:, -1].max()
        return float(best), float(np.median(self.curves(task, SPACE.random(generator, 300))[:, -1]))


Curve = Callable[[Values], Floats]


@dataclass
class Found:
    """The final accuracy of the best configuration that was trained to the end, after each epoch of a search."""

    after: list[float | None] = field(default_factory=list)

    def add(self, finished: Sequence[float] = ()) -> None:
        """Adds an epoch, with the accuracies of configurations that finished with it."""
        self.after.append(max(self.after[-1:] + list(finished), key=lambda value: value or 0.0, default=None))

    def regret(self, cost: int, best: float, median: float) -> float:
        found = self.after[min(cost * EPOCHS, len(self.after)) - 1] if self.after else None
        return 1.0 if found is None else (best - found) / (best - median)


@dataclass
class Notes(Watcher):
    """What an owner's search has found after each epoch."""

    found: Found = field(default_factory=Found)

    def trained(self, trial: Trial, epoch: Epoch) -> None:
        self.found.add([epoch.validation_accuracy] if epoch.number == EPOCHS else [])


def search_ours(curve: Curve, seed: int, trials: int, workers: int) -> Found:
    """This project's owner, with all defaults, on the engine that only looks curves up."""
    # There is no params.yaml with values of its own: the first spread configuration takes their place.
    (first,) = SPACE.spread(1, seed)
    space = Space(AXES, first)
    notes = Notes()
    Owner(
        ledger=Ledger(InMemoryStorage(), "benchmark"),
        source=Proposals(trials, space, Proposer(space, "tpe", seed), seed, EPOCHS),
        scheduler=FreezeThaw(space, EPOCHS, seed),
        engine=SimulatedEngine(curve, workers),
        setup=TrialSetup(config_of=lambda trial: None, epochs=EPOCHS, folder=Path("nowhere")),
        limits=Limits(budget=PAUSING_BUDGET * trials),
        watchers=(notes,),
    ).run()
    return notes.found


def search_optuna(
    sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner, curve: Curve, trials: int, workers: int
) -> Found:
    """Optuna's study, whose pruner is asked after each epoch."""
    # Hyperband derives a trial's bracket from the study's name.
    study = optuna.create_study(study_name="benchmark", direction="maximize", sampler=sampler, pruner=pruner)
    busy: list[tuple[optuna.Trial, Floats, int] | None] = [None] * workers
    found = Found()
    started = 0
    while True:
        for worker in range(workers):
            if busy[worker] is None and started < trials:
                trial = study.ask(SPACE.distributions)
                started += 1
                busy[worker] = trial, curve(SPACE.snapped(trial.params)), 0
        if not any(busy):
            return found
        for worker, in_flight in enumerate(busy):
            if in_flight is None:
                continue
            trial, accuracies, done = in_flight
            accuracy = float(accuracies[done])
            trial.report(accuracy, done + 1)
            busy[worker] = trial, accuracies, done + 1
            if done + 1 == EPOCHS:
                study.tell(trial, accuracy)
                busy[worker] = None
            elif trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                busy[worker] = None
            found.add([accuracy] if done + 1 == EPOCHS else [])


PRUNERS: Mapping[str, Callable[[], optuna.pruners.BasePruner]] = {
    "random": optuna.pruners.NopPruner,
    "tpe": optuna.pruners.NopPruner,
    "tpe_median": optuna.pruners.MedianPruner,
    "tpe_hyperband": optuna.pruners.HyperbandPruner,
    "tpe_halving": optuna.pruners.SuccessiveHalvingPruner,
}
METHODS = ("ours", *PRUNERS)


def search(method: str, curve: Curve, seed: int, trials: int, workers: int) -> Found:
    if method == "ours":
        return search_ours(curve, seed, trials, workers)
    samplers = optuna.samplers
    sampler = samplers.RandomSampler(seed) if method == "random" else samplers.TPESampler(seed=seed)
    return search_optuna(sampler, PRUNERS[method](), curve, trials, workers)


def names(text: str) -> list[str]:
    found = [name for name in text.split(",") if name]
    if not found:
        raise argparse.ArgumentTypeError("names at least one")
    return found


def positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return number


def known(kind: str, given: Sequence[str], legal: Sequence[str]) -> None:
    unknown = [name for name in given if name not in legal]
    if unknown:
        raise DataError(f"There is no {kind} {', '.join(unknown)}. There are: {', '.join(legal)}")


def compare(arguments: argparse.Namespace) -> None:
    known("method", arguments.methods, METHODS)
    surrogate = Surrogate.load(arguments.data)
    known("task", arguments.tasks, sorted(surrogate.numbers))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    regrets: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(arguments.methods) * len(arguments.tasks) * arguments.seeds)
        for method in arguments.methods:
            for task in arguments.tasks:
                progress.update(bar, description=f"{method} on {task}")
                best, median = surrogate.references(task)
                for seed in range(arguments.seeds):
                    found = search(
                        method,
                        lambda values, task=task: surrogate.curves(task, [values])[0],
                        seed,
                        arguments.trials,
                        arguments.workers,
                    )
                    for cost in COSTS:
                        regrets[method][task][str(cost)].append(found.regret(cost, best, median))
                    progress.advance(bar)
    by_task = {
        method: {
            task: {cost: float(np.mean(of_seeds)) for cost, of_seeds in costs.items()} for task, costs in of.items()
        }
        for method, of in regrets.items()
    }
    summary = {
        method: {str(cost): float(np.mean([costs[str(cost)] for costs in of.values()])) for cost in COSTS}
        for method, of in by_task.items()
    }
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in ("seeds", "trials", "workers")}
        print(json.dumps({"summary": summary, "tasks": by_task, **settings}, indent=2))
        return
    table = Table(
        "method",
        *(f"at cost {cost}" for cost in COSTS),
        title=f"Mean regret of {len(arguments.tasks)} tasks, {arguments.seeds} seeds, {arguments.trials} trials, "
        f"{arguments.workers} workers",
    )
    for method, costs in summary.items():
        table.add_row(method, *(f"{regret:.3f}" for regret in costs.values()))
    Console().print(table)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds lcbench/")
    parser.add_argument(
        "--tasks", type=names, default=list(DEVELOPMENT), help="numbers; default: the development tasks"
    )
    parser.add_argument("--methods", type=names, default=list(METHODS), help=f"of {', '.join(METHODS)}; default: all")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--trials", type=positive, default=50, help="configurations of a search")
    parser.add_argument("--workers", type=positive, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    return guarded(lambda: compare(arguments))


if __name__ == "__main__":
    sys.exit(main())
