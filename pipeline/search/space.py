"""What a study searches: the section `space` of params.yaml as configurations, numbers for models, and Optuna's words.

A configuration is a mapping from dotted key to value, of active keys only: without those whose `when` does not hold.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline import config
from pipeline.config import Axis, Choices, Config, Range, Scalar
from pipeline.errors import ConfigError
from pipeline.search.schedule import Values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

Floats = NDArray[np.float64]

INACTIVE = 0.5
"""What a model sees of a key whose `when` does not hold: the middle of its scale."""


@dataclass(frozen=True)
class Space:
    """The keys of a search and the values that each may have."""

    axes: Mapping[str, Axis]
    fixed: Values
    """params.yaml's own value of each key."""
    _scales: Mapping[str, "_Scale"] = field(init=False, repr=False, compare=False)

    @classmethod
    def of(cls, settings: Config) -> "Space":
        """Raises ConfigError where a search could not begin: where params.yaml's own values lie outside, for one."""
        config.check_search(settings)
        own = settings.values()
        return cls(settings.space, {name: own[name] for name in settings.space})

    def __post_init__(self) -> None:
        scales = {name: _scale(axis, self.fixed[name]) for name, axis in self.axes.items()}
        object.__setattr__(self, "_scales", scales)

    def __len__(self) -> int:
        return len(self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.axes)

    @property
    def own(self) -> dict[str, Scalar]:
        """params.yaml's own configuration."""
        return self.active(self.fixed)

    @cached_property
    def distributions(self) -> dict[str, "BaseDistribution"]:
        """Every key as Optuna describes it, whatever its `when` says."""
        return {name: scale.distribution() for name, scale in self._scales.items()}

    @property
    def unconditional(self) -> tuple[str, ...]:
        """The keys that every configuration has."""
        return tuple(name for name in self.axes if name not in self._parents)

    @cached_property
    def _parents(self) -> dict[str, tuple[str, ...]]:
        """Of each key that depends on others in the space: those."""
        parents = {name: tuple(other for other in axis.when if other in self.axes) for name, axis in self.axes.items()}
        return {name: others for name, others in parents.items() if others}

    @cached_property
    def parents_first(self) -> tuple[str, ...]:
        """The keys in the order of the space, save that each comes after those that it depends on."""
        order: dict[str, None] = {}

        def add(name: str) -> None:
            for other in self._parents.get(name, ()):
                add(other)
            order[name] = None

        for name in self.axes:
            add(name)
        return tuple(order)

    def active(self, values: Values) -> dict[str, Scalar]:
        """A configuration of `values`: without keys whose `when` does not hold, in the order of the space."""
        if not self._parents:
            return {name: values[name] for name in self.axes if name in values}
        return config.active(self.axes, values)

    def is_active(self, name: str, values: Values) -> bool:
        """Whether a key belongs to a configuration that holds, of the keys before it, the active ones."""
        return all(
            other in values and values[other] in self.axes[name].when[other] for other in self._parents.get(name, ())
        )

    def snapped(self, values: Values) -> dict[str, Scalar]:
        """The configuration nearest to `values`: free of the noise of float sums, and of numpy's types."""
        return self.active(
            {name: scale.snapped(values[name]) for name, scale in self._scales.items() if name in values}
        )

    def suggest(self, trial: "BaseTrial") -> dict[str, Scalar]:
        """Asks an Optuna trial for its configuration: only for active keys, each after those that it depends on."""
        found: dict[str, Scalar] = {}
        for name in self.parents_first:
            if self.is_active(name, found):
                found[name] = self._scales[name].suggested(trial, name)
        return self.snapped(found)

    def random(self, generator: np.random.Generator, count: int) -> list[dict[str, Scalar]]:
        return self._at(generator.random((count, len(self))))

    def spread(self, count: int, seed: int) -> list[dict[str, Scalar]]:
        """Configurations that fill the space evenly: a scrambled Sobol' sequence (Owen 1998).

        A longer sequence of the same seed begins with the shorter one.
        """
        from scipy.stats import qmc

        if not self.axes or not count:
            return [{} for _ in range(count)]
        # Whole powers of two, which are what the sequence is balanced for, and for less scipy warns.
        units = qmc.Sobol(len(self), rng=np.random.default_rng(seed)).random_base2(max(0, count - 1).bit_length())
        return self._at(units[:count])

    def _at(self, units: Floats) -> list[dict[str, Scalar]]:
        """The configurations at [count, keys] places in 0..1."""
        return self._configurations(
            [scale.at(units[:, n]) for n, scale in enumerate(self._scales.values())], len(units)
        )

    def _configurations(self, columns: Sequence[Sequence[Scalar]], count: int) -> list[dict[str, Scalar]]:
        """`count` of them, of a column of values for each key."""
        rows = zip(*columns, strict=True) if columns else itertools.repeat((), count)
        return [self.active(dict(zip(self.axes, row, strict=True))) for row in rows]

    def mutated(
        self, values: Values, generator: np.random.Generator, count: int, *, share: float = 0.5, sd: float = 0.15
    ) -> list[dict[str, Scalar]]:
        """Neighbours of a configuration: each of its values changed with the probability `share`, one at the least.

        Numbers take a normal step of `sd`, as a share of their range, and choices become another choice. Keys that
        become active have a random value.
        """
        movable = [number for number, name in enumerate(self.axes) if name in values and self._scales[name].count != 1]
        changed = np.zeros((count, len(self)), dtype=bool)
        if movable:
            changed[:, movable] = generator.random((count, len(movable))) < share
            changed[np.arange(count), generator.choice(movable, count)] |= ~changed.any(axis=1)
        steps = generator.normal(0, sd, (count, len(self)))
        draws = generator.random((count, len(self)))
        columns: list[Sequence[Scalar]] = []
        for number, (name, scale) in enumerate(self._scales.items()):
            if name not in values:
                columns.append(scale.at(draws[:, number]))
                continue
            moved = scale.moved(values[name], steps[:, number], draws[:, number])
            new = changed[:, number].tolist()
            columns.append([other if is_new else values[name] for other, is_new in zip(moved, new, strict=True)])
        return self._configurations(columns, count)

    def encode(self, many: Sequence[Values]) -> Floats:
        """Configurations as [n, features] in 0..1: numbers on their scale, choices of text one-hot."""
        columns = [
            scale.encoded([values.get(name, _ABSENT) for values in many]) for name, scale in self._scales.items()
        ]
        return np.hstack(columns) if columns else np.empty((len(many), 0))

    @cached_property
    def size(self) -> int | None:
        """How many configurations there are; None where a range of floats without a step has a part in it."""
        deciding = {other for others in self._parents.values() for other in others}
        sizes = {name: scale.count for name, scale in self._scales.items()}
        total = 0
        for values in self._every([name for name in self.parents_first if name in deciding]):
            counts = [sizes[name] for name in self.axes if name not in deciding and self.is_active(name, values)]
            if None in counts:
                return None
            total += math.prod(count for count in counts if count is not None)
        return total

    def every(self) -> Iterator[dict[str, Scalar]]:
        """All configurations, one after the other, in the order of the space: the last key changes fastest.

        Raises ConfigError where a range of floats has no step.
        """
        for name, scale in self._scales.items():
            if scale.count is None:
                raise ConfigError(f"space.{name} has no end of values to try one by one: give it a step or choices.")
        return (self.active(values) for values in self._every(self.parents_first))

    def _every(self, names: Sequence[str]) -> Iterator[dict[str, Scalar]]:
        """All configurations of some keys, which hold the keys that they depend on before them."""
        if not names:
            yield {}
            return
        last = names[-1]
        for values in self._every(names[:-1]):
            if self.is_active(last, values):
                yield from ({**values, last: value} for value in self._scales[last].values())
            else:
                yield values

    def grid(self) -> list[dict[str, Scalar]]:
        """All configurations, in the order of the space. Raises ConfigError where a range of floats has no step."""
        return list(self.every())

    def described(self) -> dict[str, Any]:
        """The space as JSON can hold it; equal for two spaces only if they have the same keys, values and order."""
        return {
            name: scale.described()
            | {"when": {other: list(allowed) for other, allowed in self.axes[name].when.items()}}
            for name, scale in self._scales.items()
        }


