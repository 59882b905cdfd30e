"""Checks of MLflow's database and of the outbox, for `python -m pipeline.doctor`. They change nothing.

`Tracker` corrects the addresses of its own experiment when it connects (experiment.py). Until then, and in all other
experiments, MLflow looks for artifacts where the project was.
"""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from pipeline.errors import TrackingError
from pipeline.files import Project, is_locked
from pipeline.findings import FIX, Finding, Looked, Report, Weight, counted, some
from pipeline.tracking import internals, mending
from pipeline.tracking.outbox import PART, kept, lock_path
from pipeline.tracking.store import Store

T = TypeVar("T")

_THINGS = {"runs": "run", "logged_models": "model", "model_versions": "registered version", "experiments": "experiment"}


@dataclass(frozen=True)
class _Folder:
    """A folder `mlruns` that MLflow's database names and that is not the project's."""

    path: Path
    addresses: frozenset[str]
    """Of the folder, as the database writes it: a path, a URL."""
    counts: Mapping[str, int]
    """What it should hold, by table."""
    is_here: bool
    """Whether something of it lies in the project's own folder."""

    @property
    def content(self) -> str:
        held = [counted(self.counts[table], thing) for table, thing in _THINGS.items() if self.counts.get(table)]
        return " and ".join(held[:2]) or "its experiments"


def database(project: Project) -> Report:
    """Whether MLflow's database can be read and is there where its artifacts are, and the environment names a store."""
    file, artifacts = project.mlflow_database, project.artifacts
    if not file.exists():
        if found := [folder.name for folder in artifacts.glob("*") if folder.is_dir()]:
            yield Finding(
                Weight.WARNING,
                f"mlruns/ has artifacts of {some(found)}, but mlflow.db, which names them, is missing",
                "mlflow.db",
                "put mlflow.db back from a copy; without one `dvc repro -f train` records the training again",
            )
    else:
        yield Looked(1, "database")
        if damage := _damage(file):
            yield Finding(
                Weight.ERROR,
                f"MLflow's database is damaged ({damage})",
                "mlflow.db",
                "put a copy of mlflow.db from before in its place",
            )
            return
    try:
        Store.of(project)
    except TrackingError as error:
        yield Finding.of(error, "MLFLOW_TRACKING_URI")


def artifacts(project: Project) -> Report:
    """Addresses of artifacts that lead out of a project that was moved or copied, and artifacts that are missing."""
    addresses = _ask(project, internals.artifact_addresses)
    certain = _ask(project, internals.kept_artifacts)
    if addresses is None or certain is None:
        return
    yield Looked(len(addresses), "artifact addresses")
    elsewhere = _elsewhere(project, addresses)
    for folder in elsewhere:
        if folder.is_here:
            copied = " (a copy: the original is still there)" if folder.path.is_dir() else ""
            yield Finding(
                Weight.ERROR,
                f"MLflow looks for the artifacts of {folder.content} in {folder.path}, where the project was{copied}",
                "mlflow.db",
                FIX,
                partial(mending.relocate, project, folder.path, folder.addresses),
            )
        elif folder.path.is_dir():
            yield Finding(
                Weight.WARNING,
                f"the artifacts of {folder.content} lie outside of the project, in {folder.path}",
                "mlflow.db",
                f"cp -r {quote(str(folder.path))} . && {FIX}",
            )
        else:
            yield Finding(
                Weight.ERROR,
                f"the artifacts of {folder.content} are missing: neither {folder.path} nor the project has them",
                "mlruns",
                f"copy mlruns/ from where the project was, then {FIX}",
            )
    out = {address for folder in elsewhere for root in folder.addresses for _, address in certain if _in(address, root)}
    missing = [
        name
        for name, address in certain
        if address not in out and (path := _path(address)) is not None and not path.exists()
    ]
    if missing:
        yield Finding(
            Weight.ERROR,
            f"the files of {counted(len(missing), 'run or model', 'runs and models')} are missing, such as of "
            f"{missing[0]}",
            "mlruns",
            "put mlruns/ back from a copy; without one `dvc repro -f train` makes the model again",
        )


def model_files(project: Project) -> Report:
    """MLmodel files with the address of another folder. MLflow loads such models, as it goes by its database."""
    found = list(project.artifacts.glob("*/models/*/artifacts/MLmodel"))
    if found:
        yield Looked(len(found), "MLmodel files")
    wrong = []
    for file in found:
        with contextlib.suppress(OSError):
            match = mending.PATH_LINE.search(file.read_text(encoding="utf-8"))
            path = _path(match[1]) if match else None
            if path is not None and path.resolve() != file.parent.resolve():
                wrong.append(file)
    if wrong:
        yield Finding(
            Weight.NOTE,
            f"{counted(len(wrong), 'MLmodel file names', 'MLmodel files name')} a folder where the model does not lie",
            str(wrong[0].relative_to(project.home)),
            FIX,
            partial(mending.rewrite, wrong),
        )


