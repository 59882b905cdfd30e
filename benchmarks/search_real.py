"""Whole searches with real trainings: what each method finds with the same epochs, confirmed with new seeds.

    python benchmarks/search_real.py crossing --data ARCHIVE --folder work
    python benchmarks/search_real.py resnet20 --data ARCHIVE --folder work --trials 20 --budget 6 --seeds 5

ARCHIVE is cifar-10-python.tar.gz; curves.py says what the searches train and in which space. `ours` is the shipped
scheduler with its own sampler, `asha` this project's own with TPE, `tpe_hyperband` Optuna's TPE and HyperbandPruner,
which is asked after each epoch, with their defaults. All begin with the values of params.yaml, have the same number of
trials, of epochs and of workers, and train by the same engine. The best trial that was trained to the end is trained
again with new seeds: `confirmed` is their mean accuracy on the validation part.

Results are added to FOLDER/NAME/results.json after each search, with the values and the curve of each trial. The same
command goes on with what is missing.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import curves
import numpy as np
import optuna
from optuna.storages import InMemoryStorage
from rich.console import Console
from rich.table import Table

from pipeline import config
from pipeline.cli import guarded
from pipeline.config import Config
from pipeline.files import Project, atomic_write
from pipeline.outcome import Outcome
from pipeline.records import Epoch
from pipeline.search.engines import building
from pipeline.search.engines.base import Engine
from pipeline.search.schedulers.asha import Asha
from pipeline.search.schedulers.base import FullTraining, RemainingBudget, Resume, Scheduler, Start, TrialView
from pipeline.search.schedulers.freeze_thaw import FreezeThaw
from pipeline.search.space.space import Space
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.options import count
from pipeline.search.studies.owner import Limits, Owner
from pipeline.search.studies.proposals import Planned, Proposals, TrialSource, trial_seed
from pipeline.search.studies.samplers import Proposer
from pipeline.search.studies.spec import StudySpec
from pipeline.search.studies.trials import Trial, TrialSetup
from pipeline.search.studies.watcher import Watcher

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the budget, at which the best accuracy so far is noted."""


