"""The sending process: sends what stages record, while they run and after they have ended."""

import os
import time
from contextlib import suppress
from pathlib import Path

from filelock import Timeout

from pipeline.files import Project
from pipeline.tracking.handover import serving
from pipeline.tracking.outbox import kept
from pipeline.tracking.store import Store
from pipeline.tracking.timing import Timing
from pipeline.tracking.tracker import Tracker

LINGER_S = 15.0
"""Seconds that it waits for the next stage, which then finds MLflow imported and the store connected."""
_LOOK_S = 0.2
"""Seconds between two looks at the folder."""
_NICENESS = 5
"""A training that runs meanwhile goes first."""


def serve(project: Project, timing: Timing | None = None, linger_s: float = LINGER_S) -> None:
    """Sends until nothing has waited for `linger_s` seconds and no stage records; ends at once if another one serves.

    It ends too when the store can't be used, or does not answer after the last stage has ended: what is left stays on
    disk. Prints what went wrong. Raises TrackingError if the store can't be used.
    """
    if os.name == "posix":
        os.nice(_NICENESS)
    store = Store.of(project)
    left: set[Path] = set()
    with suppress(Timeout):
        while True:
            with serving(project, store).acquire(timeout=1.0):
                with Tracker(project, timing=timing) as tracker:
                    _send(project, tracker, linger_s)
                left |= tracker.unsent
            # Who recorded in the meantime may have seen the lock held, and left the rest to this process.
            if not kept(project.outbox, store.id, parts=True, known=left):
                return


def _send(project: Project, tracker: Tracker, linger_s: float) -> None:
    tracker.send_leftovers()
    waiting, moved_s = tracker.waiting, time.monotonic()
    while time.monotonic() - moved_s < linger_s and project.outbox.is_dir():
        time.sleep(_LOOK_S)
        being_recorded = tracker.send_leftovers(parts=True)
        before, waiting = waiting, tracker.waiting
        if being_recorded or waiting != before:
            moved_s = time.monotonic()