_ABSENT = object()


class _Scale(Protocol):
    """The values of one key as places in 0..1."""

    @property
    def count(self) -> int | None:
        """How many values there are; None for all floats between two."""
        ...

    def values(self) -> Iterable[Scalar]:
        """All of them, where they have a count."""
        ...

    def at(self, units: Floats) -> Sequence[Scalar]: ...

    def moved(self, value: Any, steps: Floats, draws: Floats) -> Sequence[Scalar]:
        """Other values: `steps` are signed ways from `value`, `draws` are places for those that have no order."""
        ...

    def encoded(self, values: Sequence[Any]) -> Floats:
        """[n, features]; INACTIVE for _ABSENT."""
        ...

    def snapped(self, value: Any) -> Scalar: ...

    def distribution(self) -> "BaseDistribution": ...

    def suggested(self, trial: "BaseTrial", name: str) -> Scalar: ...

    def described(self) -> dict[str, Any]: ...


def _scale(axis: Axis, own: Scalar) -> _Scale:
    """`own`, a value of the key, tells the type of all its values."""
    if isinstance(axis, Choices):
        return _Choices(tuple(float(value) if isinstance(own, float) else value for value in axis.choices))  # type: ignore[arg-type]
    if isinstance(own, float) and axis.step is None:
        return _Floats(float(axis.low), float(axis.high), axis.log)
    return _Steps.of(axis, whole=isinstance(own, int))


