"""How much a search may train, and whether a study is complete."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import Config

PAUSING_BUDGET = 0.4
"""Full trainings per trial, if the scheduler pauses trials and params.yaml names no budget."""


def budget_of(settings: Config) -> float:
    """Full trainings that the search may spend."""
    if settings.tune.budget is not None:
        return settings.tune.budget
    if settings.tune.scheduler == "none":
        return math.inf
    # PAUSING_BUDGET alone may not suffice to begin all trials and to finish one, if there are few or they are short.
    return max(PAUSING_BUDGET * settings.tune.trials, 1 + settings.tune.trials / settings.train.epochs)


@dataclass(frozen=True)
class Goal:
    """What a start of a study is asked for."""

    trials: int
    budget: float | None
    """None: no limit."""
    confirm: int
    seeds: int
    patience: int | None = None
    """None: the search does not end before its trials or its budget do."""

    @classmethod
    def of(cls, settings: Config) -> "Goal":
        tune, budget = settings.tune, budget_of(settings)
        return cls(tune.trials, None if math.isinf(budget) else budget, tune.confirm, tune.confirm_seeds, tune.patience)

    def record(self) -> dict[str, Any]:
        """As the study keeps it once it is complete."""
        return asdict(self)

    def is_covered_by(self, concluded: dict[str, Any] | None) -> bool:
        """Whether a study that was completed for the goal `concluded` leaves nothing to do."""
        if concluded is None:
            return False
        return all(
            concluded.get(key) is None or (wanted is not None and wanted <= concluded[key])
            for key, wanted in self.record().items()
        )
