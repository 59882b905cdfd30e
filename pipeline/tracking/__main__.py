"""Sends records to MLflow that it did not receive, and ends the runs of dead processes as interrupted.

    python -m pipeline.tracking            sends all records that wait for the store that MLFLOW_TRACKING_URI names
    python -m pipeline.tracking --list     lists the runs that wait, and since when

The stages of `dvc repro` wait for no store: a process in the background sends what they record, up to some seconds
longer than they run. Where nothing may run on after the last command, as in a container or a batch job, end with
`python -m pipeline.tracking`: it returns when MLflow has everything.

Runs that wait for another store are left alone. To send them, set MLFLOW_TRACKING_URI (and MLFLOW_EXPERIMENT_NAME, if
it was set) to its value at the time of their recording. The exit code is 1 if something could not be sent.
"""

import argparse
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.cli import guarded
from pipeline.errors import TrackingError
from pipeline.files import Project
from pipeline.tracking import Tracker
from pipeline.tracking.handover import is_served
from pipeline.tracking.outbox import Kept, kept
from pipeline.tracking.serving import serve
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from rich.console import Console


def send(project: Project) -> None:
    """Raises TrackingError if the store can't be used or something was not sent."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    store = Store.of(project)
    console = Console(soft_wrap=True)
    _wait_for_the_background(project, store, console)
    if kept(project.outbox):
        show(project)
    before = kept(project.outbox, store.id)
    if not before:
        print(f"MLflow at {store} has all that was recorded.")
        return
    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TextColumn("operations"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("sending", total=sum(outbox.waiting for outbox in before))
        with Tracker(project, on_sent=lambda: progress.advance(bar)) as tracker:
            held = {outbox.folder: outbox for outbox in tracker.send_leftovers()}
    if handed_over := {folder for folder, outbox in held.items() if outbox.is_handed_over}:
        # The process in the background has started in the meantime and sends them.
        _wait_for_the_background(project, store, console)
        held = {folder: outbox for folder, outbox in held.items() if folder not in handed_over}
    for outbox in held.values():
        print(f"{outbox.key} is left to {outbox.holder}.")
    left = [outbox for outbox in kept(project.outbox, store.id) if outbox.folder not in held]
    if left:
        raise TrackingError(f"Runs that could not be sent whole: {len(left)} of {len(before)}.")
    print(f"MLflow at {store} has all that was recorded.")


def _wait_for_the_background(project: Project, store: Store, console: "Console") -> None:
    """Returns when the process in the background has sent what the stages handed over, or has given up."""
    with console.status("sending in the background", spinner="line"):
        while is_served(project, store) and any(
            outbox.is_handed_over for outbox in kept(project.outbox, store.id, parts=True)
        ):
            time.sleep(0.1)


def show(project: Project) -> None:
    """Prints the runs that wait for this store, and for others."""
    store = Store.of(project)
    mine = kept(project.outbox, store.id)
    others = [outbox for outbox in kept(project.outbox) if outbox not in mine]
    print(f"Runs that wait for {store}, experiment {store.experiment}: {len(mine)}")
    for outbox in mine:
        print(_described(outbox))
    if others:
        print(f"Runs that wait for other stores, which MLFLOW_TRACKING_URI must name to send them: {len(others)}")
    for outbox in others:
        content = outbox.opening.content
        print(f"{_described(outbox)}, for {content['store']}, experiment {content['experiment']}")


def _described(outbox: Kept) -> str:
    since = datetime.fromtimestamp(outbox.opening.time_ms / 1000).isoformat(" ", timespec="seconds")
    return f"  {outbox.key} ({outbox.opening.content['name']}): {outbox.waiting} operations, opened {since}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.tracking",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="list the runs that wait, and send nothing")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)  # what the stages start
    arguments = parser.parse_args(argv)
    work = show if arguments.list else serve if arguments.serve else send
    return guarded(lambda: work(Project.here()))


if __name__ == "__main__":
    raise SystemExit(main())
