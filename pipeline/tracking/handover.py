"""Hands a stage's records over to the sending process, a detached `python -m pipeline.tracking --serve`.

Importing MLflow, connecting to its store and making a model of a network take seconds each. A stage waits for none of
it. The sending process serves the stages of a `dvc repro` one after the other and ends when nothing comes for a while.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.files import Project
from pipeline.tracking.parts import Parts
from pipeline.tracking.store import Store
from pipeline.tracking.timing import Timing


class Handover:
    """Records on disk, and sees to it that the sending process runs."""

    def __init__(self, project: Project, store: Store, timing: Timing) -> None:
        self._project, self._store, self._timing = project, store, timing
        self._parts: list[Parts] = []

    def open(self, folder: Path, **opening: Any) -> Parts:
        """The records of a run, whose outbox would be `folder`. Raises Held, TrackingError."""
        parts = Parts(folder, self._timing.holder_s, **opening)
        self._parts.append(parts)
        serve_in_background(self._project, self._store)
        return parts

    def close(self) -> str:
        """Hands over the rest. Returns what the sending process could not do so far, as sentences."""
        if not self._parts:
            return ""
        for parts in self._parts:
            parts.close()
        said = _complaints(self._project, self._store)
        serve_in_background(self._project, self._store)
        return said


def serve_in_background(project: Project, store: Store) -> None:
    """Starts the sending process unless it runs. It outlives this process."""
    # It looks once more after it has released its lock: what was recorded before this line is seen by one of both.
    if is_served(project, store):
        return
    # Not the folder of the stage: that of `dvc exp run --temp` is deleted when the stages are done.
    environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    with _log(project, store).open("wb") as log:
        subprocess.Popen(
            [sys.executable, "-m", "pipeline.tracking", "--serve"],
            cwd=project.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def is_served(project: Project, store: Store) -> bool:
    """Whether the sending process runs."""
    try:
        with serving(project, store).acquire(timeout=0):
            return False
    except Timeout:
        return True


def serving(project: Project, store: Store) -> FileLock:
    """The lock of the process that sends to the store, of which there is one."""
    project.outbox.mkdir(parents=True, exist_ok=True)
    return FileLock(project.outbox / f"{store.id}.serving")


def _complaints(project: Project, store: Store) -> str:
    """What the last sending process printed: nothing if all went well."""
    try:
        return _log(project, store).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


def _log(project: Project, store: Store) -> Path:
    return project.outbox / f"{store.id}.log"
