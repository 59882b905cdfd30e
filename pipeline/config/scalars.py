"""A value as YAML writes it and as a person would."""

import json
from decimal import Decimal
from typing import Any

from ruamel.yaml import YAML


def written(value: Any, style: str | None = None) -> str:
    """A value as YAML. Text keeps the quotes `style` that it had, and gets some where it needs them."""
    if isinstance(value, float):
        # YAML 1.1 reads 5e-05 as text, as it has no dot.
        short = repr(value)
        if "e" not in short:
            return short
        if 1e-6 <= abs(value) < 1:
            return f"{Decimal(short):f}"
        return short if "." in short else short.replace("e", ".0e")
    if not isinstance(value, str):
        return json.dumps(value)
    if style == "'":
        return "'" + value.replace("'", "''") + "'"
    plain_text = value.isascii() and value.replace("_", "").replace(".", "").isalnum()
    if style is None and plain_text and YAML(typ="safe", pure=True).load(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