@dataclass(frozen=True)
class _Floats:
    """All floats from `low` to `high`."""

    low: float
    high: float
    log: bool

    @property
    def count(self) -> None:
        return None

    def values(self) -> Iterable[Scalar]:
        return ()

    def at(self, units: Floats) -> list[float]:
        low, high = self._ends
        places = low + units * (high - low)
        found: list[float] = np.clip(np.exp(places) if self.log else places, self.low, self.high).tolist()
        return found

    def moved(self, value: float, steps: Floats, draws: Floats) -> list[float]:
        return self.at(_reflected(self.encoded([value])[0, 0] + steps))

    def encoded(self, values: Sequence[Any]) -> Floats:
        numbers = _numbers(values)
        low, high = self._ends
        return _column(((np.log(numbers) if self.log else numbers) - low) / (high - low))

    def snapped(self, value: float) -> float:
        return min(max(float(value), self.low), self.high)

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)

    def suggested(self, trial: "BaseTrial", name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def described(self) -> dict[str, Any]:
        return {"type": "float", "low": self.low, "high": self.high, "log": self.log, "step": None}

    @property
    def _ends(self) -> tuple[float, float]:
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)


@dataclass(frozen=True)
class _Steps:
    """Whole numbers, or floats in steps: (first + i step) / unit, in whole numbers, so that 0.3 is 0.3 to the bit."""

    first: int
    step: int
    count: int
    unit: int
    log: bool
    whole: bool

    @classmethod
    def of(cls, axis: Range, *, whole: bool) -> "_Steps":
        low, step = Decimal(str(axis.low)), Decimal(str(axis.step or 1))
        digits = max(0, *(-int(number.as_tuple().exponent) for number in (low, step)))
        return cls(int(low * 10**digits), int(step * 10**digits), axis.count, 10**digits, axis.log, whole)

    def values(self) -> Sequence[Scalar]:
        return self._values(np.arange(self.count))

    def at(self, units: Floats) -> list[Scalar]:
        return self._values(self._indices(units))

    def moved(self, value: float, steps: Floats, draws: Floats) -> list[Scalar]:
        here = self._index(value)
        there = self._indices(_reflected(self._middle(here) + steps))
        # A short way that leads back to the same value goes to the next one.
        aside = here + np.where(steps < 0, -1, 1)
        aside = np.where((aside < 0) | (aside >= self.count), 2 * here - aside, aside)
        return self._values(np.where(there == here, np.clip(aside, 0, self.count - 1), there))

    def encoded(self, values: Sequence[Any]) -> Floats:
        numbers = _numbers(values)
        low, high = (self._values(np.array([end]))[0] for end in (0, self.count - 1))
        assert isinstance(low, int | float)
        assert isinstance(high, int | float)
        if self.log:
            return _column(np.log(numbers / low) / math.log(high / low))
        return _column((numbers - low) / (high - low))

    def snapped(self, value: float) -> Scalar:
        return self._values(np.array([self._index(value)]))[0]

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import FloatDistribution, IntDistribution

        low, high, step = self._range()
        if self.whole:
            return IntDistribution(int(low), int(high), log=self.log, step=int(step))
        return FloatDistribution(low, high, step=step)

    def suggested(self, trial: "BaseTrial", name: str) -> Scalar:
        low, high, step = self._range()
        if self.whole:
            return trial.suggest_int(name, int(low), int(high), log=self.log, step=int(step))
        return trial.suggest_float(name, low, high, step=step)

    def described(self) -> dict[str, Any]:
        low, high, step = self._range()
        kind = "int" if self.whole else "float"
        return {"type": kind, "low": low, "high": high, "log": self.log, "step": step}

    def _range(self) -> tuple[float, float, float]:
        low, high, step = self.first, self.first + (self.count - 1) * self.step, self.step
        return (low, high, step) if self.whole else (low / self.unit, high / self.unit, step / self.unit)

    def _values(self, indices: NDArray[np.int64]) -> list[Scalar]:
        numbers = self.first + indices * self.step
        found: list[Scalar] = (numbers if self.whole else numbers / self.unit).tolist()
        return found

    def _index(self, value: float) -> int:
        return min(max(round((value * self.unit - self.first) / self.step), 0), self.count - 1)

    def _indices(self, units: Floats) -> NDArray[np.int64]:
        """Each value has an equal part of 0..1, or one of equal factors."""
        if self.log:
            low, high = self._log_ends
            places = np.exp(low + units * (high - low)) - self.first + 0.5
        else:
            places = units * self.count
        return np.clip(places.astype(np.int64), 0, self.count - 1)

    def _middle(self, index: int) -> float:
        """The middle of a value's part of 0..1."""
        if self.log:
            low, high = self._log_ends
            return (math.log(self.first + index) - low) / (high - low)
        return (index + 0.5) / self.count

    @property
    def _log_ends(self) -> tuple[float, float]:
        return math.log(self.first - 0.5), math.log(self.first + self.count - 0.5)


