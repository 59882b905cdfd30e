"""The dotted names of params.yaml: which there are, which a search may vary, what to say of one that is none."""

import difflib
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel

from pipeline.config.axes import Scalar
from pipeline.config.schema import Config

# Keys and sections that a search leaves alone, each with the end of the sentence that says so.
FIXED = {
    "data": "all trials are compared on the same images",
    "evaluate": "the test set has no part in a search",
    "space": "it describes a search, not a training",
    "tune": "it describes a search, not a training",
    "study": "it describes a search, not a training",
    "train.folds": "all trials are scored on the same images",
    "train.seed": "a trial's seed follows from tune.seed and its number, and luck is no hyperparameter",
    "train.validation_share": "all trials are scored on the same images",
    "train.validation_seed": "all trials are scored on the same images",
    "train.epochs": "the scheduler decides how long a trial trains, train.epochs at most",
    "train.device": "it describes the machine, not the training",
    "train.precision": "it describes the machine, not the training",
    "train.threads": "it describes the machine, not the training",
}


GONE: Mapping[str, tuple[Scalar, ...]] = {
    "model.halving": ("late",),
    "train.convolutions": ("auto",),
    "train.early_halving_until": (0, 0.0),
    "train.hard_from": (),
    "train.hard_share": (1, 1.0),
    "train.hard_until": (),
}
"""Keys of older versions that brought nothing when they were measured, each with the values that had no effect.

Without any it had none by itself: that was another key's to decide.
"""


def had_no_effect(name: str, value: Scalar) -> bool:
    """Whether a value that an older version wrote down stood for what is done without that key."""
    return name in GONE and (not GONE[name] or value in GONE[name])


def section_of(name: str) -> type[BaseModel]:
    return cast(type[BaseModel], Config.model_fields[name].annotation)


def kind_of(name: str) -> Any:
    """The type of a key's values."""
    section, _, key = name.partition(".")
    return section_of(section).model_fields[key].annotation


def legal_names() -> list[str]:
    sections = [section for section in Config.model_fields if section not in ("space", "study")]
    return [f"{section}.{key}" for section in sections for key in section_of(section).model_fields]


def searchable() -> list[str]:
    return [name for name in legal_names() if name not in FIXED and name.partition(".")[0] not in FIXED]


def unknown(name: str) -> str:
    """What to say of a name that is no key: the nearest legal one, first in its own section, then anywhere."""
    if name.removeprefix("space.") in GONE:
        return f"{name} is gone: it brought nothing when it was measured (docs/results.md); remove it"
    section, _, key = name.rpartition(".")
    legal = [f"space.{other}" for other in searchable()] if name.startswith("space.") else legal_names()
    inside = [other for other in legal if other.startswith(f"{section}.")] if section else list(Config.model_fields)
    if section == "space":
        inside = legal
    for candidates in (inside, legal):
        by_key = {other.rpartition(".")[2]: other for other in candidates}
        if near := difflib.get_close_matches(key, by_key, n=1, cutoff=0.7):
            return f"{name} is not a key; did you mean {by_key[near[0]]}?"
    return f"{name} is not a key; allowed are {', '.join(inside or Config.model_fields)}"
