"""Methods of Syne Tune and SMAC3 that benchmarks/search.py compares if --methods names them.

syne_asha, syne_bohb, syne_bore, syne_cqr    Syne Tune's ASHA, with random search, kernel densities, BORE and CQR
syne_mobster, syne_hypertune, syne_dyhpo     with Gaussian processes, which Syne Tune had up to 0.13
smac_multifidelity                           SMAC3's Hyperband, with a random forest

    pip install -e ".[bench]"
    pip install --no-deps "syne-tune<0.14" autograd     # in another environment, after the first: Gaussian processes

They are asked for a configuration or a paused trial, and told what each epoch gave (SMAC3: what each budget gave). All
have their libraries' defaults, with rungs from the first epoch by factors of 3. The first configuration is the space's
own. They start as many configurations as --trials says. With _free behind its name (syne_asha_free) a method starts any
number of them, and ends after as many epochs as a search of this project may train: 0.4 full trainings per trial.

A training that is resumed, or that SMAC3 asks for with a larger budget, goes on where it stood: only new epochs cost.
Where only some configurations exist, the Gaussian processes choose among these. The others get the nearest one that
was not tried, and are told that it was that one. SMAC3 chooses the same again only if PYTHONHASHSEED is the same.
"""

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from search_curves import PoolSpace, Task
from search_methods import Found

from pipeline.config import Scalar
from pipeline.errors import DataError
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values
from pipeline.search.studies.budget import PAUSING_BUDGET

BRACKETS = 4
"""Of HyperTune, which is made for more than one, and has one by default."""

MARGIN = 1e-12
"""Around ranges in ConfigSpace, which rounds their ends to 13 decimals and then refuses a value on them."""


@dataclass(eq=False)
class Training:
    """A configuration in training."""

    subject: Any
    """The library's name for it."""
    accuracies: Sequence[float]
    until: int
    """The epoch before which it does not stop."""
    done: int = 0


class Library(Protocol):
    def ask(self) -> Training | None:
        """What a free worker trains: a new configuration or one that was paused. None: nothing is left."""
        ...

    def trained(self, training: Training) -> bool:
        """Takes the accuracy of an epoch. Whether the training goes on."""
        ...

    def failed(self, training: Training) -> None: ...


class Untried:
    """The configurations of a space that no training has yet."""

    def __init__(self, space: Space, most: float) -> None:
        """`most` is how many may be taken."""
        self.space, self._most = space, most
        self._left = list(space.rows) if isinstance(space, PoolSpace) else None

    def taken(self, values: Mapping[str, Any]) -> dict[str, Scalar] | None:
        """The nearest one, which is tried from here on. None: there are no more."""
        if self._most <= 0 or self._left == []:
            return None
        self._most -= 1
        if self._left is None or not isinstance(self.space, PoolSpace):
            return self.space.snapped(values)
        nearest = replace(self.space, rows=self._left).snapped(values)
        self._left.remove(nearest)
        return nearest

    def whole(self, values: Values) -> dict[str, Scalar]:
        """With the space's own values of inactive keys: the libraries are told of no conditions."""
        return {name: values.get(name, self.space.fixed[name]) for name in self.space.names}


def searched(library: Library, task: Task, epochs: float, workers: int) -> Found:
    """A search of at most so many epochs. A worker trains one in a unit of time."""
    found = Found(task)
    busy: list[Training | None] = [None] * workers
    while len(found.after) < epochs:
        for worker in range(workers):
            busy[worker] = busy[worker] or library.ask()
        if not any(busy):
            break
        for worker, training in enumerate(busy):
            if training is None:
                continue
            if training.done == len(training.accuracies):
                library.failed(training)
                busy[worker] = None
                continue
            training.done += 1
            found.add(training.accuracies[training.done - 1 :] if training.done == task.epochs else [])
            if not library.trained(training):
                busy[worker] = None
    return found


