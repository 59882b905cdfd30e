"""Where the new trials of a study come from: proposed one by one, or planned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from optuna.distributions import BaseDistribution

from pipeline.config import Scalar
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.samplers import Proposer
from pipeline.search.studies.trials import Trial


class TrialSource(Protocol):
    """Where new trials come from."""

    @property
    def total(self) -> int:
        """The planned number of trials."""
        ...

    def new(self, ledger: Ledger, until: int, values: Values | None) -> Trial:
        """The next trial, entered in the ledger with an order until an epoch; with `values` if they are given."""
        ...


@dataclass(frozen=True)
class Proposals:
    """Trials with values that the scheduler chooses, or else a sampler: `limit` of them, or the size of the space."""

    limit: int
    space: Space
    proposer: Proposer
    seed: int
    first_until: int | None = None
    """The epoch until which trial 0 is trained, whatever the scheduler decides. Trial 0 has params.yaml's own values. A
    search is compared with its final accuracy, and a model of learning curves needs one that is complete."""

    @property
    def total(self) -> int:
        return min(self.limit, self.space.size or self.limit)

    def new(self, ledger: Ledger, until: int, values: Values | None) -> Trial:
        number = len(ledger.trials)
        if values is not None and not ledger.has(values):
            self.proposer.planned[number] = values
        # The values may be given or planned. Then the other trials, which take a while to read, are not looked at.
        proposed = self.proposer.settled(number)
        if proposed is None:
            finished = {trial.number for trial in ledger.trials if trial.state == "finished"}
            proposed = self.proposer.propose(ledger.frozen(), number, finished)
        if number == 0 and self.first_until:
            until = self.first_until
        return ledger.enter(proposed, self.space.distributions, until, seed=trial_seed(self.seed, number))


@dataclass(frozen=True)
class Planned:
    """Trials that are given: the values of each, and its attributes, which include its seed."""

    plan: Sequence[tuple[Mapping[str, Scalar], Mapping[str, Scalar]]]
    distributions: Mapping[str, BaseDistribution]

    @property
    def total(self) -> int:
        return len(self.plan)

    def new(self, ledger: Ledger, until: int, values: Values | None) -> Trial:
        values, attributes = self.plan[len(ledger.trials)]
        return ledger.enter(values, self.distributions, until, **attributes)


def trial_seed(study_seed: int, *number: int) -> int:
    """The seed of a trial's training: a function of the study's seed and the trial's number alone."""
    return int(np.random.SeedSequence([study_seed, *number]).generate_state(1)[0] >> 1)
