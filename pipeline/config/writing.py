"""Writes values into a params.yaml and changes nothing else in it."""

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode

from pipeline.config.checks import SearchCheck
from pipeline.config.files import read_yaml
from pipeline.config.loading import parse
from pipeline.config.messages import all_of
from pipeline.config.section import Scalar
from pipeline.errors import ConfigError
from pipeline.files import atomic_write


def write_values(path: Path, values: Mapping[str, Scalar]) -> None:
    """Writes values by dotted name into a params.yaml. Its comments, its quotes and the order of its keys stay.

    The file is replaced whole or not at all. Raises ConfigError for a name that is no key, for an illegal value, and
    for a value outside the file's space.
    """
    source = f"{path} with the values to write"
    settings = parse(read_yaml(path), values, source)
    if problems := SearchCheck(settings.model_dump()).check_own_values():
        raise all_of(problems, source)
    text = path.read_bytes().decode()  # read_text would make LF of CRLF
    nodes = {
        f"{section.value}.{key.value}": node
        for section, keys in YAML().compose(text).value
        if isinstance(keys, MappingNode)
        for key, node in keys.value
    }
    # From the end of the file to its start, so that the positions of the values still to be written stay right.
    for name, node in sorted(nodes.items(), key=lambda item: -item[1].start_mark.index):
        if name in values:
            text = _with_scalar(text, node, values[name])
    expected = read_yaml(path)
    for name, value in values.items():
        section, _, key = name.partition(".")
        expected[section][key] = value
    with atomic_write(path) as aside:
        aside.write_bytes(text.encode())
        try:
            is_as_expected = read_yaml(aside) == expected
        except ConfigError:
            is_as_expected = False
        if not is_as_expected:  # with an anchor one text is the value of several keys; only a person can split it
            raise ConfigError(f"{path} has YAML anchors, aliases or tags at {', '.join(values)}: change it by hand.")


def _with_scalar(text: str, node: ScalarNode, value: Scalar) -> str:
    """`text` with another value at `node`. A comment after it stays in its column where there is room."""
    start: int = node.start_mark.index
    end: int = node.end_mark.index
    written = _written(value, node.style)
    if start == end:
        written = f" {written}"  # null, as nothing after the colon
    line = text[end:].split("\n", 1)[0]
    blanks = len(line) - len(line.lstrip(" "))
    if line.lstrip(" ").startswith("#"):
        after = " " * max(1, blanks + (end - start) - len(written))
        return text[:start] + written + after + text[end + blanks :]
    return text[:start] + written + text[end:]


def _written(value: Scalar, style: str | None) -> str:
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