class SyneTune:
    """A scheduler of Syne Tune, called as its Tuner calls it."""

    def __init__(self, task: Task, untried: Untried, scheduler: Any, suggest: Callable[[int], Any]) -> None:
        """`suggest` takes the number of the next trial."""
        self._task, self._untried, self._scheduler, self._suggest = task, untried, scheduler, suggest
        self._trainings: list[Training] = []
        self._has_ended = False

    def ask(self) -> Training | None:
        from syne_tune.backend.trial_status import Trial

        number = len(self._trainings)
        suggestion = None if self._has_ended else self._suggest(number)
        if suggestion is None:
            return None
        if not suggestion.spawn_new_trial_id:
            return self._trainings[suggestion.checkpoint_trial_id]
        values = self._untried.taken(suggestion.config)
        if values is None:
            # As Syne Tune's Tuner does: one that wants more than it may start is not asked again.
            self._has_ended = True
            return None
        # The searcher learns from the trial's configuration, not from what it suggested.
        trial = Trial(number, self._untried.whole(values), datetime.now())
        training = Training(trial, self._task.curve(values).tolist(), until=self._task.epochs)
        self._trainings.append(training)
        self._scheduler.on_trial_add(trial)
        return training

    def trained(self, training: Training) -> bool:
        from syne_tune.optimizer.scheduler import SchedulerDecision

        result = {"accuracy": training.accuracies[training.done - 1], "epoch": training.done}
        if self._scheduler.on_trial_result(training.subject, result) != SchedulerDecision.CONTINUE:
            self._scheduler.on_trial_remove(training.subject)
            return False
        if training.done == training.until:
            self._scheduler.on_trial_complete(training.subject, result)
        return training.done < training.until

    def failed(self, training: Training) -> None:
        self._scheduler.on_trial_error(training.subject)


def _baselines(*, old: bool) -> ModuleType:
    """The schedulers of Syne Tune. Raises DataError."""
    try:
        with _silence():
            from syne_tune.optimizer import baselines
    except ImportError:
        raise DataError('Methods of Syne Tune need it: pip install -e ".[bench]"') from None
    if old and not hasattr(baselines, "MOBSTER"):
        raise DataError(
            "MOBSTER, HyperTune and DyHPO need Syne Tune 0.13, the last release that has them: "
            'pip install --no-deps "syne-tune<0.14" autograd'
        )
    if not old and hasattr(baselines, "MOBSTER"):
        raise DataError("The other methods of Syne Tune need its newest release: pip install --upgrade syne-tune")
    return baselines


def _domains(space: Space) -> dict[str, Any]:
    """The space as Syne Tune has it."""
    from syne_tune import config_space as syne

    def domain(name: str, distribution: BaseDistribution) -> Any:
        match distribution:
            case CategoricalDistribution(choices=choices) if name in space.unordered:
                return syne.choice(list(choices))
            case CategoricalDistribution(choices=choices):
                return syne.ordinal(sorted(choices))
            case IntDistribution(low=low, high=high, log=True):
                return syne.lograndint(low, high)
            case IntDistribution(low=low, high=high, step=1):
                return syne.randint(low, high)
            case FloatDistribution(low=low, high=high, log=True):
                return syne.loguniform(low, high)
            case FloatDistribution(low=low, high=high, step=None):
                return syne.uniform(low, high)
            case IntDistribution(low=low, high=high, step=step) | FloatDistribution(low=low, high=high, step=step):
                whole = isinstance(distribution, IntDistribution)
                return syne.finrange(low, high, round((high - low) / step) + 1, cast_int=whole)
        raise NotImplementedError(distribution)

    return {name: domain(name, distribution) for name, distribution in space.distributions.items()}


class Smac:
    """SMAC3's facade for several fidelities. Its budgets are rounded to whole epochs."""

    def __init__(self, task: Task, seed: int, trials: int, untried: Untried) -> None:
        from ConfigSpace import Configuration
        from smac import MultiFidelityFacade, Scenario
        from smac.main.config_selector import ConfigSelector

        keys = _configuration_space(untried.space, seed)
        self._trainings: dict[Configuration, Training] = {}

        def existing(wanted: Mapping[str, Any]) -> Configuration | None:
            values = untried.taken(wanted)
            if values is None:
                return None
            found = Configuration(keys, values=untried.whole(values))
            self._trainings[found] = Training(None, task.curve(values).tolist(), until=0)
            return found

        class Existing(ConfigSelector):
            """SMAC3's choice of new configurations, but of those that exist, and the space's own comes first."""

            def __iter__(self) -> Iterator[Configuration]:
                yield existing(untried.space.fixed)
                for wanted in super().__iter__():
                    found = existing(wanted)
                    if found is None:
                        return
                    yield found

        # It writes what it is set to when it begins, and nothing later.
        with tempfile.TemporaryDirectory() as folder:
            scenario = Scenario(
                keys,
                deterministic=True,
                n_trials=trials,
                min_budget=1,
                max_budget=task.epochs,
                seed=seed,
                output_directory=Path(folder),
            )
            self._facade = MultiFidelityFacade(scenario, config_selector=Existing(scenario), logging_level=False)

    def ask(self) -> Training | None:
        try:
            info = self._facade.ask()
        except StopIteration:
            return None
        training = self._trainings[info.config]
        training.subject, training.until = info, round(info.budget)
        return training

    def trained(self, training: Training) -> bool:
        if training.done == training.until:
            self._tell(training, training.accuracies[training.done - 1])
        return training.done < training.until

    def failed(self, training: Training) -> None:
        self._tell(training, 0.0)

    def _tell(self, training: Training, accuracy: float) -> None:
        from smac.runhistory import TrialValue

        self._facade.tell(training.subject, TrialValue(cost=1 - accuracy), save=False)


