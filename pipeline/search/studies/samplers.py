"""Values for the next trial, by Optuna's samplers.

What is proposed for a trial is a function of the study's seed, the trial's number and the results of the other trials.
A study that was killed therefore proposes the same as one that was not.
"""

import itertools
from collections.abc import Collection, Container, Mapping, Sequence
from types import EllipsisType
from typing import Any, Literal, TypeAlias

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.config import Scalar
from pipeline.outcome import Outcome
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values

Named: TypeAlias = Literal["tpe", "random", "grid", "gp"]

_Key: TypeAlias = tuple[Scalar | EllipsisType, ...]
"""A configuration as a member of a set; ... stands for an inactive key."""

ATTEMPTS = {"tpe": 20, "random": 20, "gp": 2}
"""How often a sampler is asked for values that were not tried. A Gaussian process takes seconds and rarely repeats."""
DRAWS = 100
"""Random configurations that are drawn when a sampler has only proposed values that were tried."""


class Proposer:
    """Chooses the values of each trial of a study, and never the same values twice.

    Trial 0 has params.yaml's own values, the next trials have those of `first`, and a trial in `planned` has the values
    that are planned for it. The sampler chooses for all others.
    """

    def __init__(self, space: Space, sampler: Named, seed: int, first: Sequence[Values] = ()) -> None:
        # The owner prints a line per trial itself. The Gaussian process warns if greenlet is missing, which would make
        # it only a little faster.
        optuna.logging.set_verbosity(optuna.logging.ERROR if sampler == "gp" else optuna.logging.WARNING)
        self.planned: dict[int, Values] = {}
        """Configurations that are decided already, by number of their trial."""
        self._space, self._sampler, self._seed = space, sampler, seed
        given = [space.own, *(space.active({**space.fixed, **values}) for values in first)]
        self._given = [values for number, values in enumerate(given) if values not in given[:number]]

    def propose(self, trials: Sequence[FrozenTrial], number: int, finished: Container[int] = ()) -> dict[str, Scalar]:
        """The configuration of the trial `number`, which need not exist yet, from the other trials of the study.

        `finished` has the numbers of finished trials, since Optuna's storage may not have their end yet.
        Raises ValueError if all configurations of the space have been tried.
        """
        if (settled := self.settled(number)) is not None:
            return settled
        trials = [trial for trial in trials if trial.number != number]
        planned = [values for other, values in self.planned.items() if other != number]
        tried = {self._key(values) for values in (*(trial.params for trial in trials), *self._given, *planned)}
        if self._sampler != "grid":
            study = _study_of(
                [_as_finished(trial) if trial.number in finished else trial for trial in trials],
                all_have_constraints=self._sampler == "gp",
            )
            for attempt in range(ATTEMPTS[self._sampler]):
                values = self._attempt(study, number, attempt)
                if self._key(values) not in tried:
                    return values
        return self._untried(number, tried)

    def settled(self, number: int) -> dict[str, Scalar] | None:
        """The configuration of the trial `number` if it does not depend on other trials; else None."""
        if number < len(self._given):
            return self._given[number]
        return self._space.active(self.planned[number]) if number in self.planned else None

    def _key(self, values: Mapping[str, Any]) -> _Key:
        return tuple(values.get(name, ...) for name in self._space.names)

    def _untried(self, number: int, tried: Collection[_Key]) -> dict[str, Scalar]:
        """A configuration that was not tried: a random one if a draw finds one, else the next one of the grid.

        With the sampler `grid` always the next one of the grid.
        """
        generator = np.random.default_rng([self._seed, number, DRAWS])
        draws = [] if self._sampler == "grid" else self._space.random(generator, DRAWS)
        # A space with a continuous range has no grid, but draws never run out.
        rest = self._space.every() if self._space.size else ()
        for values in itertools.chain(draws, rest):
            if self._key(values) not in tried:
                return values
        raise ValueError(f"all {len(tried):,} configurations of the space have been tried")

    def _attempt(self, study: Study, number: int, attempt: int) -> dict[str, Scalar]:
        if self._sampler == "random":
            return self._space.random(np.random.default_rng([self._seed, number, attempt]), 1)[0]
        seed = int(np.random.SeedSequence([self._seed, number, attempt]).generate_state(1)[0])
        return self._sampled(_sampler(self._sampler, seed), study, number)

    def _sampled(self, sampler: BaseSampler, study: Study, number: int) -> dict[str, Scalar]:
        """What one of Optuna's samplers chooses: all unconditional keys together, the others one by one."""
        trial = FrozenTrial(number, TrialState.RUNNING, None, None, None, {}, {}, {}, {}, {}, trial_id=-1)
        distributions = self._space.distributions
        together = {name: distributions[name] for name in self._space.unconditional if not distributions[name].single()}
        relative = sampler.sample_relative(study, trial, together)
        values: dict[str, Scalar] = {}
        for name in self._space.parents_first:
            if not self._space.is_active(name, values):
                continue
            if name in relative:
                values[name] = relative[name]
            else:
                values[name] = sampler.sample_independent(study, trial, name, distributions[name])
        return self._space.snapped(values)


