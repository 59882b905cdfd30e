"""Sentences about what is wrong with a params.yaml, for the person who wrote it."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from pipeline.config.axes import Axis, Choices, Range
from pipeline.config.names import GONE, TORCHVISIONS, legal_names, section_of
from pipeline.config.params import Params
from pipeline.config.roles import searchable
from pipeline.errors import ConfigError

_PASSWORD = re.compile(r"(://[^/:@\s]*:)[^/@\s]*@")
_MOST_LISTED = 20
"""Legal names that a sentence lists; of more it says the nearest."""


def sentence(details: ErrorDetails, called: str | None = None) -> str:
    """A pydantic error as `train.epochs must be at least 1, got 0`; `called` takes the place of the key's name."""
    name, kind, context = called or _path(details["loc"]), details["type"], details.get("ctx", {})
    if kind == "plain" and name.endswith("model.family") and details["input"] in TORCHVISIONS:
        return f"{name} {details['input']} is gone: it is torchvision's, by model.name (docs/networks.md)"
    if kind == "plain":
        return f"{name} must be {details['msg']}, got {shown(details['input'])}"
    if kind == "secret":
        return f"{name} must {details['msg']}"
    if kind == "rule":
        return details["msg"].replace(context["key"], called or context["key"], 1)
    if kind == "extra_forbidden":
        forms: dict[str, type[BaseModel]] = {"range": Range, "choices": Choices}
        form = forms.get(str(details["loc"][2])) if len(details["loc"]) > 3 else None
        return f"{name} is not a key; allowed are {', '.join(form.model_fields)}" if form else unknown(name)
    if kind == "missing":
        return f"{name} is missing"
    if kind == "literal_error" and len(legal := re.findall(r"'([^']*)'", context["expected"])) > _MOST_LISTED:
        near = difflib.get_close_matches(str(details["input"]), legal, n=1, cutoff=0.4)
        hint = f" (nearest: {near[0]})" if near else ""
        return f"{name} must be one of {len(legal)} names{hint}, got {shown(details['input'])}"
    allowed = {
        "int_type": "be a whole number",
        "float_type": "be a number",
        "finite_number": "be a finite number",
        "string_type": "be text",
        "bool_type": "be true or false",
        "model_type": "be a section with keys of its own",
        "model_attributes_type": "be a section with keys of its own",
        "dict_type": "be a mapping from names to values",
        "mapping_type": "be a mapping from names to values",
        "tuple_type": "be a list",
        "too_short": "hold something",
        "greater_than": "be over {gt}",
        "greater_than_equal": "be at least {ge}",
        "less_than": "be under {lt}",
        "less_than_equal": "be at most {le}",
        "literal_error": "be {expected}",
        "string_pattern_mismatch": "match {pattern}",
    }.get(kind)
    rule = allowed.format(**context).replace("'", "") if allowed else f"be right ({details['msg']})"
    return f"{name} must {rule}, got {shown(details['input'])}"


def _path(place: Sequence[str | int]) -> str:
    """The place of a value in the file, as `tune.first[0].model.depth`."""
    # Below a key of the space pydantic adds the form that it took the value for: range or choices.
    parts = [part for number, part in enumerate(place) if not (place[0] == "space" and number == 2)]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def shown(value: Any) -> str:
    """A value as YAML writes it, without the password that an address may have."""
    return _PASSWORD.sub(r"\1***@", json.dumps(value, default=str, ensure_ascii=False))


def unknown(name: str, more: Sequence[str] = ()) -> str:
    """The sentence about a name that is no key. It suggests the nearest key, first of the same section, then of all.

    `more` are keys beside those of the schema.
    """
    if name.endswith("model.backbone"):
        return f"{name} is called {name.replace('backbone', 'name')} today, beside model.family torchvision"
    if name.removeprefix("space.") in GONE:
        return f"{name} is gone: it brought nothing when it was measured (docs/results.md); remove it"
    section, _, key = name.rpartition(".")
    legal = [f"space.{other}" for other in searchable()] if name.startswith("space.") else list(legal_names())
    legal += more
    inside = [other for other in legal if other.startswith(f"{section}.")] if section else list(Params.model_fields)
    if section == "space":
        inside = legal
    for candidates in (inside, legal):
        by_key = {other.rpartition(".")[2]: other for other in candidates}
        if near := difflib.get_close_matches(key, by_key, n=1, cutoff=0.7):
            return f"{name} is not a key; did you mean {by_key[near[0]]}?"
    return f"{name} is not a key; allowed are {', '.join(inside or Params.model_fields)}"


def replaced(old: Mapping[str, Any], today: Mapping[str, Any]) -> str:
    """The sentence about a section model whose family has another name today."""
    lines = ", ".join(f"{key}: {shown(value).strip(chr(34))}" for key, value in today.items())
    width = old.get("width", 64) if old["family"] != "pretrained" else 64
    aside = f" (of 64 channels, not {width}; the family resnet has a width)" if width != 64 else ""
    return f"model.family {old['family']} is one of torchvision's networks today{aside}: write {lines}"


def is_section(name: str) -> str:
    """The sentence about a section that is set as a whole."""
    if name == "study":
        return "study is a section, which can't be set: write the grid into the file"
    example = (
        "train.learning_rate={low: 0.01, high: 0.5}"
        if name == "space"
        else f"{next(iter(section_of(name).model_fields))}=..."
    )
    return f"{name} is a section: set its keys one by one, as in {name}.{example}"


def described(axis: Axis) -> str:
    """The values of an axis: `8 to 32 in steps of 6`, `"flip" or "none"`."""
    if isinstance(axis, Choices):
        return " or ".join(map(shown, axis.choices))
    steps = f" in steps of {shown(axis.step)}" if axis.step is not None else ""
    return f"{shown(axis.low)} to {shown(axis.high)}{steps}"


def all_of(problems: Sequence[str], source: str) -> ConfigError:
    """One error with all sentences, a line each."""
    count = "one thing is" if len(problems) == 1 else f"{len(problems)} things are"
    return ConfigError(f"{count} wrong in {source}:\n" + "\n".join(f"  {problem}" for problem in problems))