@dataclass(frozen=True)
class _Choices:
    choices: tuple[Scalar, ...]

    @property
    def count(self) -> int:
        return len(self.choices)

    def values(self) -> Sequence[Scalar]:
        return self.choices

    def at(self, units: Floats) -> list[Scalar]:
        return self._values(np.minimum((units * self.count).astype(np.int64), self.count - 1))

    def moved(self, value: Scalar, steps: Floats, draws: Floats) -> list[Scalar]:
        others = 1 + np.minimum((draws * (self.count - 1)).astype(np.int64), max(0, self.count - 2))
        return self._values((self.choices.index(value) + others) % self.count)

    def encoded(self, values: Sequence[Any]) -> Floats:
        if self.count == 1:
            return np.full((len(values), 1), INACTIVE)
        if all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in self.choices):
            ranks = {choice: rank for rank, choice in enumerate(sorted(self.choices))}  # type: ignore[type-var]
            return _column(np.array([ranks.get(value, math.nan) for value in values]) / (self.count - 1))
        features = np.eye(self.count) if self.count > 2 else np.array([[0.0], [1.0]])
        rows = np.vstack([features, np.full(features.shape[1], INACTIVE)])
        places = {choice: place for place, choice in enumerate(self.choices)}
        encoded: Floats = rows[[places.get(value, self.count) for value in values]]
        return encoded

    def snapped(self, value: Scalar) -> Scalar:
        return self.choices[self.choices.index(value)]

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.choices)

    def suggested(self, trial: "BaseTrial", name: str) -> Scalar:
        found: Scalar = trial.suggest_categorical(name, self.choices)
        return found

    def described(self) -> dict[str, Any]:
        return {"choices": list(self.choices)}

    def _values(self, indices: NDArray[np.int64]) -> list[Scalar]:
        return [self.choices[index] for index in indices.tolist()]


def _numbers(values: Sequence[Any]) -> Floats:
    """float64 [n], nan for _ABSENT."""
    return np.array([math.nan if value is _ABSENT else value for value in values], dtype=np.float64)


def _column(places: Floats) -> Floats:
    """[n, 1] in 0..1 of [n] with nan for what is inactive; rounding must not lead out of the range."""
    return np.where(np.isnan(places), INACTIVE, np.clip(places, 0, 1))[:, None]


def _reflected(places: Floats) -> Floats:
    """Places beyond 0 or 1, turned back inside."""
    folded = np.mod(places, 2)
    return np.where(folded > 1, 2 - folded, folded)
