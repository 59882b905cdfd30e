"""Trains with the code of a recorded commit: in a temporary worktree of the repository, by its own stage train.

A stage's contract is older than any module: params.yaml and data go in, history.csv comes out.
"""

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline import config
from pipeline.config import Scalar
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.records import Epoch


def epochs(project: Project, commit: str, values: Mapping[str, Scalar]) -> list[Epoch]:
    """The epochs of a training of `values` with the code of `commit` on the images of the project.

    All epochs are trained, also of a trial that was pruned. The worktree goes, whatever happens. Raises PipelineError
    outside a git repository, for a commit that it lacks, and if the training fails.
    """
    with _worktree(project, commit) as (tree, place):
        params = place / "params.yaml"
        if not params.is_file():
            raise PipelineError(f"The commit {commit[:12]} has no {place.relative_to(tree) / 'params.yaml'}.")
        content = config.read_yaml(params)
        for name, value in values.items():
            _set(content, name, value)
        params.write_text(config.yaml_text(content), encoding="utf-8")
        (place / "data").symlink_to(project.data, target_is_directory=True)
        environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
        environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{tree.parent / 'mlflow.db'}"
        if (tree / "pipeline" / "__init__.py").is_file():  # else the repository is the user's own, of a project alone
            environment["PYTHONPATH"] = str(tree)
        command = [sys.executable, "-m", "pipeline.train"]
        # Standard output is for the verdict alone.
        if subprocess.run(command, cwd=place, env=environment, stdout=sys.stderr, check=False).returncode:
            raise PipelineError(f"The code of {commit[:12]} did not train these values: its message is above.")
        with (place / "results" / "train" / "history.csv").open(newline="", encoding="utf-8") as file:
            return [_epoch(row) for row in csv.DictReader(file)]


@contextmanager
def _worktree(project: Project, commit: str) -> Iterator[tuple[Path, Path]]:
    """A worktree of the commit, and the folder of the project in it."""
    top = Path(_git(project.root, "rev-parse", "--show-toplevel", problem=f"{project.root} is in no git repository"))
    with tempfile.TemporaryDirectory(prefix="reproduce-", ignore_cleanup_errors=True) as folder:
        tree = Path(folder).resolve() / "tree"
        problem = f"the commit {commit[:12]} is not in this repository: `git fetch` it first"
        _git(top, "worktree", "add", "--quiet", "--detach", str(tree), commit, problem=problem)
        try:
            yield tree, tree / project.root.resolve().relative_to(top.resolve())
        finally:
            _git(top, "worktree", "remove", "--force", str(tree), problem=f"{tree} can't be removed")


def _set(content: dict[str, dict[str, Scalar | dict[str, Scalar]]], name: str, value: Scalar) -> None:
    section, _, key = name.partition(".")
    inside = content.get(section) or {}
    if key.startswith("extra."):
        extra = inside.get("extra")
        inside["extra"] = (extra if isinstance(extra, dict) else {}) | {key.removeprefix("extra."): value}
    else:
        inside[key] = value
    content[section] = inside


def _epoch(row: Mapping[str, str]) -> Epoch:
    figures = {name: float(text) for name, text in row.items() if name != "epoch"}
    return Epoch(number=int(row["epoch"]), **figures)


def _git(folder: Path, *arguments: str, problem: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise PipelineError("--code needs git, which is not installed.") from error
    except subprocess.CalledProcessError as error:
        raise PipelineError(f"--code: {problem} (git: {error.stderr.strip()}).") from error
    return done.stdout.strip()
