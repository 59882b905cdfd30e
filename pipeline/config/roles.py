"""What a key is to a training and to a search, as the key or its section declares it in schema.py."""

import functools
from collections.abc import Mapping

from pydantic.fields import FieldInfo

from pipeline.config.names import legal_names, section_of
from pipeline.config.params import Params
from pipeline.config.section import Role


@functools.cache
def searchable() -> tuple[str, ...]:
    """The names of the keys that a search may vary."""
    return tuple(name for name in legal_names() if why_not_searchable(name) is None)


def why_not_searchable(name: str) -> str | None:
    """Why a search leaves a key alone, as the end of a sentence.

    None for a key that may be searched. A name that is no key gets the reason of its section, if that has one.
    """
    role = _role(name)
    return role.not_searched if role else None


def decides_training(name: str) -> bool:
    """Whether the key decides the numbers of a training.

    Such keys make the identity of a study. With those of the machine they make the fingerprint of a training.
    """
    return _decides(name, "training")


def is_of_the_machine(name: str) -> bool:
    """Whether the key only says where a training runs: a study may continue on another machine."""
    return _decides(name, "machine")


def decides_scoring(name: str) -> bool:
    """Whether the key only says how the test set is scored. It is no value of a training."""
    return _decides(name, "scoring")


def fixed_in_grid(name: str) -> bool:
    """Whether a grid sets the key itself, or the key has no effect on a grid."""
    role = _role(name)
    return role is not None and role.set_by_grid


def _decides(name: str, what: str) -> bool:
    role = _role(name)
    return role is not None and role.decides == what


@functools.cache
def _role(name: str) -> Role | None:
    """The role of a key. A name that is no key has the role of its section; outside of all sections it has None."""
    section, _, key = name.partition(".")
    if section not in Params.model_fields:
        return None
    return (
        _declared(Params.model_fields, section)
        or _declared(section_of(section).model_fields, key)
        or section_of(section).role
    )


def _declared(fields: Mapping[str, FieldInfo], name: str) -> Role | None:
    found = fields[name].metadata if name in fields else []
    return next((each for each in found if isinstance(each, Role)), None)
