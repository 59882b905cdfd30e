"""Where keys that a params.yaml lacks are to be added, and the lines for them."""

import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from pipeline.config.names import legal_names
from pipeline.config.params import Params
from pipeline.config.reference import keys
from pipeline.config.scalars import written

COLUMN, WIDTH = 27, 120
"""Where a comment behind a short value begins, and where the longest line ends."""


def additions(text: str, root: MappingNode, missing: Mapping[str, Any]) -> dict[int, str]:
    """What makes `text`, the file that `root` is the tree of, hold the missing keys: text by the position to put it at.

    A key goes below the one before it in the schema, a section below the one before it. Comments stay where they are.
    """
    sections: dict[str, tuple[ScalarNode, Node]] = {head.value: (head, content) for head, content in root.value}
    newline = "\r\n" if "\r\n" in text else "\n"
    found: defaultdict[int, str] = defaultdict(str)
    below: int | None = None  # the end of the section before
    for section in Params.model_fields:
        names = [name for name in missing if name.startswith(f"{section}.")]
        if section in sections:
            head, content = sections[section]
            for position, addition in _to_section(text, section, head, content, missing, newline):
                found[position] += addition
            below = _end_of_line(text, head, content)
        elif names:
            lines = [f"{section}:", *(line for name in names for line in _lines(name, missing[name], "  "))]
            if below is None:
                found[root.value[0][0].start_mark.index if root.value else 0] += newline.join([*lines, "", ""])
            else:
                found[below] += newline.join(["", "", *lines])
    return found


def _to_section(
    text: str, section: str, head: ScalarNode, content: Node, missing: Mapping[str, Any], newline: str
) -> Iterator[tuple[int, str]]:
    there = {key.value: (key, value) for key, value in content.value} if isinstance(content, MappingNode) else {}
    names = [name for name in legal_names() if name.startswith(f"{section}.")]
    if isinstance(content, MappingNode) and content.flow_style:
        pairs = [f"{name.partition('.')[2]}: {written(missing[name])}" for name in names if name in missing]
        if pairs:
            yield content.end_mark.index - 1, ", ".join([*([""] if there else []), *pairs])
        return
    indent = " " * next((key.start_mark.column for key, _ in there.values()), 2)
    below = _end_of_line(text, head, head)
    for name in names:
        if (key := name.partition(".")[2]) in there:
            below = _end_of_line(text, *there[key])
        elif name in missing:
            yield below, "".join(newline + line for line in _lines(name, missing[name], indent))


def _lines(name: str, value: Any, indent: str) -> list[str]:
    """The line of a key with its comment: behind the value, or above the key where the line would be too long."""
    comment = keys()[name].comment
    line = f"{indent}{name.partition('.')[2]}: {written(value)}"
    whole = f"{line:<{COLUMN - 1}} # {comment}"
    if len(whole) <= WIDTH:
        return [whole]
    return [*textwrap.wrap(comment, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "), line]


def _end_of_line(text: str, key: Node, value: Node) -> int:
    """The end of the line in which the value of a key ends. Comments and blank lines below it don't count."""
    end = len(text[: _end(key, value)].rstrip())
    line_end = text.find("\n", end)
    if line_end < 0:
        return len(text)
    return line_end - 1 if text[line_end - 1] == "\r" else line_end


def _end(key: Node, value: Node) -> int:
    """Where a value ends. A block, and a value that is nothing at all, end where the next token begins."""
    if value.start_mark.index == value.end_mark.index:
        return int(key.end_mark.index)
    if isinstance(value, CollectionNode) and not value.flow_style and value.value:
        last = value.value[-1]
        return _end(*last) if isinstance(value, MappingNode) else _end(value, last)
    return int(value.end_mark.index)
