"""What a search may vary: ranges and choices, as the sections `space` and `study` declare them."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Field, GetJsonSchemaHandler, PlainValidator, Tag, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from pipeline.config.section import Scalar, Section

Number: TypeAlias = int | float


def _one_of(value: Any, *types: type) -> Any:
    """`value` unchanged if it has one of `types`. true is no number here, and nan and infinity are illegal."""
    if type(value) not in types or (isinstance(value, float) and not math.isfinite(value)):
        raise PydanticCustomError("plain", "text, a number, true, false or null" if str in types else "a number")
    return value


_Number = Annotated[Number, PlainValidator(lambda value: _one_of(value, int, float), json_schema_input_type=Number)]
AnyScalar = Annotated[
    Scalar,
    PlainValidator(lambda value: _one_of(value, str, int, float, bool, type(None)), json_schema_input_type=Scalar),
]
# Not strict, since YAML has lists, and a frozen section holds tuples.
_Scalars = Annotated[tuple[AnyScalar, ...], Field(strict=False, min_length=1)]
_When = Annotated[Mapping[str, _Scalars], Field(default_factory=dict)]


class Range(Section):
    """Numbers from `low` to `high`, both included; whole numbers for a key that takes whole numbers."""

    low: _Number
    """The lowest value."""
    high: _Number
    """The highest value."""
    log: bool = False
    """Whether to search on a log scale: 0.01 is as far from 0.1 as 0.1 is from 1."""
    step: _Number | None = None
    """If given, only low, low + step, low + 2 step, ... are tried."""
    when: _When
    """Other keys, each with the values for which this range is searched; without one of them it is left out."""

    @property
    def count(self) -> int:
        """How many values there are. A range of floats must have a step."""
        return round((Decimal(str(self.high)) - Decimal(str(self.low))) / Decimal(str(self.step or 1))) + 1

    def value(self, index: int) -> Number:
        """Value number `index`, from 0, without the rounding error of float sums: 0.3, never 0.30000000000000004."""
        value = Decimal(str(self.low)) + index * Decimal(str(self.step or 1))
        return int(value) if all(isinstance(bound, int) for bound in (self.low, self.step or 1)) else float(value)

    def holds(self, value: Scalar) -> bool:
        """Whether the value is one of the range."""
        if isinstance(value, str | bool) or value is None or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0
        return abs(steps - round(steps)) < 1e-6


class Choices(Section):
    """A list of values; `[a, b]` is short for `{choices: [a, b]}`."""

    choices: _Scalars
    """The values."""
    when: _When
    """Other keys, each with the values for which this choice is searched; without one of them it is left out."""

    @model_validator(mode="before")
    @classmethod
    def _of_a_list(cls, content: Any) -> Any:
        return {"choices": content} if isinstance(content, list | tuple) else content

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [mapping["properties"]["choices"] | {"title": "Choices"}, mapping]}

    def holds(self, value: Scalar) -> bool:
        """Whether the value is one of the choices."""
        return value in self.choices


Axis: TypeAlias = Range | Choices
"""The values that a search may give to a key."""

AnyAxis = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
    Discriminator(lambda content: "choices" if is_choices(content) else "range"),
]


def is_choices(content: Any) -> bool:
    """Whether the content of a file is meant as choices, not as a range."""
    return isinstance(content, list | tuple | Choices) or (isinstance(content, dict) and "choices" in content)


def active(space: Mapping[str, Axis], values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The values of the keys of the space whose `when` holds, in the order of the space.

    A condition on a key outside the space counts as met, since check_search has made sure of it.
    """

    def is_active(name: str) -> bool:
        return all(
            other not in space or (other in values and values[other] in allowed and is_active(other))
            for other, allowed in space[name].when.items()
        )

    return {name: values[name] for name in space if name in values and is_active(name)}