class OptunasScheduler:
    """Optuna's sampler and pruner in the place of a scheduler. A trial that the pruner ends stays paused."""

    def __init__(self, space: Space, epochs: int, seed: int) -> None:
        self._space, self._epochs = space, epochs
        # Hyperband derives a trial's bracket from the study's name.
        self._study = optuna.create_study(
            study_name="benchmark",
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.HyperbandPruner(),
        )
        self._study.enqueue_trial(space.own)
        self._asked: list[optuna.Trial] = []
        self._reported: dict[int, int] = {}
        self._told: set[int] = set()

    def decide(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
        for trial in trials:
            self._report(trial)
        if left.epochs < 1:
            return None
        for trial in trials:
            if trial.state == "paused" and trial.number not in self._told:
                return Resume(trial.number, trial.until + 1)
        if not left.trials:
            return None
        asked = self._study.ask(dict(self._space.distributions))
        self._asked.append(asked)
        return Start(1, self._space.snapped(asked.params))

    def plan(self, trials: Sequence[TrialView], left: RemainingBudget, count: int) -> Sequence[Start | Resume]:
        decision = self.decide(trials, left)
        return [decision] if decision else []

    def _report(self, trial: TrialView) -> None:
        if trial.number in self._told:
            return
        asked, state = self._asked[trial.number], None
        for epoch in range(self._reported.get(trial.number, 0) + 1, len(trial.scores) + 1):
            asked.report(trial.scores[epoch - 1], epoch)
            self._reported[trial.number] = epoch
        if trial.state == "failed":
            state = optuna.trial.TrialState.FAIL
        elif len(trial.scores) >= self._epochs:
            self._study.tell(asked, trial.scores[-1])
            self._told.add(trial.number)
        elif trial.state == "paused" and asked.should_prune():
            state = optuna.trial.TrialState.PRUNED
        if state is not None:
            self._study.tell(asked, state=state)
            self._told.add(trial.number)


METHODS: Mapping[str, Callable[[Space, int, int], Scheduler]] = {
    "ours": lambda space, epochs, seed: FreezeThaw(space, epochs, seed),
    "asha": lambda space, epochs, seed: Asha(epochs),
    "tpe_hyperband": OptunasScheduler,
}


@dataclass
class Progress(Watcher):
    """What a search has found after each epoch, and a line for each trial that ends."""

    title: str
    epochs: int
    total: float
    trained_epochs: int = 0
    best: list[float] = field(default_factory=list)
    """After each epoch; 0 before a trial has ended."""

    def trained(self, trial: Trial, epoch: Epoch) -> None:
        self.trained_epochs += 1
        ended = epoch.validation_accuracy if epoch.number == self.epochs else 0.0
        self.best.append(max([ended, *self.best[-1:]]))

    def ended(self, trial: Trial, outcome: Outcome, why: str | None) -> None:
        score = f" {trial.scores[-1]:.4f}" if trial.scores else ""
        print(
            f"{self.title}: trial {trial.number} {outcome}{score} after {len(trial.scores)} epochs; "
            f"{self.trained_epochs} of {self.total:g} epochs",
            file=sys.stderr,
        )

    def after(self, share: float) -> float:
        return self.best[min(math.ceil(share * self.total), len(self.best)) - 1]


@dataclass(frozen=True)
class Search:
    """One whole search and its confirmation."""

    spec: StudySpec
    engine: Engine
    folder: Path
    method: str
    seed: int
    trials: int
    budget: float
    confirm_seeds: int

    def run(self) -> dict[str, Any]:
        space, epochs = self.spec.space, self.spec.settings.train.epochs
        first_until = epochs if self.method == "ours" else None
        source = Proposals(self.trials, space, Proposer(space, "tpe", self.seed), self.seed, first_until)
        scheduler = METHODS[self.method](space, epochs, self.seed)
        found = Progress(f"{self.method}, seed {self.seed}", epochs, self.budget * epochs)
        ledger = self._own("trials", source, scheduler, self.budget, found)
        ended = [trial for trial in ledger.trials if trial.state == "finished"]
        best = max(ended, key=lambda trial: trial.scores[-1])
        plan = [
            (best.values, {"seed": trial_seed(self.seed, best.number, number)})
            for number in range(1, self.confirm_seeds + 1)
        ]
        confirming = Progress(f"{self.method}, seed {self.seed}, new seeds", epochs, self.confirm_seeds * epochs)
        planned = Planned(plan, space.distributions)
        again = self._own("confirm", planned, FullTraining(epochs), math.inf, confirming)
        return {
            "method": self.method,
            "seed": self.seed,
            "epochs": found.trained_epochs,
            "started": len(ledger.trials),
            "finished": len(ended),
            "best": best.scores[-1],
            "after": {f"{share:g}": found.after(share) for share in SHARES},
            "values": dict(best.values),
            "confirmed": [trial.scores[-1] for trial in again.trials if trial.scores],
            "trials": [{"values": dict(trial.values), "scores": list(trial.scores)} for trial in ledger.trials],
        }

    def _own(self, phase: str, source: TrialSource, scheduler: Scheduler, budget: float, watcher: Watcher) -> Ledger:
        ledger = Ledger(InMemoryStorage(), "benchmark")
        epochs = self.spec.settings.train.epochs
        folder = self.folder / f"{self.method}-{self.seed}-{phase}"
        Owner(
            ledger=ledger,
            source=source,
            scheduler=scheduler,
            engine=self.engine,
            setup=TrialSetup(config_of=self.spec.config_of, epochs=epochs, folder=folder),
            limits=Limits(budget=budget, retries=1),
            watchers=(watcher,),
        ).run()
        return ledger


def compare(arguments: argparse.Namespace) -> None:
    folder = arguments.folder / arguments.name
    curves.prepare(arguments.name, folder, arguments.data, [], [])
    project = Project(folder, folder)
    given = {"tune.workers": arguments.workers} if arguments.workers else {}
    settings: Config = config.load(project.params, given)
    spec = StudySpec.of(project, "real", settings)
    path = folder / "results.json"
    results: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    wanted = [(method, seed) for seed in range(arguments.seeds) for method in arguments.methods]
    missing = [each for each in wanted if each not in [(found["method"], found["seed"]) for found in results]]
    engine = building.build(settings, project, spec.folder) if missing else None
    try:
        for method, seed in missing:
            assert engine
            one = Search(
                spec, engine, folder / "searches", method, seed, arguments.trials, arguments.budget, arguments.confirm
            )
            results.append(one.run())
            with atomic_write(path) as aside:
                aside.write_text(json.dumps(results, indent=1), encoding="utf-8")
    finally:
        if engine:
            engine.close()
    show(results, arguments)


def show(results: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> None:
    columns = [f"best at {share:.0%}" for share in SHARES]
    title = f"{arguments.name}: {arguments.trials} trials, {arguments.budget:g} full trainings"
    table = Table("method", "seed", "epochs", "finished", *columns, "confirmed", title=title)
    for method in arguments.methods:
        of_method = [found for found in results if found["method"] == method]
        for found in of_method:
            confirmed = found["confirmed"]
            table.add_row(
                method,
                str(found["seed"]),
                str(found["epochs"]),
                f"{found['finished']} of {found['started']}",
                *(f"{accuracy:.4f}" for accuracy in found["after"].values()),
                f"{np.mean(confirmed):.4f}" + (f" +- {np.std(confirmed, ddof=1):.4f}" if len(confirmed) > 1 else ""),
            )
        means = [np.mean([list(found["after"].values())[number] for found in of_method]) for number in range(4)]
        confirmed = np.mean([np.mean(found["confirmed"]) for found in of_method])
        table.add_row(method, "all", "", "", *(f"{mean:.4f}" for mean in means), f"{confirmed:.4f}", end_section=True)
    Console().print(table)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(curves.RECIPES))
    parser.add_argument("--data", type=Path, help="cifar-10-python.tar.gz")
    parser.add_argument("--folder", type=Path, required=True, help="for images, checkpoints and results")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS), help=", ".join(METHODS))
    parser.add_argument("--seeds", type=count, default=3, help="searches of each method")
    parser.add_argument("--trials", type=count, default=30, help="configurations of a search")
    parser.add_argument("--budget", type=float, default=10, help="full trainings of a search")
    parser.add_argument("--confirm", type=count, default=3, help="new seeds for the best trial of a search")
    parser.add_argument("--workers", type=count, help="default: one per core")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.methods if name not in METHODS]
    if unknown:
        parser.error(f"There is no method {', '.join(unknown)}. There are: {', '.join(METHODS)}")
    if not arguments.budget > 0:
        parser.error(f"--budget must be a number over 0, got {arguments.budget:g}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return guarded(lambda: compare(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
