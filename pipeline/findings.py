"""What the checks of `python -m pipeline.doctor` yield: what is wrong, and how much was looked at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from pipeline.errors import PipelineError


class Weight(StrEnum):
    """How much is at stake."""

    ERROR = "error"
    """Something does not work, or would go to the wrong place."""
    WARNING = "warning"
    """Something is lost or does not fit; the commands work."""
    NOTE = "note"
    """Good to know."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong."""

    weight: Weight
    what: str
    """A sentence without its full stop."""
    where: str
    """A file or folder, relative to the project where it lies inside."""
    remedy: str
    """The command to run, or what to do."""
    mend: Callable[[], str] | None = field(default=None, compare=False, repr=False)
    """What --fix calls: corrects it and returns what it has done. Raises OSError, PipelineError."""

    @classmethod
    def of(cls, error: PipelineError, where: str) -> "Finding":
        """An error whose text is "what is wrong: what to do next"."""
        what, colon, remedy = str(error).rstrip(".").rpartition(": ")
        return cls(Weight.ERROR, what if colon else remedy, where, remedy if colon else "correct it")


@dataclass(frozen=True)
class Looked:
    """A check has looked at `count` things that are called `things`."""

    count: int
    things: str


Report: TypeAlias = Iterator[Finding | Looked]

FIX = "python -m pipeline.doctor --fix"
"""The remedy of a finding that can be mended."""


def some(names: list[str], most: int = 3) -> str:
    """The first of several names: "a, b, c and 4 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def counted(count: int, thing: str, plural: str = "") -> str:
    """ "1 run", "2 runs"."""
    return f"{count:,} {thing if count == 1 else plural or f'{thing}s'}"
