"""Checks of the machine and of what is installed. What they look at are arguments, so that tests can give others."""

import getpass
import importlib.util
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.filesize import decimal

from pipeline import config
from pipeline.datasets.disk import free_bytes
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.findings import Finding, Looked, Report, Weight, counted, some
from pipeline.machine import Machine
from pipeline.records import load_meta

OLDEST_PYTHON = (3, 11)
ALMOST_FULL_BYTES = 200_000_000
NVIDIA_SIGNS = (Path("/dev/nvidiactl"), Path("/dev/nvidia0"), Path("/proc/driver/nvidia/version"))


def tools(project: Project, which: Callable[[str], str | None] = shutil.which) -> Report:
    """Whether git, DVC and Python are there for `dvc repro`, and the project is one of git and of DVC."""
    yield Looked(3, "tools")
    home = project.home.resolve()
    repository = next((folder for folder in (home, *home.parents) if (folder / ".git").exists()), None)
    if which("git") is None:
        yield Finding(Weight.ERROR, "git is not installed", "PATH", "install git")
    elif repository is None:
        yield Finding(Weight.ERROR, "the project is in no git repository, without which DVC fails", ".", "git init")
    activate = f"source {shlex.quote(str(Path(sys.executable).parent / 'activate'))}"
    if importlib.util.find_spec("dvc") is None:
        yield Finding(Weight.ERROR, "DVC is not installed", "dvc", "pip install dvc")
    elif which("dvc") is None:
        yield Finding(Weight.ERROR, "`dvc` is not in PATH", "PATH", activate)
    elif not (project.home / ".dvc").is_dir():
        remedy = "dvc init" if repository in (None, home) else "dvc init --subdir"
        yield Finding(Weight.ERROR, "DVC is not initialised", ".dvc", remedy)
    python = which("python")
    if python is None or _prefix(python) != sys.prefix:
        yield Finding(
            Weight.ERROR if python is None else Weight.WARNING,
            "`python`, which the stages of dvc.yaml call, "
            + ("is not in PATH" if python is None else f"is {python}, and this is {sys.executable}"),
            "PATH",
            activate,
        )
    try:
        getpass.getuser()
    except (OSError, KeyError, ImportError):
        yield Finding(Weight.ERROR, "the user has no name, without which DVC fails", "LOGNAME", "export LOGNAME=me")


def versions(
    constraints: Path,
    python: tuple[int, ...] = sys.version_info[:3],
    installed: Callable[[str], str] = version,
) -> Report:
    """Whether Python and the installed packages are those of `constraints`; nothing if there is no such file."""
    if python < OLDEST_PYTHON:
        yield Finding(
            Weight.ERROR,
            f"Python is {'.'.join(map(str, python))}, and {'.'.join(map(str, OLDEST_PYTHON))} is needed",
            sys.executable,
            "make setup PYTHON=python3.12",
        )
    if not constraints.is_file():
        return
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", constraints.read_text(encoding="utf-8"), flags=re.MULTILINE))
    yield Looked(len(pinned), "pinned packages")
    wrong = []
    for name, wanted in pinned.items():
        try:
            found = installed(name)
        except PackageNotFoundError:
            continue
        # What follows + says which build it is, such as cu130.
        if found != wanted and found.partition("+")[0] != wanted:
            wrong.append(f"{name} {found} (pinned: {wanted})")
    if wrong:
        yield Finding(
            Weight.WARNING,
            f"{counted(len(wrong), 'package has', 'packages have')} another version than {constraints.name}: "
            f"{some(wrong)}",
            str(constraints),
            shlex.join(
                ["pip", "install", "--constraint", str(constraints), "--editable", f"{constraints.parent}[dev]"]
            ),
        )


def constraints_of(project: Project) -> Path:
    """constraints.txt of the project or, as an example has none, of the folder that this package lies in."""
    places = (project.home, Path(__file__).parents[2])
    return next((path for place in places if (path := place / "constraints.txt").is_file()), places[0])


