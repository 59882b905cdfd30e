"""A search on the simulated engine, for tests that need no training."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.storages import InMemoryStorage

from pipeline.config import Range
from pipeline.outcome import Outcome
from pipeline.records import Epoch
from pipeline.search.engines.base import Failed, TargetReached
from pipeline.search.engines.simulated import SimulatedEngine
from pipeline.search.engines.store import Store
from pipeline.search.schedulers.base import RemainingBudget, Resume, Start, TrialView
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.owner import Limits, Owner
from pipeline.search.studies.proposals import Proposals
from pipeline.search.studies.samplers import Proposer
from pipeline.search.studies.trials import Trial, TrialSetup
from pipeline.search.studies.watcher import Watcher

EPOCHS = 9
SPACE = Space(
    {"train.learning_rate": Range(low=0.001, high=1.0, log=True), "train.momentum": Range(low=0.0, high=0.99)},
    {"train.learning_rate": 0.1, "train.momentum": 0.9},
)


def curve(values: Values) -> list[float]:
    """Accuracy after each epoch: best at a learning rate of 0.03 and a momentum of 0.5."""
    distance = (
        math.log10(float(values["train.learning_rate"]) / 0.03) ** 2 / 4 + (float(values["train.momentum"]) - 0.5) ** 2
    )
    return [max(0.0, 0.95 - distance / 2) * (1 - 0.6**epoch) for epoch in range(1, EPOCHS + 1)]


@dataclass(frozen=True)
class Halves:
    """All trials start until epoch 3. Then the best paused one resumes until the end, while there is budget."""

    def decide(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
        if left.epochs <= 0:
            return None
        if left.trials > 0:
            return Start(3)
        paused = [trial for trial in trials if trial.state == "paused"]
        return Resume(max(paused, key=lambda trial: trial.scores[-1]).number, EPOCHS) if paused else None


@dataclass
class Diary(Watcher):
    """Records the calls of a watcher."""

    events: list[tuple[Any, ...]] = field(default_factory=list)

    def sent(self, trial: Trial, config: Any) -> None:
        self.events.append(("sent", trial.number, trial.until))

    def trained(self, trial: Trial, epoch: Epoch) -> None:
        self.events.append(("trained", trial.number, epoch.number))

    def reached(self, trial: Trial, reached: TargetReached) -> None:
        self.events.append(("reached", trial.number, reached.epoch))

    def ended(self, trial: Trial, outcome: Outcome, why: str | None) -> None:
        self.events.append(("ended", trial.number, outcome))

    def failed(self, trial: Trial, failed: Failed) -> None:
        self.events.append(("failed", trial.number, failed.outcome))

    def interrupted(self, trial: Trial) -> None:
        self.events.append(("interrupted", trial.number))

    def stopped(self, trial: Trial) -> None:
        self.events.append(("stopped", trial.number))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == kind]


def owner(
    folder: Path,
    *,
    ledger: Ledger | None = None,
    engine: Any = None,
    scheduler: Any = None,
    trials: int = 8,
    first_until: int | None = None,
    store: Store | None = None,
    curve: Callable[[Values], Sequence[float]] = curve,
    **limits: Any,
) -> Owner:
    """An owner of a study of SPACE, in memory unless a ledger is given, with a Diary as its watcher."""
    return Owner(
        ledger=ledger or Ledger(InMemoryStorage(), "study"),
        source=Proposals(trials, SPACE, Proposer(SPACE, "random", 0), 0, first_until),
        scheduler=scheduler or Halves(),
        engine=engine or SimulatedEngine(curve),
        setup=TrialSetup(config_of=lambda trial: None, epochs=EPOCHS, folder=folder, store=store),  # type: ignore[arg-type, return-value]
        limits=Limits(**limits),
        watchers=(Diary(),),
    )
