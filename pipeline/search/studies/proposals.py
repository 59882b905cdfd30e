"""Where the new trials of a study come from: proposed one by one, or planned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from optuna.distributions import BaseDistribution

from pipeline.config import Scalar
from pipeline.search.schedulers.base import Values
from pipeline.search.space.space import Space
from pipeline.search.studies.ledger import Ledger, Trial
from pipeline.search.studies.samplers import Proposer


class TrialSource(Protocol):
    """Where new trials come from."""

    @property
    def total(self) -> int:
        """How many there are to be in all."""
        ...

    def new(self, ledger: Ledger, until: int, values: Values | None) -> Trial:
        """The next one, noted in the ledger as sent to the epoch `until`; of `values` if they are given."""
        ...


@dataclass(frozen=True)
class Proposals:
    """Values that the scheduler names, or else a sampler draws from the space: `limit` of them, if it has as many."""

    limit: int
    space: Space
    proposer: Proposer
    seed: int
    first_until: int | None = None
    """Until when trial 0 is trained, whatever the scheduler says. It has the values that one has already: without its
    end nobody knows whether a search has found better ones, and a model of learning curves has none to go by."""

    @property
    def total(self) -> int:
        return min(self.limit, self.space.size or self.limit)

    def new(self, ledger: Ledger, until: int, values: Values | None) -> Trial:
        number = len(ledger.trials)
        if values is not None and not any(trial.values == values for trial in ledger.trials):
            self.proposer.planned[number] = values
        finished = {trial.number for trial in ledger.trials if trial.state == "finished"}
        drawn = self.proposer.propose(ledger.study, number, finished)
        if number == 0 and self.first_until:
            until = self.first_until
        return ledger.enter(drawn, self.space.distributions, until, seed=trial_seed(self.seed, number))


@dataclass(frozen=True)
class Planned:
    """Given values with given seeds and notes, in their order."""

    plan: Sequence[tuple[Mapping[str, Scalar], Mapping[str, Scalar]]]
    distributions: Mapping[str, BaseDistribution]

    @property
    def total(self) -> int:
        return len(self.plan)

    def new(self, ledger: Ledger, until: int, values: Values | None) -> Trial:
        values, notes = self.plan[len(ledger.trials)]
        return ledger.enter(values, self.distributions, until, **notes)


def trial_seed(study_seed: int, *number: int) -> int:
    """The seed of a trial's training: a function of the study's seed and the trial's number alone."""
    return int(np.random.SeedSequence([study_seed, *number]).generate_state(1)[0] >> 1)
