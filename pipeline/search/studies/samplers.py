"""Who proposes the next configuration: the sampler that Optuna's study has, around the one that tune.sampler names.

What it proposes for a trial follows from the study's seed, the trial's number and what the other trials have shown, so
that a study that was killed goes on as one that was not.
"""

import itertools
from collections.abc import Collection, Container, Mapping, Sequence
from types import EllipsisType
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pipeline.config import Scalar
from pipeline.search.schedulers.base import Values
from pipeline.search.space.space import Space

Named: TypeAlias = Literal["tpe", "random", "grid", "gp"]

_Key: TypeAlias = tuple[Scalar | EllipsisType, ...]
"""A configuration as a set can hold it; ... is what is inactive."""

# A model of few values proposes the same ones again; the gaussian process, which takes seconds, hardly any others.
ATTEMPTS = {"tpe": 20, "random": 20, "gp": 2}
DRAWS = 100

INFEASIBLE = ("diverged", "out of memory")
"""Ends of a trial, in its user attribute `ended`, that its configuration is to blame for."""


class SpaceExhausted(Exception):
    """Every configuration of the space has been tried."""

    def __init__(self, size: int) -> None:
        super().__init__(f"all {size:,} configurations of the space have been tried")
        self.size = size


class Proposer(BaseSampler):
    """Chooses the values of each trial of a study, never the same ones twice.

    Trial 0 has params.yaml's own values, the next ones have those of `first`, a trial in `planned` has those that stand
    there, and the sampler of that name chooses for all others.
    """

    def __init__(self, space: Space, sampler: Named, seed: int, first: Sequence[Values] = ()) -> None:
        # A line for each trial is the owner's to print. The gaussian process would warn that greenlet, which it is a
        # little faster with, is not there.
        optuna.logging.set_verbosity(optuna.logging.ERROR if sampler == "gp" else optuna.logging.WARNING)
        self.planned: dict[int, Values] = {}
        """Configurations that are decided already, by the number of their trial."""
        self._space, self._sampler, self._seed = space, sampler, seed
        given = [space.own, *(space.active({**space.fixed, **values}) for values in first)]
        self._given = [values for number, values in enumerate(given) if values not in given[:number]]

    def propose(self, study: Study, number: int, finished: Container[int] = ()) -> dict[str, Scalar]:
        """The configuration of the trial of that number, which need not exist yet. Raises SpaceExhausted.

        `finished` names trials at their end, of which the storage may not know it yet.
        """
        if number < len(self._given):
            return self._given[number]
        if number in self.planned:
            return self._space.active(self.planned[number])
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number != number]
        planned = [values for other, values in self.planned.items() if other != number]
        tried = {self._key(values) for values in (*(trial.params for trial in trials), *self._given, *planned)}
        if self._sampler != "grid":
            trials = [_completed(trial) if trial.number in finished else trial for trial in trials]
            shown = _as_shown(study, trials, every_constrained=self._sampler == "gp")
            for attempt in range(ATTEMPTS[self._sampler]):
                values = self._attempt(shown, number, attempt)
                if self._key(values) not in tried:
                    return values
        return self._untried(number, tried)

    def _key(self, values: Mapping[str, Any]) -> _Key:
        return tuple(values.get(name, ...) for name in self._space.names)

    def _untried(self, number: int, tried: Collection[_Key]) -> dict[str, Scalar]:
        """Any configuration that was not tried: a random one, unless hardly any is left or a grid needs its order."""
        generator = np.random.default_rng([self._seed, number, DRAWS])
        draws = [] if self._sampler == "grid" else self._space.random(generator, DRAWS)
        # Where a range of floats has no step there is no end of draws.
        rest = self._space.every() if self._space.size else ()
        for values in itertools.chain(draws, rest):
            if self._key(values) not in tried:
                return values
        raise SpaceExhausted(self._space.size or len(tried))

    def _attempt(self, study: Study, number: int, attempt: int) -> dict[str, Scalar]:
        if self._sampler == "random":
            return self._space.random(np.random.default_rng([self._seed, number, attempt]), 1)[0]
        seed = int(np.random.SeedSequence([self._seed, number, attempt]).generate_state(1)[0])
        return self._proposed(_sampler(self._sampler, seed), study, number)

    def _proposed(self, sampler: BaseSampler, study: Study, number: int) -> dict[str, Scalar]:
        """What one of Optuna's samplers chooses: all keys that every trial has at once, the others one by one."""
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

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.propose(study, trial.number)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"trial {trial.number} has no {param_name}: it is outside the space, or its `when` fails")


def _sampler(name: str, seed: int) -> BaseSampler:
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.TPESampler(seed=seed)


def _as_shown(study: Study, trials: Sequence[FrozenTrial], *, every_constrained: bool) -> Study:
    """The study as a sampler is to see it: what has been learned, in the states that Optuna's samplers learn from.

    A paused trial is PRUNED, with what it has reported. So is one that goes on after a pause: while it was RUNNING it
    would count among the bad ones, and it is among the best. A configuration that can't be trained breaks a constraint,
    which `every_constrained` gives to all trials.
    """
    worst = min((trial.value for trial in trials if trial.value is not None), default=0.0)
    infeasible = {trial.number for trial in trials if _is_infeasible(trial)}
    shown = []
    for trial in trials:
        changes: dict[str, Any] = {}
        if trial.number in infeasible:
            changes = {"state": TrialState.COMPLETE, "value": worst}
        elif trial.state == TrialState.RUNNING and trial.intermediate_values:
            changes = {"state": TrialState.PRUNED}
        if trial.number in infeasible or (infeasible and every_constrained):
            broken = 1.0 if trial.number in infeasible else -1.0
            changes["system_attrs"] = {**trial.system_attrs, "constraints:trains": broken}
        shown.append(_twin(trial, changes) if changes else trial)
    return Study(study.study_name, cast(BaseStorage, _Shown(study._storage, shown)), sampler=study.sampler)


def _completed(trial: FrozenTrial) -> FrozenTrial:
    """A trial as it is when its end is noted: what is proposed must not hang on whether it was."""
    if trial.state.is_finished():
        return trial
    return _twin(
        trial, {"state": TrialState.COMPLETE, "value": trial.intermediate_values[max(trial.intermediate_values)]}
    )


def _is_infeasible(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and trial.user_attrs.get("ended") in INFEASIBLE


def _twin(trial: FrozenTrial, changes: Mapping[str, Any]) -> FrozenTrial:
    """A copy of a trial, which the storage owns, with other attributes; copy.copy takes five times as long."""
    twin = FrozenTrial.__new__(FrozenTrial)
    twin.__dict__.update(trial.__dict__)
    for name, value in changes.items():
        setattr(twin, name, value)
    return twin


class _Shown:
    """A storage that shows the trials that it was given, and keeps nothing; all else is the storage's behind it."""

    def __init__(self, storage: BaseStorage, trials: list[FrozenTrial]) -> None:
        self._storage, self._trials = storage, trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """TPE's note to processes that sample beside it; the owner is alone."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)
