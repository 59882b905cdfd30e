"""params.yaml as a whole: its sections, and what they have beside keys of a training."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from pipeline.config.axes import AnyAxis, AnyScalar
from pipeline.config.model import Model
from pipeline.config.schema import SEARCH, Augment, Data, Evaluate, Report, Train, Tune
from pipeline.config.section import Scalar, Section


class Grid(Section):
    """A grid: trains all combinations of a space."""

    space: Mapping[str, AnyAxis]
    """What the grid varies: keys by dotted name, each with choices or a range with steps."""
    values: Mapping[str, AnyScalar] = Field(default_factory=dict)
    """Values by dotted name, in place of those of the file."""


class Params(Section):
    """The sections of params.yaml, each legal by itself; `Config` is what they are once checked together."""

    data: Data = Field(default_factory=Data)
    """Which images."""
    model: Model = Field(default_factory=Model)
    """Which network."""
    augment: Augment = Field(default_factory=Augment)
    """How training images are changed."""
    train: Train = Field(default_factory=Train)
    """How the network is trained."""
    evaluate: Evaluate = Field(default_factory=Evaluate)
    """How the test set is scored."""
    report: Report = Field(default_factory=Report)
    """How the report is written."""
    space: Annotated[Mapping[str, AnyAxis], SEARCH] = Field(default_factory=dict)
    """What a study searches: keys by dotted name, each with a range or a list of choices."""
    tune: Tune = Field(default_factory=Tune)
    """How a study searches."""
    study: Annotated[Mapping[str, Grid], SEARCH] = Field(default_factory=dict)
    """Grids by name, for `python -m pipeline.study NAME`."""

    def values(self) -> dict[str, Scalar]:
        """The values of one training and its scoring by dotted name, in the order of the schema."""
        return dict(_flat(self.by_section()))

    def by_section(self) -> dict[str, dict[str, Scalar]]:
        """The values of one training and its scoring by section and key."""
        return self.model_dump(exclude={"report", "space", "tune", "study"})


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
