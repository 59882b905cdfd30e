"""Search methods that benchmarks/search.py compares: this project's owner with its schedulers, and Optuna's studies."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from search_curves import PoolSpace, Task

from pipeline.outcome import Outcome
from pipeline.records import Epoch
from pipeline.search.engines.base import Order
from pipeline.search.engines.simulated import Fault, SimulatedEngine
from pipeline.search.schedulers.asha import Asha
from pipeline.search.schedulers.base import Scheduler
from pipeline.search.schedulers.freeze_thaw import FreezeThaw
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values
from pipeline.search.studies.budget import PAUSING_BUDGET
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.owner import Limits, Owner
from pipeline.search.studies.proposals import Proposals
from pipeline.search.studies.samplers import Proposer
from pipeline.search.studies.trials import Trial, TrialSetup
from pipeline.search.studies.watcher import Watcher


@dataclass
class Found:
    """The final accuracy of the best configuration that was trained to the end, after each epoch of a search."""

    task: Task
    after: list[float | None] = field(default_factory=list)

    def add(self, finished: Sequence[float] = ()) -> None:
        """Adds an epoch, with the accuracies of configurations that finished with it."""
        self.after.append(max(self.after[-1:] + list(finished), key=lambda value: value or 0.0, default=None))

    def regret(self, cost: float) -> float:
        """After so many full trainings; after all, if the search ended before."""
        found = self.after[min(round(cost * self.task.epochs), len(self.after)) - 1] if self.after else None
        return 1.0 if found is None else (self.task.best - found) / (self.task.best - self.task.median)


@dataclass
class Notes(Watcher):
    """What an owner's search has found after each epoch."""

    found: Found

    def trained(self, trial: Trial, epoch: Epoch) -> None:
        self.found.add([epoch.validation_accuracy] if epoch.number == self.found.task.epochs else [])


Method = Callable[[Task, int, int, int], Found]
"""Of a task, a seed, the number of configurations and of workers."""


def _unread(trial: Trial) -> Any:
    """In place of a configuration, which the engine does not look at."""


def owned(scheduler: Callable[[Space, int, int], Scheduler]) -> Method:
    """This project's owner with a scheduler, all else as shipped, on the engine that only looks curves up."""

    def search(task: Task, seed: int, trials: int, workers: int) -> Found:
        space = task.space(seed)

        def diverges(order: Order) -> Fault | None:
            length = len(task.curve(order.values))
            return Fault(length - order.known, Outcome.DIVERGED) if length < order.until else None

        found = Found(task)
        Owner(
            ledger=Ledger(InMemoryStorage(), "benchmark"),
            source=Proposals(trials, space, Proposer(space, "tpe", seed), seed, task.epochs),
            scheduler=scheduler(space, task.epochs, seed),
            engine=SimulatedEngine(lambda values: task.curve(values).tolist(), workers, fault=diverges),
            setup=TrialSetup(config_of=_unread, epochs=task.epochs, folder=Path("nowhere")),
            limits=Limits(budget=PAUSING_BUDGET * trials),
            watchers=(Notes(found),),
        ).run()
        return found

    return search


def optunas(
    sampler: Callable[[int], optuna.samplers.BaseSampler], pruner: Callable[[], optuna.pruners.BasePruner]
) -> Method:
    """Optuna's study, whose pruner is asked after each epoch."""

    def search(task: Task, seed: int, trials: int, workers: int) -> Found:
        # Hyperband derives a trial's bracket from the study's name.
        study = optuna.create_study(
            study_name="benchmark", direction="maximize", sampler=sampler(seed), pruner=pruner()
        )
        space = task.space(seed)
        busy: list[tuple[optuna.Trial, Sequence[float], int] | None] = [None] * workers
        found = Found(task)
        started = 0
        while True:
            for worker in range(workers):
                if busy[worker] is None and started < trials:
                    trial, values = asked(study, space)
                    started += 1
                    busy[worker] = trial, task.curve(values).tolist(), 0
            if not any(busy):
                return found
            for worker, in_flight in enumerate(busy):
                if in_flight is None:
                    continue
                trial, accuracies, done = in_flight
                if done == len(accuracies):
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    busy[worker] = None
                    continue
                accuracy = accuracies[done]
                trial.report(accuracy, done + 1)
                busy[worker] = trial, accuracies, done + 1
                if done + 1 == task.epochs:
                    study.tell(trial, accuracy)
                    busy[worker] = None
                elif trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    busy[worker] = None
                found.add([accuracy] if done + 1 == task.epochs else [])

    return search


def asked(study: optuna.Study, space: Space) -> tuple[optuna.Trial, Values]:
    """A new trial and its configuration, one that exists and that no other trial has."""
    trial = study.ask(dict(space.distributions))
    if not isinstance(space, PoolSpace):
        return trial, space.snapped(trial.params)
    # The study has to know the configuration whose curve it is told, or it learns noise.
    tried = [space.active(other.params) for other in study.get_trials(deepcopy=False) if other.number != trial.number]
    left = dataclasses.replace(space, rows=[row for row in space.rows if row not in tried])
    values = left.snapped(trial.params)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    study.enqueue_trial(values)
    return study.ask(dict(space.distributions)), values


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed)


METHODS: Mapping[str, Method] = {
    "ours": owned(FreezeThaw),
    "asha": owned(lambda space, epochs, seed: Asha(epochs)),
    "random": optunas(optuna.samplers.RandomSampler, optuna.pruners.NopPruner),
    "tpe": optunas(_tpe, optuna.pruners.NopPruner),
    "tpe_median": optunas(_tpe, optuna.pruners.MedianPruner),
    "tpe_hyperband": optunas(_tpe, optuna.pruners.HyperbandPruner),
    "tpe_halving": optunas(_tpe, optuna.pruners.SuccessiveHalvingPruner),
}
