"""The values of one searched key: as positions in 0..1, as features for models, and as a distribution of Optuna's."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Axis, Choices, Range, Scalar

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Floats = NDArray[np.float64]

ABSENT = object()
"""Stands for the value of a key whose `when` does not hold."""
INACTIVE = 0.5
"""The feature of such a key: the middle of its scale."""


class Scale(Protocol):
    """The values of one key, each at a position in 0..1."""

    @property
    def count(self) -> int | None:
        """How many values there are; None for a continuous range."""
        ...

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers, so that near ones are alike."""
        ...

    def values(self) -> Iterable[Scalar]:
        """All values; none if they have no count."""
        ...

    def at(self, units: Floats) -> Sequence[Scalar]:
        """The values at positions in 0..1, [n]."""
        ...

    def moved(self, value: Any, steps: Floats, draws: Floats) -> Sequence[Scalar]:
        """Values near `value`: `steps` are signed distances, [n]; `draws` are positions for unordered values."""
        ...

    def encoded(self, values: Sequence[Any]) -> Floats:
        """Features in 0..1, [n, features]; INACTIVE for ABSENT."""
        ...

    def snapped(self, value: Any) -> Scalar:
        """The nearest value of the scale."""
        ...

    def distribution(self) -> "BaseDistribution": ...

    def described(self) -> dict[str, Any]: ...


def scale_of(axis: Axis, own: Scalar) -> Scale:
    """The scale of a key. `own` is its value in params.yaml, whose type all values have."""
    if isinstance(axis, Choices):
        floats = isinstance(own, float)
        return _Choices(tuple(float(each) if floats and isinstance(each, int) else each for each in axis.choices))
    if isinstance(own, float) and axis.step is None:
        return _Floats(float(axis.low), float(axis.high), axis.log)
    return _Steps.of(axis, whole=isinstance(own, int))


_DIGITS = 12
"""Significant digits of a float. DVC rewrites dvc.lock by ruamel.yaml, which changes the last of 17 digits of a number
with an exponent; `dvc repro` would then retrain with unchanged values."""


@dataclass(frozen=True)
class _Floats:
    """The floats from `low` to `high`, with _DIGITS significant digits."""

    low: float
    high: float
    log: bool

    @property
    def count(self) -> None:
        return None

    @property
    def ordered(self) -> bool:
        return True

    def values(self) -> Iterable[Scalar]:
        return ()

    def at(self, units: Floats) -> list[float]:
        low, high = self._ends
        numbers = low + units * (high - low)
        return [self.snapped(number) for number in (np.exp(numbers) if self.log else numbers).tolist()]

    def moved(self, value: float, steps: Floats, draws: Floats) -> list[float]:
        return self.at(_reflected(self.encoded([value])[0, 0] + steps))

    def encoded(self, values: Sequence[Any]) -> Floats:
        numbers = _numbers(values)
        low, high = self._ends
        return _column(((np.log(numbers) if self.log else numbers) - low) / (high - low))

    def snapped(self, value: float) -> float:
        return min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)

    def described(self) -> dict[str, Any]:
        return {"type": "float", "low": self.low, "high": self.high, "log": self.log, "step": None}

    @property
    def _ends(self) -> tuple[float, float]:
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)


@dataclass(frozen=True)
class _Steps:
    """Whole numbers, or floats in steps: (first + i * step) / unit. All parts are whole, so that 0.3 is exactly 0.3."""

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

    @property
    def ordered(self) -> bool:
        return True

    def values(self) -> Sequence[Scalar]:
        return self._values(np.arange(self.count))

    def at(self, units: Floats) -> list[Scalar]:
        return self._values(self._indices(units))

    def moved(self, value: float, steps: Floats, draws: Floats) -> list[Scalar]:
        here = self._index(value)
        there = self._indices(_reflected(self._middle(here) + steps))
        # A step that is too short for another value leads to the next one.
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
        """The values at positions in 0..1: each value has an interval of equal length, or of equal ratio if `log`."""
        if self.log:
            low, high = self._log_ends
            indices = np.exp(low + units * (high - low)) - self.first + 0.5
        else:
            indices = units * self.count
        return np.clip(indices.astype(np.int64), 0, self.count - 1)

    def _middle(self, index: int) -> float:
        """The middle of a value's interval in 0..1."""
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

    @property
    def ordered(self) -> bool:
        return all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in self.choices)

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
        if self.ordered:
            ranks: dict[Any, int] = {choice: rank for rank, choice in enumerate(sorted(self.choices))}  # type: ignore[type-var]
            return _column(np.array([ranks.get(value, math.nan) for value in values]) / (self.count - 1))
        features = np.eye(self.count) if self.count > 2 else np.array([[0.0], [1.0]])
        rows = np.vstack([features, np.full(features.shape[1], INACTIVE)])
        indices = {choice: index for index, choice in enumerate(self.choices)}
        encoded: Floats = rows[[indices.get(value, self.count) for value in values]]
        return encoded

    def snapped(self, value: Scalar) -> Scalar:
        return self.choices[self.choices.index(value)]

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.choices)

    def described(self) -> dict[str, Any]:
        return {"choices": list(self.choices)}

    def _values(self, indices: NDArray[np.int64]) -> list[Scalar]:
        return [self.choices[index] for index in indices.tolist()]


def _numbers(values: Sequence[Any]) -> Floats:
    """float64 [n], nan for ABSENT."""
    return np.array([math.nan if value is ABSENT else value for value in values], dtype=np.float64)


def _column(units: Floats) -> Floats:
    """[n, 1] of [n]: clipped to 0..1 against rounding errors, INACTIVE for nan."""
    return np.where(np.isnan(units), INACTIVE, np.clip(units, 0, 1))[:, None]


def _reflected(units: Floats) -> Floats:
    """Positions outside 0..1, reflected at its ends."""
    folded = np.mod(units, 2)
    return np.where(folded > 1, 2 - folded, folded)