def gpu(is_there: bool, machine: Machine, torch_version: str, environment: Mapping[str, str] = os.environ) -> Report:
    """Whether PyTorch sees the NVIDIA GPU that the machine seems to have (`nvidia_is_there`)."""
    if not is_there:
        return
    yield Looked(1, "GPU")
    if machine.cuda_devices:
        return
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        what, remedy = f" (CUDA_VISIBLE_DEVICES is '{hidden}')", "unset CUDA_VISIBLE_DEVICES"
    elif torch_version.endswith("+cpu"):
        base = torch_version.removesuffix("+cpu")
        what, remedy = f" (PyTorch is {torch_version}, without CUDA)", f"pip install --force-reinstall torch=={base}"
    else:
        what, remedy = "", 'python -c "import torch; torch.cuda.init()" says why; often the driver is too old for it'
    yield Finding(Weight.WARNING, f"the machine has an NVIDIA GPU that PyTorch does not see{what}", "GPU", remedy)


def nvidia_is_there(signs: tuple[Path, ...] = NVIDIA_SIGNS) -> bool:
    """Whether there are signs of an NVIDIA GPU and its driver."""
    return any(sign.exists() for sign in signs) or shutil.which("nvidia-smi") is not None


def disk(project: Project, free: int | None = None) -> Report:
    """Whether there is space for what the data and the checkpoints of a search may still take."""
    yield Looked(1, "disk")
    free = free_bytes(project.home) if free is None else free
    needed = _data_bytes(project) + _checkpoint_bytes(project)
    if free < ALMOST_FULL_BYTES:
        what = f"the disk is full but for {decimal(free)}"
        yield Finding(Weight.ERROR, what, str(project.home), "free some space; `dvc gc --workspace` empties its cache")
    elif free < needed:
        yield Finding(
            Weight.WARNING,
            f"{decimal(free)} are free; the data and the checkpoints of a search may take {decimal(needed)} more",
            str(project.home),
            "free some space (`dvc gc --workspace`), or lower tune.checkpoints_gb",
        )


def writable(
    project: Project, access: Callable[[Path, int], bool] = lambda path, mode: os.access(path, mode)
) -> Report:
    """Whether the folders and files that commands write to can be written."""
    home = project.home
    folders = {project.root, home, project.data, project.root / "results", project.checkpoints, project.outbox}
    folders |= {project.artifacts, home / ".studies", project.downloads, home / ".dvc", home / ".dvc" / "tmp"}
    files = {project.mlflow_database, project.optuna_journal, project.dvc_lock, project.metrics, project.params}
    there = [path for path in sorted(folders | files) if path.exists()]
    yield Looked(len(there), "writable files and folders")
    if closed := [path for path in there if not access(path, os.W_OK | (os.X_OK if path.is_dir() else 0))]:
        names = [str(path.relative_to(home)) if path.is_relative_to(home) else str(path) for path in closed]
        yield Finding(
            Weight.ERROR,
            f"{some(names)} can't be written",
            names[0],
            f"chmod -R u+w {shlex.join(names)}, or sudo chown -R $USER {shlex.join(names)}",
        )


def _prefix(python: str) -> str | None:
    """The environment of a Python, which its path does not always tell: pyenv has a script there."""
    try:
        done = subprocess.run(
            [python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip()


def _data_bytes(project: Project) -> int:
    """Of the arrays, once in data/ and once in DVC's cache, as far as they are not there."""
    try:
        meta = load_meta(project.meta)
    except PipelineError:
        return 0
    size = sum(meta.counts.values()) * (math.prod(meta.shape) + 8)
    return size * (not project.training_data.exists()) + size * (not (project.home / ".dvc" / "cache").exists())


def _checkpoint_bytes(project: Project) -> int:
    """Of the trials of a search: twice the weights, the optimizer's state and averaged weights, up to the limit."""
    try:
        tune = config.load(project.params).tune
        weights = project.model.stat().st_size
    except (OSError, PipelineError):
        return 0
    if tune.checkpoints:
        return 0  # they are elsewhere
    used = sum(path.stat().st_size for path in project.home.glob(".studies/*/*/*/checkpoint*"))
    return max(0, int(min(tune.checkpoints_gb * 1e9, tune.trials * 6 * weights)) - used)
