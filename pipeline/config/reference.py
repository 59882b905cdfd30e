"""Every key of params.yaml with its default, its range and its sentence, as the schema has them; docs/reference.md."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.axes import Choices, Range
from pipeline.config.names import legal_names, section_of
from pipeline.config.params import Grid, Params
from pipeline.config.roles import searchable
from pipeline.config.scalars import written
from pipeline.config.section import Section

HEAD = """# All keys of params.yaml

`python -m pipeline.config --reference` makes this page from the schema, pipeline/config/schema.py. A file names the
keys that it wants to differ; every other key has its default. These commands work for a key whether the file names it
or not:

```console
python -m pipeline.config --all                     # this list, with the values of your file
python -m pipeline.config --fill train              # writes the keys that section train lacks, with comments
python -m pipeline.config --set train.ema=0.9       # writes one value into the file
dvc exp run -S ++train.ema=0.9                      # an experiment with it
python -m pipeline.tune --set train.ema=0.9         # a search with it
```

Without `++` (`-S train.ema=0.9`) DVC refuses a key that the file does not name. The section `space` may vary the keys
that are marked as searched.
"""


_MANY = 20
"""So many names are listed, of more only the first two."""


@dataclass(frozen=True)
class Key:
    """What a person wants to know about a key."""

    default: str
    """As YAML writes it; empty for a key that must be given."""
    range: str
    """The lowest and the highest number in words; empty for a key that takes no number or any."""
    allowed: str
    """The legal values in words: `whole number, 1 to 20, or null`."""
    sentence: str
    """What the key does."""

    @property
    def comment(self) -> str:
        """What stands beside the key in a file: the legal values, where the sentence does not list them, and it."""
        sentence = self.sentence if self.sentence.endswith("...") else self.sentence.removesuffix(".")
        choices = "" if all(word in sentence for word in self.allowed.split(", ")) else self.allowed
        legal = self.range or ("" if self.default == "null" or "text" in self.allowed else choices)
        if not legal:
            return sentence
        return f"{legal}: {sentence[0].lower() if sentence[1].islower() else sentence[0]}{sentence[1:]}"


@functools.cache
def keys() -> Mapping[str, Key]:
    """All keys by their dotted names, in the order of the schema."""
    sections = {name.partition(".")[0]: None for name in legal_names()}
    return {name: key for section in sections for name, key in _keys_of(section_of(section), f"{section}.").items()}


def reference() -> str:
    """The text of docs/reference.md."""
    parts = [HEAD]
    for section, field in Params.model_fields.items():
        parts.append(f"## `{section}`\n\n{field.description}\n")
        if section == "space":
            parts.append(f"A range: {_doc(Range)}\n\n{_table(_keys_of(Range, ''))}\nChoices: {_doc(Choices)}\n")
        elif section == "study":
            parts.append(_table(_keys_of(Grid, "study.NAME.")))
        else:
            parts.append(_table({name: key for name, key in keys().items() if name.startswith(f"{section}.")}))
    return "\n".join(parts)


def _keys_of(section: type[Section], prefix: str) -> dict[str, Key]:
    properties: Mapping[str, Mapping[str, Any]] = section.model_json_schema()["properties"]
    return {
        f"{prefix}{name}": Key(
            default=written(about["default"]) if "default" in about else "",
            range=next(filter(None, map(_range, about.get("anyOf", [about]))), ""),
            allowed=_allowed(about),
            sentence=" ".join(about["description"].split()),
        )
        for name, about in properties.items()
    }


def _allowed(about: Mapping[str, Any]) -> str:
    """The legal values that a JSON schema describes, in words."""
    if "anyOf" in about:
        kinds = [_allowed(each) for each in about["anyOf"]]
        return ", or ".join(kind for kind in kinds if not (kind == "whole number" and "number" in kinds))
    if "enum" in about:
        names = list(map(str, about["enum"]))
        return ", ".join(names) if len(names) <= _MANY else f"one of {len(names)} names: {', '.join(names[:2])}, ..."
    if "examples" in about:
        return f"text such as {about['examples'][0]}"
    kind = {"integer": "whole number", "string": "text", "boolean": "true, false", "array": "list", "object": "mapping"}
    found = (kind.get(about["type"], about["type"]), _range(about), about.get("pattern"))
    return ", ".join(each for each in found if each)


def _range(about: Mapping[str, Any]) -> str:
    bounds = dict(about)
    if about.get("type") == "integer" and "exclusiveMaximum" in about:
        bounds["maximum"] = bounds.pop("exclusiveMaximum") - 1
    if "minimum" in bounds and "maximum" in bounds:
        return f"{bounds['minimum']} to {bounds['maximum']}"
    words = {"minimum": "at least", "exclusiveMinimum": "over", "maximum": "at most", "exclusiveMaximum": "under"}
    return ", ".join(f"{word} {bounds[bound]}" for bound, word in words.items() if bound in bounds)


def _doc(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split())


def _table(rows: Mapping[str, Key]) -> str:
    marked = any(name in searchable() for name in rows)
    head = ["key", "default", "allowed", "what it does", *(["searched"] if marked else [])]
    lines = [head, ["---"] * len(head)]
    for name, key in rows.items():
        mark = ["yes" if name in searchable() else "no"] if marked else []
        lines.append([f"`{name}`", key.default, key.allowed, key.sentence, *mark])
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
