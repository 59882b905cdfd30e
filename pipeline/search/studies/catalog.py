"""The studies of a project: the list of them, with the state of each; deleting one."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.table import Table

from pipeline import config
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.search.studies import storage as storages
from pipeline.search.studies.checkpoints import address_of, store_of
from pipeline.search.studies.ledger import CONFIRMATION, Ledger


def all_of(project: Project) -> list[dict[str, Any]]:
    """A description of each study, the oldest first."""
    names = [name for name in storages.studies(project) if not name.endswith(CONFIRMATION)]
    return [_described(project, name) for name in names]


def one_of(project: Project, name: str) -> dict[str, Any]:
    """The description of a study. Raises PipelineError if there is no study of that name."""
    names = [study["study"] for study in all_of(project)]
    if name not in names:
        raise PipelineError(f"There is no study {name}; there is {', '.join(names) or 'none at all'}.")
    return _described(project, name)


def delete(project: Project, name: str) -> None:
    """Deletes a study: what it has at tune.checkpoints, in Optuna's storage, and its folder.

    Raises Owned while a process owns it, StoreError and ConfigError.
    """
    with Ledger.open(project, name) as ledger:
        if "key" in ledger.about:
            address = address_of(ledger, config.load(project.params).tune.checkpoints)
            if store := store_of(address, ledger):
                store.delete()
        ledger.delete()
        shutil.rmtree(project.study_folder(name), ignore_errors=True)


def bytes_of(folder: Path) -> int:
    """Of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def table(studies: Sequence[dict[str, Any]]) -> Table:
    shown = Table("study", "trials", "states", "best", "begun", "disk", box=None, pad_edge=False)
    for study in studies:
        best, line = study["best"], study["damaged_line"]
        states = [f"{count} {state}" for state, count in study["states"].items()]
        shown.add_row(
            study["study"],
            str(study["trials"]),
            ", ".join([*states, *([f"line {line} of optuna.journal is damaged"] if line else [])]),
            "" if best is None else f"{best:.2%}",
            study["created"] or "",
            f"{study['bytes'] / 1e6:.1f} MB",
        )
    return shown


def _described(project: Project, name: str) -> dict[str, Any]:
    storage = storages.storage(project)
    ledger = Ledger(storage, name)
    states: dict[str, int] = {}
    for trial in ledger.trials:
        states[trial.status] = states.get(trial.status, 0) + 1
    # Ledger would create a confirmation that does not exist.
    names = [other for other in (name, f"{name}{CONFIRMATION}") if other in storages.studies(project)]
    damaged = [line for line in (Ledger(storage, other).damaged_line for other in names) if line]
    finished = [trial.scores[-1] for trial in ledger.trials if trial.state == "finished"]
    return {
        "study": name,
        "trials": len(ledger.trials),
        "states": states,
        "best": max(finished, default=None),
        "created": ledger.about.get("created"),
        "bytes": bytes_of(project.study_folder(name)),
        "damaged_line": min(damaged, default=None),
    }
