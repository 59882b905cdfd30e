"""Reads a params.yaml, sets values by dotted name, and checks the whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.checks import SearchCheck
from pipeline.config.extra import EXTRA, completed
from pipeline.config.files import read_yaml
from pipeline.config.messages import all_of, is_section, replaced, sentence, shown, unknown
from pipeline.config.names import had_no_effect, legal_names, todays
from pipeline.config.params import Grid, Params
from pipeline.config.roles import searchable
from pipeline.config.section import Scalar
from pipeline.errors import ConfigError


class Config(Params):
    """All of params.yaml."""

    def with_values(self, values: Mapping[str, Scalar]) -> "Config":
        """A copy with some values replaced, checked like the file. Raises ConfigError."""
        return parse(self.model_dump(), values, "the values set")

    def of_trial(self, values: Mapping[str, Scalar]) -> "Config":
        """As `with_values`, for values in the space: space and grids, most of the work, are not checked again."""
        return parse(self.model_dump(), values, "the trial", of_space=True)


AS_GRID: Mapping[str, Any] = {
    "tune.sampler": "grid",
    "tune.scheduler": "none",
    "tune.confirm": 0,
    "tune.first": [],
    "tune.budget": None,
    "tune.patience": None,
}
"""The values that make a search train a grid. They are some of the keys that are `fixed_in_grid`."""


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads and checks a params.yaml, with the values of `overrides` (by dotted name) in place of its own.

    An override may be of any section: `space.<dotted name>` takes a range as a mapping, or a list of choices. Raises
    ConfigError with a line for each problem: the dotted key, its value and what is allowed.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing: run this in the folder of a project (it has params.yaml and dvc.yaml).")
    return parse(read_yaml(path), overrides or {}, str(path))


def parse(content: Any, overrides: Mapping[str, Any], source: str, *, of_space: bool = False) -> Config:
    """Checks the nested mapping `content` of a params.yaml; `source` names it in errors. Raises ConfigError.

    Sections and keys that it does not name have their defaults; a section may be a bare heading. With `of_space` the
    content is that of a Config and the overrides lie in its space: then space and grids are not checked.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"{source} must hold the sections {', '.join(Config.model_fields)}, got {shown(content)}.")
    merged = {
        name: {key: value for key, value in section.items() if not had_no_effect(f"{name}.{key}", value)}
        if isinstance(section, dict)
        else {}
        if section is None
        else section
        for name, section in content.items()
    }
    problems = []
    old = content.get("model")
    if isinstance(old, dict) and (today := todays(old)):
        problems.append(replaced(old, today))
        merged["model"] |= today
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        if name in Config.model_fields:
            problems.append(is_section(name))
        elif name.startswith(EXTRA) and isinstance(inside := merged.setdefault(section, {}), dict):
            inside["extra"] = dict(inside.get("extra") or {}) | {name.removeprefix(EXTRA): value}
        elif name not in legal_names() and section != "space":
            problems.append(unknown(name))
        elif isinstance(inside := merged.setdefault(section, {}), dict):
            inside[key] = value
    extra, wrong = completed(merged)
    problems += wrong
    if extra and isinstance(merged.setdefault("model", {}), dict):
        merged["model"]["extra"] = extra
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        # pydantic also calls a list too short when all that it holds is wrong.
        errors = [each for each in error.errors() if not (each["type"] == "too_short" and each["input"])]
        problems += [sentence(details) for details in errors]
        config = None
    if not of_space:
        problems += SearchCheck(merged).problems()
    if problems or config is None:
        raise all_of(problems, source)
    for name, grid in {} if of_space else config.study.items():
        try:
            _with_grid(config, grid)
        except ConfigError as error:
            problems += [f"study.{name}: {line.strip()}" for line in str(error).splitlines()[1:]]
    if problems:
        raise all_of(problems, source)
    return config


def grid(settings: Config, name: str) -> Config:
    """The values that train the grid `name` of the section `study`: all combinations, each to the end.

    Raises ConfigError if there is no such grid.
    """
    if name not in settings.study:
        there = ", ".join(settings.study) or "none"
        raise ConfigError(f"study.{name} is not a grid of params.yaml; there are {there}.")
    return _with_grid(settings, settings.study[name])


def _with_grid(settings: Config, grid: Grid) -> Config:
    content = settings.model_dump() | {"space": grid.model_dump()["space"], "study": {}}
    found = parse(content, {**AS_GRID, **grid.values}, "the grid")
    check_search(found, "the grid")
    return found


def check_search(settings: Config, source: str = "params.yaml") -> None:
    """Raises ConfigError where a search can't begin: the file's own values lie outside the space, for example.

    `load` does not check this, since a single training may have values that no search would try.
    """
    if problems := SearchCheck(settings.model_dump()).misfits():
        raise all_of(problems, source)


def schema() -> str:
    """The JSON schema of params.yaml, for editors."""
    content = Config.model_json_schema()
    content["title"] = "params.yaml"
    for space in (content["properties"]["space"], content["$defs"]["Grid"]["properties"]["space"]):
        space["propertyNames"] = {"anyOf": [{"enum": list(searchable())}, {"pattern": r"^model\.extra\.\w+$"}]}
    return json.dumps(content, indent=2) + "\n"
