"""YAML as plain dicts, lists and scalars; the file of weights that model.weights names."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.config.families import FAMILIES
from pipeline.config.model import Model
from pipeline.config.own_network import is_own
from pipeline.errors import ConfigError
from pipeline.files import Project, sha256

WEIGHTS_KEYS = ("model.family", "model.name", "model.stem", "model.weights")
"""The keys that decide which weights a training begins with."""

_MARKER = re.compile(r"<{7} |={7}$|>{7} |\|{7} ")
"""A line by which git separates the sides of a conflict. None of them can begin a line of a params.yaml."""


def read_yaml(path: Path) -> Any:
    """The content of a YAML file as plain dicts, lists and scalars. Raises ConfigError, also for a duplicate key."""
    try:
        text = path.read_text(encoding="utf-8")
        if markers := [str(number) for number, line in enumerate(text.split("\n"), 1) if _MARKER.match(line)]:
            raise ConfigError(
                f"{path} holds both sides of a merge conflict (git's markers are in line {', '.join(markers)}): keep "
                "the lines of one side or of each what you want, delete the markers, and `git add` the file."
            )
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split("To suppress this check")[0].split())
        raise ConfigError(f"{path} is not valid YAML: {reason}") from error


def parse_value(text: str, source: str) -> Any:
    """The value of a YAML text: `0.1`, `true`, `crop_flip`, `[64, 128]`. Raises ConfigError, which names `source`."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ConfigError(f"{source} is not a YAML value: {text}") from error


def yaml_text(content: Mapping[str, Any]) -> str:
    """Plain mappings, lists and scalars as the text of a YAML file."""
    stream = io.StringIO()
    YAML(pure=True).dump(content, stream)
    return stream.getvalue()


def weights_file(name: str) -> Path:
    """The file that model.weights names, by the rule of `Project.given_path`. Raises ConfigError if there is none."""
    path = Project.here().given_path(name)
    if not path.is_file():
        raise ConfigError(
            f"model.weights: there is no file {path}: correct the path, or set it to default, for "
            "torchvision's own address.",
            keys=WEIGHTS_KEYS,
        )
    return path


def weights_digest(model: Model) -> str | None:
    """SHA-256 of the file of model.weights; None without a file, and for a family that does not read it.

    Raises ConfigError if the file is missing.
    """
    if is_own(model.family) or "weights" not in FAMILIES[model.family].reads or model.weights in (None, "default"):
        return None
    return sha256(weights_file(str(model.weights)))
