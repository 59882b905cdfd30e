"""What a result was made from: the commit, the code, the data, the versions of the libraries, the machine."""

import getpass
import hashlib
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.config import read_yaml
from pipeline.errors import ConfigError
from pipeline.files import Project
from pipeline.records import Provenance

CODE: Mapping[str, tuple[str, ...]] = {
    "config": ("config",),
    "download": ("config/sources.py", "datasets", "download.py", "grouping.py", "machine.py", "records.py"),
    "train": (
        *("batches", "config/families.py", "networks", "training"),
        *("grouping.py", "machine.py", "records.py", "train.py"),
    ),
    "evaluate": (
        *("batches", "config/families.py", "evaluation", "networks", "training"),
        *("evaluate.py", "grouping.py", "machine.py", "records.py"),
    ),
    "report": ("reporting", "fonts.py", "records.py", "report.py"),
}
"""The code below pipeline/ that decides what each stage writes: directories and modules. dvc.yaml has the same lists.

Code that records or shows a result (tracking, exporting, cli) is not listed, because changing it must not retrain. Nor
is what makes values of params.yaml: the values themselves are dependencies, as files that the stage config writes.
"""

PACKAGES = ("pipeline", "torch", "torchvision", "numpy", "mlflow", "dvc", "optuna")

# The pipeline's own outputs say nothing about the code and the values that it ran with.
_OWN_OUTPUTS = ("dvc.lock", "metrics.json", "results")


def collect(project: Project, environment: Mapping[str, str] = os.environ) -> Provenance:
    """The provenance of a result that this process makes in `project`. Imports nothing heavy."""
    commit = _git(project.root, "rev-parse", "--verify", "HEAD")
    # :/ is the whole repository. A project may be a folder inside it and use code from outside that folder.
    paths = (":/", *(f":(exclude){path}" for path in _OWN_OUTPUTS))
    status = _git(project.root, "status", "--porcelain", "--untracked-files=no", "--", *paths)
    return Provenance(
        git_commit=commit,
        git_dirty=None if commit is None or status is None else bool(status),
        dvc_data_hash=_data_hash(project.dvc_lock),
        versions={"python": platform.python_version()} | _versions(),
        platform=platform.platform(),
        host=socket.gethostname(),
        dvc_experiment=environment.get("DVC_EXP_NAME") or None,
    )


def code_digest(stage: str, package: Path = Path(__file__).parent) -> str:
    """SHA-256 of the names and contents of the source files that CODE lists for `stage`, below `package`."""
    digest = hashlib.sha256()
    for name in CODE[stage]:
        path = package / name
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{source.relative_to(package).as_posix()}\n".encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()


def unlisted(project: Project, files: Iterable[Path]) -> list[str]:
    """Those of the files that dvc.yaml does not have among the deps of the stage train: `dvc repro` overlooks them."""
    try:
        listed = [project.root / str(dep) for dep in read_yaml(project.root / "dvc.yaml")["stages"]["train"]["deps"]]
    except (OSError, ConfigError, KeyError, TypeError):
        return []
    return [
        file.relative_to(project.root).as_posix()
        for file in files
        if file.is_relative_to(project.root) and not any(file.is_relative_to(dep) for dep in listed)
    ]


def tags(made_from: Provenance) -> dict[str, str]:
    """A provenance as tags of an MLflow run, including the tags that MLflow's own page shows."""
    found = {
        "git.commit": made_from.git_commit,
        "git.dirty": None if made_from.git_dirty is None else str(made_from.git_dirty).lower(),
        "dvc.data": made_from.dvc_data_hash,
        "dvc.experiment": made_from.dvc_experiment,
        "host": made_from.host,
        "platform": made_from.platform,
        "mlflow.user": _user(),
        "mlflow.source.name": "/".join(Path(sys.argv[0]).parts[-2:]),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": made_from.git_commit,
        "code.train": code_digest("train"),
    }
    found |= {f"version.{package}": number for package, number in made_from.versions.items()}
    return {name: value for name, value in found.items() if value is not None}


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command; None without git, outside a repository, or if git fails."""
    try:
        # Without optional locks, so that it does not block a git command that a person runs meanwhile.
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _data_hash(lock: Path) -> str | None:
    """DVC's hash of data/train; None if dvc.lock is missing or has none."""
    try:
        outs = read_yaml(lock)["stages"]["download"]["outs"]
        return next((str(out["md5"]) for out in outs if out["path"] == "data/train"), None)
    except (OSError, ConfigError, KeyError, TypeError):
        return None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # in a container the user may have no name
        return None
