"""What a search may vary: ranges and choices, as the section `space` declares them."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    Tag,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

Scalar: TypeAlias = str | int | float | bool | None
Number: TypeAlias = int | float


def _one_of(value: Any, *types: type) -> Any:
    """`value` unchanged if it is of `types`: true is no number here, and nan and infinity are none either."""
    if type(value) not in types or (isinstance(value, float) and not math.isfinite(value)):
        raise PydanticCustomError("plain", "text, a number, true, false or null" if str in types else "a number")
    return value


_Number = Annotated[Number, PlainValidator(lambda value: _one_of(value, int, float), json_schema_input_type=Number)]
AnyScalar = Annotated[
    Scalar,
    PlainValidator(lambda value: _one_of(value, str, int, float, bool, type(None)), json_schema_input_type=Scalar),
]
# YAML has lists, and a frozen section holds tuples.
_Scalars = Annotated[tuple[AnyScalar, ...], Field(strict=False, min_length=1)]
_When = Annotated[Mapping[str, _Scalars], Field(default_factory=dict)]


class Section(BaseModel):
    """A section of params.yaml: no unknown key, no silent conversion, no change after it was checked."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Range(Section):
    """Numbers from `low` to `high`, both included; whole ones where the key takes whole numbers."""

    low: _Number
    """The lowest value."""
    high: _Number
    """The highest value."""
    log: bool = False
    """Whether factors matter, not differences: 0.01 is as far from 0.1 as 0.1 is from 1."""
    step: _Number | None = None
    """Only low, low + step, low + 2 step, ... are tried."""
    when: _When
    """What the range depends on: other keys, each with the values beside which this one makes sense."""

    @property
    def count(self) -> int:
        """How many values it has; of a range of floats only with a step."""
        return round((Decimal(str(self.high)) - Decimal(str(self.low))) / Decimal(str(self.step or 1))) + 1

    def value(self, index: int) -> Number:
        """The value number `index`, counted from 0, without the noise of float sums: 0.3, never 0.30000000000000004."""
        value = Decimal(str(self.low)) + index * Decimal(str(self.step or 1))
        return int(value) if all(isinstance(bound, int) for bound in (self.low, self.step or 1)) else float(value)

    def holds(self, value: Scalar) -> bool:
        if isinstance(value, str | bool) or value is None or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0
        return abs(steps - round(steps)) < 1e-6


class Choices(Section):
    """A list of values; `[a, b]` is short for `{choices: [a, b]}`."""

    choices: _Scalars
    """The values."""
    when: _When
    """What the choice depends on: other keys, each with the values beside which this one makes sense."""

    @model_validator(mode="before")
    @classmethod
    def _of_a_list(cls, content: Any) -> Any:
        return {"choices": content} if isinstance(content, list | tuple) else content

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [mapping["properties"]["choices"] | {"title": "Choices"}, mapping]}

    def holds(self, value: Scalar) -> bool:
        return value in self.choices


Axis: TypeAlias = Range | Choices
"""The values that a search may give one key."""

AnyAxis = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
    Discriminator(lambda content: "choices" if is_choices(content) else "range"),
]


def is_choices(content: Any) -> bool:
    return isinstance(content, list | tuple | Choices) or (isinstance(content, dict) and "choices" in content)


def active(space: Mapping[str, Axis], values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The values of keys of the space without those whose `when` does not hold, in the order of the space.

    A `when` that names a key outside the space holds: check_search has seen to it.
    """

    def is_active(name: str) -> bool:
        return all(
            other not in space or (other in values and values[other] in allowed and is_active(other))
            for other, allowed in space[name].when.items()
        )

    return {name: values[name] for name in space if name in values and is_active(name)}
