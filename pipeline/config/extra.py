"""The keys under model.extra, which the functions of the user's networks declare by their signatures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.messages import sentence, unknown
from pipeline.config.own_network import code_digest, code_files, code_root, extra_keys, is_own
from pipeline.config.params import Params
from pipeline.config.section import Section
from pipeline.errors import ConfigError

EXTRA = "model.extra."
"""The beginning of their dotted names."""


def own_networks(content: Mapping[str, Any]) -> list[str]:
    """The functions that a params.yaml names: its model.family, and those that its space has."""
    model, space = (content.get(name) for name in ("model", "space"))
    families = [model.get("family")] if isinstance(model, dict) else []
    axis = space.get("model.family") if isinstance(space, dict) else None
    choices = axis.get("choices") if isinstance(axis, dict) else axis
    families += choices if isinstance(choices, list | tuple) else []
    return [str(family) for family in dict.fromkeys(families) if is_own(family)]


def code_digests(settings: Params) -> dict[str, str]:
    """SHA-256 of the code of each network of the user's that a file names, by its value of model.family.

    Raises ConfigError if a file is missing.
    """
    return {family: code_digest(family) for family in own_networks(settings.model_dump())}


def code_places(settings: Params) -> Iterator[tuple[Path, str]]:
    """Each file of that code, and the folder to keep a copy in: code, with the package's folders below."""
    for family in own_networks(settings.model_dump()):
        root = code_root(family)
        for file in code_files(family):
            yield file, Path("code", file.relative_to(root)).parent.as_posix()


def declared(content: Mapping[str, Any]) -> dict[str, type[Section]]:
    """The dotted names of the keys under model.extra, each with the signature that has it.

    Raises ConfigError if a function is missing.
    """
    found: dict[str, type[Section]] = {}
    for family in own_networks(content):
        keys = extra_keys(family)
        found |= {f"{EXTRA}{name}": keys for name in keys.model_fields if f"{EXTRA}{name}" not in found}
    return found


def completed(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values under model.extra with the defaults of those that are not given; and what is wrong with them."""
    model = content.get("model")
    given = model.get("extra") if isinstance(model, dict) else None
    given = given if isinstance(given, Mapping) else {}
    values: dict[str, Any] = dict(given)
    problems: list[str] = []
    families = own_networks(content)
    for family in families:
        try:
            keys = extra_keys(family)
        except ConfigError as error:
            return values, [str(error).removesuffix(".")]
        try:
            own = keys.model_validate({name: value for name, value in given.items() if name in keys.model_fields})
        except ValidationError as error:
            problems += [sentence(details, f"{EXTRA}{details['loc'][0]}") for details in error.errors()]
        else:
            values = own.model_dump() | values
    legal = declared(content)
    if families:
        problems += [unknown(f"{EXTRA}{name}", list(legal)) for name in given if f"{EXTRA}{name}" not in legal]
    return values, problems
