"""YAML as plain dicts, lists and scalars."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import ConfigError


def read_yaml(path: Path) -> Any:
    """The content of a YAML file as plain dicts, lists and scalars. Raises ConfigError, for a key given twice too."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split("To suppress this check")[0].split())
        raise ConfigError(f"{path} is not valid YAML: {reason}") from error


def parse_value(text: str, source: str) -> Any:
    """A value as YAML writes it: `0.1`, `true`, `crop_flip`, `[64, 128]`. Raises ConfigError, which names `source`."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ConfigError(f"{source} is not a YAML value: {text}") from error


def yaml_text(content: Mapping[str, Any]) -> str:
    """Plain mappings, lists and scalars as YAML."""
    stream = io.StringIO()
    YAML(pure=True).dump(content, stream)
    return stream.getvalue()
