"""What all sections of params.yaml have in common, and how a key declares its role."""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

Scalar: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class Role:
    """What a key is to a training and to a search. It is declared for a section, or for a single key."""

    decides: Literal["data", "training", "machine", "scoring", "report", "search"]
    """What depends on the key. data: the images. training: the numbers of a training. machine: where a training runs,
    which changes the last digits at most. scoring: how the test set is scored. report: how the report is written.
    search: what a study or a grid trains.
    """
    not_searched: str | None = None
    """Why a search leaves the key alone, as the end of a sentence; None: a search may vary it."""
    set_by_grid: bool = False
    """Whether a grid, which trains all combinations to the end, sets the key itself, or the key has no effect on it."""


HYPERPARAMETER = Role("training")
"""Of a key that decides the numbers of a training, and that a search may vary."""


class Section(BaseModel):
    """A section of params.yaml: no unknown key, no silent conversion, no change after the check."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    role: ClassVar[Role | None] = None
    """The role of all keys of the section that declare none of their own."""


def broken_rule(key: str, sentence: str, **context: Scalar) -> PydanticCustomError:
    """The error of a rule between keys. `sentence` begins with `{key}`, the key to change, and may use `context`."""
    return PydanticCustomError("rule", sentence, {"key": key, **context})
