"""A params.yaml read, with values set by dotted name, and checked as a whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.checks import SearchCheck
from pipeline.config.files import read_yaml
from pipeline.config.messages import all_of, sentence, shown
from pipeline.config.names import had_no_effect, legal_names, searchable, unknown
from pipeline.config.schema import Config, Grid
from pipeline.errors import ConfigError


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads and checks a params.yaml, with the values of `overrides` (by dotted name) in place of its own.

    An override may be of any section: `space.<dotted name>` takes a range as a mapping, or a list of choices. Raises
    ConfigError, which names everything that is wrong: each dotted key, its value and what is allowed.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing: run this in the folder of a project (it has params.yaml and dvc.yaml).")
    return parse(read_yaml(path), overrides or {}, str(path))


def parse(content: Any, overrides: Mapping[str, Any], source: str) -> Config:
    """Checks the nested mapping `content` of a params.yaml; `source` names it in errors. Raises ConfigError."""
    if not isinstance(content, dict):
        raise ConfigError(f"{source} must hold the sections {', '.join(Config.model_fields)}, got {shown(content)}.")
    merged = {
        name: {key: value for key, value in section.items() if not had_no_effect(f"{name}.{key}", value)}
        if isinstance(section, dict)
        else section
        for name, section in content.items()
    }
    problems = []
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        if name not in legal_names() and section != "space":
            problems.append(unknown(name))
        elif isinstance(merged.get(section), dict):
            merged[section][key] = value
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        # A list is told to be empty, too, when all that it holds is wrong.
        errors = [each for each in error.errors() if not (each["type"] == "too_short" and each["input"])]
        problems += [sentence(details) for details in errors]
        config = None
    problems += SearchCheck(merged).problems()
    if problems or config is None:
        raise all_of(problems, source)
    for name, grid in config.study.items():
        try:
            _with_grid(config, grid)
        except ConfigError as error:
            problems += [f"study.{name}: {line.strip()}" for line in str(error).splitlines()[1:]]
    if problems:
        raise all_of(problems, source)
    return config


def grid(settings: Config, name: str) -> Config:
    """What the study `name` of the section `study` searches: all combinations, each trained to the end.

    Raises ConfigError if there is no such study.
    """
    if name not in settings.study:
        there = ", ".join(settings.study) or "none"
        raise ConfigError(f"study.{name} is not a study of params.yaml; there are {there}.")
    return _with_grid(settings, settings.study[name])


def _with_grid(settings: Config, grid: Grid) -> Config:
    search = {
        "tune.sampler": "grid",
        "tune.scheduler": "none",
        "tune.confirm": 0,
        "tune.first": [],
        "tune.budget": None,
    }
    content = settings.model_dump() | {"space": grid.model_dump()["space"], "study": {}}
    found = parse(content, search | dict(grid.values), "the study")
    check_search(found, "the study")
    return found


def check_search(settings: Config, source: str = "params.yaml") -> None:
    """Raises ConfigError where a search could not begin from the values: they lie outside the space, for one.

    load leaves this alone, as one training may well have other values than a search would try.
    """
    if problems := SearchCheck(settings.model_dump()).misfits():
        raise all_of(problems, source)


def schema() -> str:
    """The JSON schema of params.yaml, for editors."""
    content = Config.model_json_schema()
    content["title"] = "params.yaml"
    for space in (content["properties"]["space"], content["$defs"]["Grid"]["properties"]["space"]):
        space["propertyNames"] = {"enum": searchable()}
    return json.dumps(content, indent=2) + "\n"
