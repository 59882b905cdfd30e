"""The dotted names of the keys of params.yaml, today's and those of older versions."""

import functools
from collections.abc import Mapping
from typing import Any, cast

from pipeline.config.params import Params
from pipeline.config.section import Scalar, Section

GONE: Mapping[str, tuple[Scalar, ...]] = {
    "model.backbone": (),
    "model.halving": ("late",),
    "train.convolutions": ("auto",),
    "train.early_halving_until": (0, 0.0),
    "train.hard_from": (),
    "train.hard_share": (1, 1.0),
    "train.hard_until": (),
}
"""Keys of older versions, each with the values that had no effect.

A key without values had no effect by itself: another key decided.
"""
TORCHVISIONS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "pretrained")
"""Values that model.family had in older versions. They are torchvision's networks today."""


def had_no_effect(name: str, value: Scalar) -> bool:
    """Whether an older version's value means the same as leaving the key out today."""
    return name in GONE and (not GONE[name] or value in GONE[name])


def todays(model: Mapping[str, Any]) -> dict[str, Scalar] | None:
    """The keys that say today what an older version's section model said; None if its family is one of today's."""
    family = model.get("family")
    if family == "pretrained":
        weights = model.get("weights") or "default"
        return {
            "family": "torchvision",
            "name": model.get("backbone", "resnet18"),
            "weights": weights,
            "stem": "imagenet",
        }
    if family in TORCHVISIONS:
        return {"family": "torchvision", "name": family, "stem": model.get("stem", "small")}
    return None


@functools.cache
def defaults() -> Mapping[str, Scalar]:
    """The values of one training and its scoring that a file without keys has, by dotted name."""
    return Params().values()


@functools.cache
def legal_names() -> tuple[str, ...]:
    """The names of all keys, in the order of the file."""
    sections = [section for section in Params.model_fields if section not in ("space", "study")]
    return tuple(f"{section}.{key}" for section in sections for key in section_of(section).model_fields)


def section_of(name: str) -> type[Section]:
    """The class of a section that has keys of its own."""
    return cast(type[Section], Params.model_fields[name].annotation)


def kind_of(name: str) -> Any:
    """The type of a key's values."""
    section, _, key = name.partition(".")
    return section_of(section).model_fields[key].annotation