def _smac() -> None:
    """Raises DataError if it is not installed."""
    try:
        with _silence():
            import smac  # noqa: F401
    except ImportError:
        raise DataError('smac_multifidelity needs SMAC3: pip install -e ".[bench]"') from None


def _configuration_space(space: Space, seed: int) -> Any:
    """The space as SMAC3 has it."""
    import ConfigSpace

    def key(name: str, distribution: BaseDistribution) -> Any:
        match distribution:
            case CategoricalDistribution(choices=choices) if name in space.unordered:
                return ConfigSpace.Categorical(name, list(choices))
            case CategoricalDistribution(choices=choices):
                return ConfigSpace.Categorical(name, sorted(choices), ordered=True)
            case IntDistribution(low=low, high=high, log=log, step=1):
                return ConfigSpace.Integer(name, (low, high), log=log)
            case FloatDistribution(low=low, high=high, log=log, step=None):
                return ConfigSpace.Float(name, (low - MARGIN, high + MARGIN), log=log)
            case IntDistribution(low=low, high=high, step=step) | FloatDistribution(low=low, high=high, step=step):
                values = [low + number * step for number in range(round((high - low) / step) + 1)]
                return ConfigSpace.Categorical(name, values, ordered=True)
        raise NotImplementedError(distribution)

    keys = [key(name, distribution) for name, distribution in space.distributions.items()]
    found = ConfigSpace.ConfigurationSpace(seed=seed)
    found.add(keys)
    return found


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without what the libraries print, log and warn: the output is that of search.py."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class Other:
    """A method of another library."""

    check: Callable[[], Any]
    """Raises DataError if it is not installed."""
    make: Callable[[Task, int, int, Untried], Library]
    """Of a task, a seed, the number of trials, and what it may try."""
    free: bool = False
    """Whether it starts any number of configurations, within the epochs of a search of this project."""

    def __call__(self, task: Task, seed: int, trials: int, workers: int) -> Found:
        self.check()
        untried = Untried(task.space(seed), math.inf if self.free else trials)
        epochs = PAUSING_BUDGET * trials * task.epochs if self.free else math.inf
        with _silence():
            return searched(self.make(task, seed, trials, untried), task, epochs, workers)


def _syne(name: str) -> Other:
    """A scheduler of the newest Syne Tune."""

    def made(task: Task, seed: int, trials: int, untried: Untried) -> SyneTune:
        # Its searchers draw from the global generator, whatever their seed.
        np.random.seed(seed)
        space = untried.space
        scheduler = getattr(_baselines(old=False), name)(
            _domains(space),
            metric="accuracy",
            time_attr="epoch",
            max_t=task.epochs,
            do_minimize=False,
            random_seed=seed,
            points_to_evaluate=[dict(space.fixed)],
        )
        return SyneTune(task, untried, scheduler, lambda number: scheduler.suggest())

    return Other(lambda: _baselines(old=False), made)


def _old_syne(name: str, **settings: Any) -> Other:
    """A scheduler with a Gaussian process, of Syne Tune 0.13."""

    def made(task: Task, seed: int, trials: int, untried: Untried) -> SyneTune:
        np.random.seed(seed)
        space = untried.space
        options: dict[str, Any] = {"debug_log": False}
        if isinstance(space, PoolSpace):
            options["restrict_configurations"] = [dict(space.fixed) | dict(row) for row in space.rows]
        scheduler = getattr(_baselines(old=True), name)(
            _domains(space),
            metric="accuracy",
            mode="max",
            resource_attr="epoch",
            max_t=task.epochs,
            random_seed=seed,
            points_to_evaluate=[dict(space.fixed)],
            search_options=options,
            **settings,
        )
        return SyneTune(task, untried, scheduler, scheduler.suggest)

    return Other(lambda: _baselines(old=True), made)


_EACH: Mapping[str, Other] = {
    "syne_asha": _syne("ASHA"),
    "syne_bohb": _syne("BOHB"),
    "syne_bore": _syne("ASHABORE"),
    "syne_cqr": _syne("ASHACQR"),
    "syne_mobster": _old_syne("MOBSTER"),
    "syne_hypertune": _old_syne("HyperTune", brackets=BRACKETS),
    "syne_dyhpo": _old_syne("DyHPO"),
    "smac_multifidelity": Other(_smac, Smac),
}
OTHERS: Mapping[str, Other] = {
    **_EACH,
    **{f"{name}_free": replace(other, free=True) for name, other in _EACH.items()},
}
