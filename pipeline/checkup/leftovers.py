"""Checks for files that killed processes have left."""

import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from pipeline.datasets.arrays import UNPACKED
from pipeline.files import Project
from pipeline.findings import FIX, Finding, Looked, Report, Weight, counted, some

QUIET_S = 60.0
"""A file that has not changed for so long is not being written: its process may run on another machine."""
_PART = re.compile(r"\..+\.(\d+)\.part")


def leftovers(project: Project, now: float | None = None) -> Report:
    """Files that `atomic_write` had not moved into place, and temporary folders."""
    now = time.time() if now is None else now
    home = project.home
    folders = [project.data, project.root / "results", project.checkpoints, home / ".studies", project.outbox]
    found = [*home.glob(".*.part"), *(part for folder in folders for part in folder.rglob(".*.part"))]
    yield Looked(len(found), "partial files") if found else Looked(1 + len(folders), "folders")
    parts = [path for path in found if _is_dead(path) and _is_quiet(path, now)]
    parts += [path for path in home.glob("mlflow.db.part*") if _is_quiet(path, now)]
    temporary = [*project.data.glob(f"{UNPACKED}*"), *(home / ".studies").glob("*/*/*/mlflow-model")]
    temporary = [path for path in temporary if _is_quiet(path, now)]
    for paths, thing in ((parts, "partial file"), (temporary, "temporary folder")):
        if paths:
            names = [str(path.relative_to(home)) for path in paths]
            yield Finding(
                Weight.NOTE,
                f"{counted(len(paths), thing)} of processes that are gone ({_size(paths)}): {some(names)}",
                names[0],
                FIX,
                partial(_delete, paths, thing),
            )
    if stopped := [path for path in project.checkpoints.glob("train-*") if _is_quiet(path, now)]:
        yield Finding(
            Weight.NOTE,
            f"checkpoints of {counted(len(stopped), 'training')} that did not end ({_size(stopped)})",
            project.checkpoints.name,
            f"dvc repro resumes the one of params.yaml; rm -r {project.checkpoints.name} gives them up",
        )


def of_dvc(project: Project, now: float | None = None) -> Report:
    """What a DVC that was killed has left: a damaged lock, copies that experiments ran in."""
    now = time.time() if now is None else now
    folder = project.home / ".dvc" / "tmp"
    lock = folder / "rwlock"
    if _holders(lock) is None:
        yield Finding(
            Weight.ERROR,
            "the file in which DVC notes who reads and writes is damaged: no command of DVC works",
            str(lock.relative_to(project.home)),
            f"rm {lock.relative_to(project.home)}, when no DVC is running",
        )
    # DVC itself removes the entries of dead processes from its lock, but not their copies of the project.
    copies = [*folder.glob("exps/tmp*"), *folder.glob("exps/standalone/tmp*")]
    if copies:
        yield Looked(len(copies), "copies for experiments")
    dead = [
        path
        for path in copies
        if _is_quiet(path, now)
        and (pids := _holders(path / ".dvc" / "tmp" / "rwlock"))
        and all(_is_gone(pid) for pid in pids)
    ]
    if dead:
        names = shlex.join(str(path.relative_to(project.home)) for path in dead)
        yield Finding(
            Weight.NOTE,
            f"{counted(len(dead), 'copy', 'copies')} of the project for experiments that were killed ({_size(dead)})",
            str(dead[0].relative_to(project.home)),
            f"rm -r {names}",
        )


def _holders(rwlock: Path) -> set[int] | None:
    """The numbers of the processes in a lock of DVC's; None if it is damaged."""
    try:
        content = json.loads(rwlock.read_bytes())
        infos = [*content.get("write", {}).values()]
        infos += [info for readers in content.get("read", {}).values() for info in readers]
        return {int(info["pid"]) for info in infos}
    except FileNotFoundError:
        return set()
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _is_dead(path: Path) -> bool:
    """Whether no process of this machine has the number in the file's name."""
    match = _PART.fullmatch(path.name)
    return match is not None and _is_gone(int(match[1]))


def _is_gone(pid: int) -> bool:
    """Whether no process of this machine has that number."""
    if sys.platform == "win32":  # where os.kill would end the process
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False


def _is_quiet(path: Path, now: float) -> bool:
    """Whether neither the path nor anything below it has changed lately."""
    return all(now - changed > QUIET_S for changed in _times(path))


def _times(path: Path) -> Iterable[float]:
    for one in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            yield one.stat().st_mtime


def _size(paths: Iterable[Path]) -> str:
    total = 0
    for path in paths:
        for one in (path, *path.rglob("*")):
            with suppress(FileNotFoundError):
                total += one.stat().st_size if one.is_file() else 0
    return f"{total / 1e6:,.1f} MB"


def _delete(paths: list[Path], thing: str) -> str:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return f"{counted(len(paths), thing)} deleted"
