"""Writes values into a params.yaml and changes nothing else in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode

from pipeline.config.adding import additions
from pipeline.config.checks import SearchCheck
from pipeline.config.extra import EXTRA
from pipeline.config.files import read_yaml
from pipeline.config.loading import parse
from pipeline.config.messages import all_of
from pipeline.config.names import legal_names
from pipeline.config.params import Params
from pipeline.config.scalars import written
from pipeline.config.section import Scalar
from pipeline.errors import ConfigError
from pipeline.files import atomic_write

_EXTRA = EXTRA.removesuffix(".")


def write_values(path: Path, values: Mapping[str, Scalar]) -> None:
    """Writes values by dotted name into a params.yaml. Its comments, its quotes and the order of its keys stay.

    A key that the file lacks is added to its section, with its comment. The file is replaced whole or not at all.
    Raises ConfigError for a name that is no key, for an illegal value, and for a value outside the file's space.
    """
    source = f"{path} with the values to write"
    settings = parse(read_yaml(path), values, source)
    problems = [f"{name} is written by hand: it is no single value" for name in values if not _is_single(name)]
    if problems := problems or SearchCheck(settings.model_dump()).check_own_values(values):
        raise all_of(problems, source)
    _rewrite(path, values)


def fill(path: Path, section: str | None = None) -> list[str]:
    """Writes the keys that a params.yaml lacks in a section, or in all, with default and comment. Returns their names.

    Raises ConfigError for a section without keys of its own, and if the file is wrong.
    """
    content = read_yaml(path)
    parse(content, {}, str(path))
    defaults = Params().model_dump(mode="json")
    sections = list(dict.fromkeys(name.partition(".")[0] for name in legal_names()))
    if section not in (None, *sections):
        raise ConfigError(f"There is nothing to fill in {section}: name one of {', '.join(sections)}.")
    missing: dict[str, Any] = {
        f"{name}.{key}": value
        for name in sections
        if section in (None, name)
        for key, value in defaults[name].items()
        if key not in (content.get(name) or {})
    }
    _rewrite(path, missing)
    return list(missing)


def _rewrite(path: Path, values: Mapping[str, Any]) -> None:
    text = path.read_bytes().decode()  # read_text would make LF of CRLF
    root = YAML().compose(text)
    nodes = {
        f"{section.value}.{key.value}": (key, node)
        for section, keys in root.value
        if isinstance(keys, MappingNode)
        for key, node in keys.value
    }
    extra = nodes[_EXTRA][1] if _EXTRA in nodes else None
    if isinstance(extra, MappingNode):
        nodes |= {f"{EXTRA}{key.value}": (key, node) for key, node in extra.value}
    missing = {name: value for name, value in values.items() if name not in nodes}
    edits = []
    if further := {name.removeprefix(EXTRA): missing.pop(name) for name in list(missing) if name.startswith(EXTRA)}:
        if isinstance(extra, MappingNode) and extra.value:
            edits.append(_beside(text, extra, further))
        else:
            nodes.pop(_EXTRA, None)
            missing[_EXTRA] = further
    edits += [(position, position, addition) for position, addition in additions(text, root, missing).items()]
    edits += [_edit(text, *nodes[name], value) for name, value in values.items() if name in nodes]
    # From the end of the text to its start, so that the positions of the other edits stay right; of two edits at one
    # position (a line below a key without a value) the addition comes first.
    for start, end, replacement in sorted(edits, key=lambda edit: edit[0], reverse=True):
        text = text[:start] + replacement + text[end:]
    expected = read_yaml(path)
    for name, value in values.items():
        section, _, key = name.partition(".")
        if name.startswith(EXTRA):
            key, value = "extra", (expected[section].get("extra") or {}) | {name.removeprefix(EXTRA): value}
        expected[section] = (expected.get(section) or {}) | {key: value}
    with atomic_write(path) as aside:
        aside.write_bytes(text.encode())
        try:
            is_as_expected = read_yaml(aside) == expected
        except ConfigError:
            is_as_expected = False
        if not is_as_expected:  # with an anchor one text is the value of several keys; only a person can split it
            raise ConfigError(
                f"{path} has YAML anchors, aliases, tags or a null in place of a section at {', '.join(values)}: "
                "change it by hand."
            )


def _is_single(name: str) -> bool:
    return name.startswith(EXTRA) or (name in legal_names() and name != _EXTRA)


def _beside(text: str, mapping: MappingNode, values: Mapping[str, Any]) -> tuple[int, int, str]:
    """Start, end and text that add keys behind the last one of a mapping, in its style."""
    pairs = [f"{name}: {written(value)}" for name, value in values.items()]
    key, last = mapping.value[-1]
    position = last.end_mark.index
    between = ", " if mapping.flow_style else "\n" + " " * key.start_mark.column
    if not mapping.flow_style and (end := text.find("\n", position)) >= 0:
        position = end  # behind the comment
    return position, position, between + between.join(pairs)


def _edit(text: str, key: ScalarNode, node: ScalarNode, value: Scalar) -> tuple[int, int, str]:
    """Start, end and replacement that put another value at `node`. A comment after it stays in its column if it can."""
    start: int = node.start_mark.index
    end: int = node.end_mark.index
    replacement = written(value, node.style)
    if start == end:  # null, as nothing after the colon: the node is where the next one begins
        start = end = text.index(":", key.end_mark.index) + 1
        replacement = f" {replacement}"
    line = text[end:].split("\n", 1)[0]
    blanks = len(line) - len(line.lstrip(" "))
    if not line.lstrip(" ").startswith("#"):
        return start, end, replacement
    return start, end + blanks, replacement + " " * max(1, blanks + (end - start) - len(replacement))
