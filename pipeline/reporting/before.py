"""Results of another commit: from git, and what git does not keep from DVC's cache."""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import records
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.records import Metrics

MOST_COMMITS = 20
"""With a metrics.json, that are looked through for one that differs."""


@dataclass(frozen=True)
class Before:
    """The figures of an earlier commit."""

    commit: str
    """Short."""
    subject: str
    metrics: Metrics


def previous(project: Project) -> Before | None:
    """The last commit whose metrics.json differs from the one on disk; None without git or such a commit."""
    listed = _git(project.root, "log", f"-{MOST_COMMITS}", "--format=%h %s", "--", "metrics.json")
    if not listed or not project.metrics.exists():
        return None
    current = project.metrics.read_bytes()
    for line in listed.decode(errors="replace").splitlines():
        commit, _, subject = line.partition(" ")
        content = _git(project.root, "show", f"{commit}:./metrics.json")
        if content and content.split() != current.split() and (metrics := _metrics(content)):
            return Before(commit, subject, metrics)
    return None


def file_at(project: Project, revision: str, name: str) -> bytes | None:
    """A file of the project as it was at a revision: as git has it, or as DVC's cache has it; None if neither does."""
    if (content := _git(project.root, "show", f"{revision}:./{name}")) is not None:
        return content
    lock = _git(project.root, "show", f"{revision}:./dvc.lock")
    place = rf"^\s*- path: {re.escape(name)}\n(?:\s+hash: md5\n)?\s+md5: ([0-9a-f]{{32}})$"
    if lock and (found := re.search(place, lock.decode(errors="replace"), flags=re.MULTILINE)):
        cached = project.home / ".dvc" / "cache" / "files" / "md5" / found[1][:2] / found[1][2:]
        return cached.read_bytes() if cached.is_file() else None
    return None


def is_revision(project: Project, name: str) -> bool:
    return _git(project.root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}") is not None


def _metrics(content: bytes) -> Metrics | None:
    """None for those of a version that had other figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.json"
        path.write_bytes(content)
        try:
            return records.read(Metrics, path, stage="evaluate")
        except PipelineError:
            return None


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None if it fails or is not there."""
    command: Sequence[str] = ("git", "-C", str(folder), *arguments)
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
