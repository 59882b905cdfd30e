"""A trial as its owner knows it, and how the trials of a ledger are trained."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import Config, Scalar
from pipeline.outcome import Outcome
from pipeline.search.engines.store import Store
from pipeline.search.schedulers.base import State, TrialView


@dataclass
class Trial:
    """A trial as its owner knows it."""

    number: int
    values: dict[str, Scalar]
    id: int = field(repr=False)
    """Optuna's."""
    scores: list[float] = field(default_factory=list)
    """Validation accuracy, 0..1, after each epoch so far."""
    until: int = 0
    """The epoch of its last order."""
    state: State = "running"
    outcome: Outcome | None = None
    """How it ended; None while it can still be trained."""
    why: str | None = None
    elapsed_s: float = 0.0
    """Of training, up to the last epoch."""
    crashes: int = 0
    """In a row, without an epoch between them."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """Its user attributes in Optuna: seed, until, reached, ..."""

    _view: TrialView | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def view(self) -> TrialView:
        # Most trials of a large study stay as they are from one decision to the next.
        known = self._view
        if not known or (len(known.scores), known.state, known.until) != (len(self.scores), self.state, self.until):
            self._view = known = TrialView(self.number, self.values, tuple(self.scores), self.state, self.until)
        return known

    @property
    def status(self) -> str:
        """How it ended, or the state of a trial that has not ended: what tables show."""
        return self.outcome.value if self.outcome else self.state


@dataclass(frozen=True)
class TrialSetup:
    """How the trials of a ledger are trained."""

    config_of: Callable[[Trial], Config]
    """All values of a trial."""
    epochs: int
    """Of a full training."""
    folder: Path
    """Holds a folder per trial."""
    keep_models: bool = False
    """Whether trials keep their weights where they pause too, and pruned trials their model."""
    store: Store | None = None
    """Holds a folder per trial, with what workers write; None: they write into the trial's folder."""

    def name_of(self, trial: Trial) -> str:
        """Of its folders."""
        return f"{trial.number:04}"

    def folder_of(self, trial: Trial) -> Path:
        return self.folder / self.name_of(trial)

    def store_of(self, trial: Trial) -> Store | None:
        return self.store / self.name_of(trial) if self.store else None