def _sampler(name: str, seed: int) -> BaseSampler:
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.TPESampler(seed=seed)


def _study_of(trials: Sequence[FrozenTrial], *, all_have_constraints: bool) -> Study:
    """A study for Optuna's samplers: the trials in states that samplers learn from.

    A running or paused trial with scores becomes PRUNED. As RUNNING it would count among the bad ones, although a
    trial that resumes is among the best. A trial whose values are infeasible becomes COMPLETE with the worst value and
    a violated constraint. The Gaussian process needs constraints of all trials (`all_have_constraints`).
    """
    worst = min((trial.value for trial in trials if trial.value is not None), default=0.0)
    infeasible = {trial.number for trial in trials if _is_infeasible(trial)}
    shown = []
    for trial in trials:
        is_infeasible = trial.number in infeasible
        constraint = None
        if is_infeasible or (infeasible and all_have_constraints):
            constraint = 1.0 if is_infeasible else -1.0
        if is_infeasible:
            shown.append(_copy(trial, TrialState.COMPLETE, worst, constraint))
        elif trial.state == TrialState.RUNNING and trial.intermediate_values:
            shown.append(_copy(trial, TrialState.PRUNED, trial.value, constraint))
        elif constraint is not None:
            shown.append(_copy(trial, trial.state, trial.value, constraint))
        else:
            shown.append(trial)
    return optuna.create_study(study_name="shown", storage=_FixedTrials(shown), direction="maximize")


def _as_finished(trial: FrozenTrial) -> FrozenTrial:
    """A finished trial as it is once its end is stored: a proposal must not depend on whether it is."""
    if trial.state.is_finished():
        return trial
    return _copy(trial, TrialState.COMPLETE, trial.intermediate_values[max(trial.intermediate_values)])


def _is_infeasible(trial: FrozenTrial) -> bool:
    ended = trial.user_attrs.get("ended")
    return trial.state == TrialState.FAIL and ended is not None and Outcome(ended).is_infeasible


def _copy(trial: FrozenTrial, state: TrialState, value: float | None, constraint: float | None = None) -> FrozenTrial:
    """A copy with another state and value. The original belongs to the storage."""
    copy = FrozenTrial(
        number=trial.number,
        state=state,
        value=value,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=dict(trial.system_attrs),
        intermediate_values=trial.intermediate_values,
        trial_id=-1,
    )
    if constraint is not None:
        copy.set_constraint("trains", constraint)
    return copy


class _FixedTrials(InMemoryStorage):
    """A storage in memory that has given trials. `Study.add_trial` would copy each of them deeply, in milliseconds."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._trials = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Samplers leave notes here for processes that sample at the same time. There are none."""
