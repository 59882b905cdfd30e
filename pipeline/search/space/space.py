"""What a study searches: the section `space` of params.yaml as configurations, as numbers, and as Optuna has it.

A configuration maps dotted keys to values. It has only the active keys: those whose `when` holds.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import config
from pipeline.config import Axis, Config, Scalar
from pipeline.errors import ConfigError
from pipeline.search.space.scales import ABSENT, Floats, Scale, scale_of
from pipeline.search.space.values import Values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Space:
    """The keys of a search and the values that each may have."""

    axes: Mapping[str, Axis]
    fixed: Values
    """The value of each key in params.yaml."""
    _scales: Mapping[str, Scale] = field(init=False, repr=False, compare=False)

    @classmethod
    def of(cls, settings: Config) -> "Space":
        """Raises ConfigError if a search can't begin, for example if params.yaml's own values lie outside the space."""
        config.check_search(settings)
        own = settings.values()
        return cls(settings.space, {name: own[name] for name in settings.space})

    def __post_init__(self) -> None:
        scales = {name: scale_of(axis, self.fixed[name]) for name, axis in self.axes.items()}
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
        """Of every key, whether it is active or not."""
        return {name: scale.distribution() for name, scale in self._scales.items()}

    @property
    def unconditional(self) -> tuple[str, ...]:
        """The keys that every configuration has."""
        return tuple(name for name in self.axes if name not in self._parents)

    @cached_property
    def _parents(self) -> dict[str, tuple[str, ...]]:
        """For each key that depends on other keys of the space: these other keys."""
        parents = {name: tuple(other for other in axis.when if other in self.axes) for name, axis in self.axes.items()}
        return {name: others for name, others in parents.items() if others}

    @cached_property
    def parents_first(self) -> tuple[str, ...]:
        """The keys in the order of the space, except that each comes after those that it depends on."""
        order: dict[str, None] = {}

        def add(name: str) -> None:
            for other in self._parents.get(name, ()):
                add(other)
            order[name] = None

        for name in self.axes:
            add(name)
        return tuple(order)

    def active(self, values: Values) -> dict[str, Scalar]:
        """The configuration in `values`: the active keys of the space, in its order."""
        if not self._parents:
            return {name: values[name] for name in self.axes if name in values}
        return config.active(self.axes, values)

    def is_active(self, name: str, values: Values) -> bool:
        """Whether a key is active, given the active keys before it (in the order of `parents_first`)."""
        return all(
            other in values and values[other] in self.axes[name].when[other] for other in self._parents.get(name, ())
        )

    def snapped(self, values: Values) -> dict[str, Scalar]:
        """The configuration nearest to `values`, as plain Python values without rounding errors."""
        return self.active(
            {name: scale.snapped(values[name]) for name, scale in self._scales.items() if name in values}
        )

    def random(self, generator: np.random.Generator, count: int) -> list[dict[str, Scalar]]:
        return self._at(generator.random((count, len(self))))

    def spread(self, count: int, seed: int) -> list[dict[str, Scalar]]:
        """Configurations that fill the space evenly: a scrambled Sobol' sequence (Owen 1998).

        A longer sequence of the same seed begins with the shorter one.
        """
        from scipy.stats import qmc

        if not self.axes or not count:
            return [{} for _ in range(count)]
        # The sequence is balanced for powers of two; scipy warns about other lengths.
        units = qmc.Sobol(len(self), rng=np.random.default_rng(seed)).random_base2(max(0, count - 1).bit_length())
        return self._at(units[:count])

    def _at(self, units: Floats) -> list[dict[str, Scalar]]:
        """The configurations at positions in 0..1, [count, keys]."""
        return self._configurations(
            [scale.at(units[:, n]) for n, scale in enumerate(self._scales.values())], len(units)
        )

    def _configurations(self, columns: Sequence[Sequence[Scalar]], count: int) -> list[dict[str, Scalar]]:
        """`count` configurations, from a column of values for each key."""
        rows = zip(*columns, strict=True) if columns else itertools.repeat((), count)
        return [self.active(dict(zip(self.axes, row, strict=True))) for row in rows]

    def mutated(
        self, values: Values, generator: np.random.Generator, count: int, *, share: float = 0.5, sd: float = 0.15
    ) -> list[dict[str, Scalar]]:
        """Neighbours of a configuration: each value changes with probability `share`, at least one value always does.

        A number takes a normal step with standard deviation `sd`, as a share of its range. A choice becomes another
        choice. A key that becomes active gets a random value.
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
        """Configurations as features, [n, features] in 0..1: numbers on their scale, text choices one-hot."""
        columns = [scale.encoded([values.get(name, ABSENT) for values in many]) for name, scale in self._scales.items()]
        return np.hstack(columns) if columns else np.empty((len(many), 0))

    def kinds(self, many: Sequence[Values]) -> NDArray[np.int64]:
        """The choice that each configuration has of each unordered key, [n, unordered keys]: -1 where inactive."""
        columns = [
            [choices.index(values[name]) if name in values else -1 for values in many]
            for name, choices in self.unordered.items()
        ]
        return np.array(columns, dtype=np.int64).reshape(len(columns), len(many)).T

    @cached_property
    def unordered(self) -> dict[str, Sequence[Scalar]]:
        """The keys whose values have no order, with these values."""
        return {name: list(scale.values()) for name, scale in self._scales.items() if not scale.ordered}

    @cached_property
    def size(self) -> int | None:
        """How many configurations there are; None if a range of floats without a step makes them countless."""
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
        """Iterates over all configurations in the order of the space: the last key changes fastest.

        Raises ConfigError if a range of floats has no step.
        """
        for name, scale in self._scales.items():
            if scale.count is None:
                raise ConfigError(f"space.{name} has no end of values to try one by one: give it a step or choices.")
        return (self.active(values) for values in self._every(self.parents_first))

    def _every(self, names: Sequence[str]) -> Iterator[dict[str, Scalar]]:
        """All configurations of some keys. Each key comes after those that it depends on."""
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
        """All configurations, in the order of the space. Raises ConfigError if a range of floats has no step."""
        return list(self.every())

    def described(self) -> dict[str, Any]:
        """The space as JSON. Two descriptions are equal only if keys, values and order are."""
        return {
            name: scale.described()
            | {"when": {other: list(allowed) for other, allowed in self.axes[name].when.items()}}
            for name, scale in self._scales.items()
        }
