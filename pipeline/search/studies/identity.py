"""What makes a study this one: trials of another space, other data or other fixed values can't be compared with it."""

import json
import shlex
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline import config
from pipeline.errors import PipelineError
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.spec import StudySpec


def identity(spec: StudySpec) -> dict[str, dict[str, Any]]:
    """What must not change in a study, by part: space, fixed values, data, the content of files that values name."""
    varied = {*spec.space.names, "train.seed"}  # each trial has a seed of its own
    fixed = {
        key: value
        for key, value in spec.settings.values().items()
        if config.decides_training(key) and key not in varied
    }
    return {
        "space": spec.space.described(),
        "values": fixed | {"tune.seed": spec.settings.tune.seed},
        "data": {"name": spec.meta.name, "digest": spec.meta.digest},
        "content": {"model.weights": config.weights_digest(spec.settings.model)} | config.code_digests(spec.settings),
    }


def check(spec: StudySpec, search: Ledger, advice: str) -> None:
    """Compares a study with what it was begun with; of a new study, records that.

    Raises PipelineError if they differ, with each difference and `advice`.
    """
    current = identity(spec)
    if "key" not in search.about:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        search.note(**current, created=created, key=uuid.uuid4().hex[:12])
        return
    differences = [
        line for part, values in current.items() for line in _differences(part, search.about.get(part, {}), values)
    ]
    if differences:
        raise PipelineError(
            f"The study {search.name} was begun otherwise, and its trials don't compare with new ones:\n"
            + "\n".join(differences)
            + "".join(f"\nIt was last started with {shlex.join(words)}." for words in [_given(search)] if words)
            + f"\n{advice}"
        )


def _given(search: Ledger) -> list[str]:
    return [word for value in search.about.get("given", []) for word in ("--set", value)]


def _differences(part: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line per value that has changed.

    Keys that are gone don't count if their value had no effect. Keys that are new had their default before.
    """
    if part == "values":
        before = {name: value for name, value in config.defaults().items() if name in now} | before
    return [
        f"  {part} {name}: it was {_shown(before, name)}, it is {_shown(now, name)}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name) and (name in now or not config.had_no_effect(name, before[name]))
    ]


def _shown(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "nothing"
    value = values[name]
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
