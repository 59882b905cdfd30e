"""What is wrong with a params.yaml, in sentences for the person who wrote it."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from pipeline.config.axes import Axis, Choices, Range
from pipeline.config.names import unknown
from pipeline.errors import ConfigError


def sentence(details: ErrorDetails, called: str | None = None) -> str:
    """A pydantic error as `train.epochs must be at least 1, got 0`, in which the value may be `called` otherwise."""
    name, kind, context = called or _path(details["loc"]), details["type"], details.get("ctx", {})
    if kind == "plain":
        return f"{name} must be {details['msg']}, got {shown(details['input'])}"
    if kind == "rule":
        return details["msg"]
    if kind == "extra_forbidden":
        forms: dict[str, type[BaseModel]] = {"range": Range, "choices": Choices}
        form = forms.get(str(details["loc"][2])) if len(details["loc"]) > 3 else None
        return f"{name} is not a key; allowed are {', '.join(form.model_fields)}" if form else unknown(name)
    if kind == "missing":
        return f"{name} is missing"
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
    # Below a key of the space pydantic says which of two forms it took the value for.
    parts = [part for number, part in enumerate(place) if not (place[0] == "space" and number == 2)]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    return json.dumps(value, default=str, ensure_ascii=False)


def described(axis: Axis) -> str:
    if isinstance(axis, Choices):
        return " or ".join(map(shown, axis.choices))
    steps = f" in steps of {shown(axis.step)}" if axis.step is not None else ""
    return f"{shown(axis.low)} to {shown(axis.high)}{steps}"


def all_of(problems: Sequence[str], source: str) -> ConfigError:
    count = "one thing is" if len(problems) == 1 else f"{len(problems)} things are"
    return ConfigError(f"{count} wrong in {source}:\n" + "\n".join(f"  {problem}" for problem in problems))
