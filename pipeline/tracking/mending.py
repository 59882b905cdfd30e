"""What the doctor corrects with --fix: addresses of artifacts, runs that nobody ends, locks. Each says what it did."""

import contextlib
import re
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from pipeline.errors import PipelineError, TrackingError
from pipeline.files import Project, atomic_write
from pipeline.findings import counted
from pipeline.outcome import Outcome
from pipeline.tracking import internals
from pipeline.tracking.outbox import Outbox, sweep
from pipeline.tracking.store import Store
from pipeline.tracking.tracker import Tracker

SEND = "python -m pipeline.tracking"
PATH_LINE = re.compile(r"^artifact_path: (.*)$", re.MULTILINE)
"""Of a file MLmodel."""


def relocate(project: Project, old: Path, written: Collection[str]) -> str:
    """Makes all addresses below `old` those of the project's own folder; keeps a copy of the database.

    `written` are the forms in which the database writes `old`.
    """
    file, own = project.mlflow_database, project.artifacts.resolve()
    backup = file.with_name(f"{file.name}.before-{datetime.now():%Y%m%d-%H%M%S-%f}")
    try:
        with FileLock(f"{file}.lock", timeout=20):
            with (
                atomic_write(backup) as aside,
                contextlib.closing(sqlite3.connect(file, timeout=20)) as source,
                contextlib.closing(sqlite3.connect(aside)) as target,
            ):
                source.backup(target)
            for form in {old.as_uri(), str(old), *written}:
                internals.relocate_artifacts(file, form, own.as_uri() if form.startswith("file:") else str(own))
    except sqlite3.Error as error:
        raise TrackingError(f"{file} can't be changed ({error}).") from error
    return f"mlflow.db names {own} in place of {old}; the database as it was is {backup.name}"


def rewrite(files: Sequence[Path]) -> str:
    """Makes the address in MLmodel files that of the folder where they lie."""
    for file in files:
        head, _, rest = PATH_LINE.split(file.read_text(encoding="utf-8"), maxsplit=1)
        with atomic_write(file) as aside:
            aside.write_text(f"{head}artifact_path: {file.parent.resolve().as_uri()}{rest}", encoding="utf-8")
    return f"{counted(len(files), 'MLmodel file names', 'MLmodel files name')} the folder where the model lies"


def end(project: Project, experiments: Mapping[str, str]) -> str:
    """Ends runs as interrupted, by records like those that a process would have left."""
    own, store = Store.of(project, {}), Store.of(project)
    for key, experiment in experiments.items():
        target = Store(own.uri, experiment, own.home)
        outbox = Outbox(project.outbox / f"{key}@{target.id}", wait_s=0)
        outbox.append("open", key=key, name=None, parent=None, store=str(target), experiment=experiment)
        outbox.append("finish", ended=Outcome.INTERRUPTED.value)
        outbox.close()
    done = f"{counted(len(experiments), 'run')} recorded as interrupted"
    if not store.is_own or {store.experiment} != set(experiments.values()):
        return f"{done}: `{SEND}` sends that"
    with Tracker(project) as tracker:
        tracker.send_leftovers()
    if tracker.unsent:
        raise PipelineError(f"{done}, which MLflow did not take yet: `{SEND}` sends that.")
    return done


def sweep_locks(project: Project, count: int) -> str:
    """Deletes the locks of outboxes that are gone."""
    sweep(project.outbox)
    return f"{counted(count, 'lock')} of outboxes that are gone: deleted"