def open_runs(project: Project) -> Report:
    """Runs that MLflow shows as running although nobody trains them."""
    if (running := _ask(project, internals.running)) is None:
        return
    yield Looked(len(running), "open runs")
    store = Store.of(project, {})
    recorded, lost = [], {}
    for key, name, experiment in running:
        store_id = Store(store.uri, experiment, store.home).id
        folder = project.outbox / f"{key}@{store_id}"
        records = [folder, *project.outbox.glob(f"{folder.name}{PART}*")]
        if any(is_locked(lock_path(part)) for part in records if not part.name.endswith(".lock")):
            continue
        if not any(part.is_dir() for part in records):
            lost[key] = (name, experiment)
        elif not is_locked(project.outbox / f"{store_id}.serving"):  # else its end is on the way
            recorded.append(name)
    if lost:  # some may have ended, and their records may be gone, since MLflow was asked
        still = {key for key, _, _ in _ask(project, internals.running) or ()}
        lost = {key: run for key, run in lost.items() if key in still}
    if recorded:
        yield Finding(
            Weight.WARNING,
            f"{counted(len(recorded), 'run is', 'runs are')} shown as running and nobody trains: {some(recorded)}",
            "mlflow.db",
            mending.SEND,
        )
    if lost:
        names = [name for name, _ in lost.values()]
        yield Finding(
            Weight.WARNING,
            f"{counted(len(lost), 'run is', 'runs are')} shown as running, and the process is gone with all of its "
            f"records in .outbox/: {some(names)}",
            "mlflow.db",
            FIX,
            partial(mending.end, project, {key: experiment for key, (_, experiment) in lost.items()}),
        )


def unsent(project: Project) -> Report:
    """Records that MLflow has not received and that no living process sends."""
    outboxes = kept(project.outbox)
    if outboxes:
        yield Looked(len(outboxes), "outboxes")
    by_store: Counter[tuple[str, str]] = Counter()
    for outbox in outboxes:
        content, store_id = outbox.opening.content, outbox.folder.name.partition("@")[2].partition(PART)[0]
        is_served = is_locked(project.outbox / f"{store_id}.serving")
        if not is_served and not is_locked(lock_path(outbox.folder)):
            by_store[content["store"], content["experiment"]] += max(outbox.waiting, 1)
    for (store, experiment), count in by_store.items():
        own = store == project.mlflow_database.name
        variables = "" if own else f"MLFLOW_TRACKING_URI={quote(store)} "
        variables += "" if experiment == "pipeline" else f"MLFLOW_EXPERIMENT_NAME={quote(experiment)} "
        yield Finding(
            Weight.WARNING,
            f"{counted(count, 'record')} of runs wait to be sent to {store}",
            project.outbox.name,
            f"{variables}{mending.SEND}",
        )
    if any(is_locked(lock) for lock in project.outbox.glob("*.serving")):
        return  # the locks are those of runs that are being sent
    empty = [lock for lock in project.outbox.glob("*@*.lock") if not lock.with_suffix("").exists()]
    if empty := [lock for lock in empty if not is_locked(lock)]:
        yield Finding(
            Weight.NOTE,
            f"{counted(len(empty), 'lock')} of outboxes that are gone",
            project.outbox.name,
            FIX,
            partial(mending.sweep_locks, project, len(empty)),
        )


def recorded_keys(project: Project) -> dict[str, str] | None:
    """The names of the runs in the project's own database, by key; None if it is not the store, or can't be read."""
    try:
        return _ask(project, internals.keys) if Store.of(project).is_own else None
    except TrackingError:
        return None


def _damage(database: Path) -> str:
    """What is wrong with a database; empty if nothing is."""
    try:
        with internals.snapshot(database) as connection:
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if answer == "ok" else str(answer).splitlines()[0]


def _ask(project: Project, question: Callable[[sqlite3.Connection], T]) -> T | None:
    """The database's answer; None if there is none or it can't be read, which `database` reports."""
    if not project.mlflow_database.is_file():
        return None
    try:
        with internals.snapshot(project.mlflow_database) as connection:
            return question(connection)
    except sqlite3.Error:
        return None


def _path(address: str) -> Path | None:
    """The local path of an address; None for one of a server or a cloud."""
    if address.startswith("file://"):
        return Path(unquote(urlsplit(address).path))
    return Path(address) if address.startswith("/") else None


def _in(address: str, folder: str) -> bool:
    return f"{address}/".startswith(f"{folder}/")


def _elsewhere(project: Project, addresses: list[tuple[str, str]]) -> list[_Folder]:
    """The folders mlruns, beside the project's own, that MLflow's database names."""
    own = project.artifacts.resolve()
    roots: dict[Path, set[str]] = {}
    counts: dict[Path, Counter[str]] = {}
    here: set[Path] = set()
    for table, address in addresses:
        path = _path(address)
        if path is None or path.resolve().is_relative_to(own):
            continue
        # The last one: a project may lie below another folder of that name.
        root, found, rest = address.rpartition("/mlruns/")
        if not found:
            continue
        place = _path(f"{root}/mlruns")
        assert place is not None
        roots.setdefault(place, set()).add(f"{root}/mlruns")
        counts.setdefault(place, Counter())[table] += 1
        if (own / unquote(rest).partition("/")[0]).is_dir() or (own / rest.partition("/")[0]).is_dir():
            here.add(place)
    return [_Folder(place, frozenset(roots[place]), counts[place], place in here) for place in roots]
