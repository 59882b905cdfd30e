"""What DVC trains again after the code was edited, and what it does not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import REPOSITORY


@pytest.mark.slow
def test_an_edited_tracker_trains_nothing_again_and_an_edited_moving_average_does(tmp_path: Path) -> None:
    root = tmp_path / "clone"
    root.mkdir()
    for name in ("pipeline", ".dvc"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(REPOSITORY / name, root)
    params = (REPOSITORY / "examples" / "digits" / "params.yaml").read_text()
    (root / "params.yaml").write_text(params.replace("epochs: 6 ", "epochs: 1 "))
    environment = {**os.environ, "PYTHONPATH": str(root), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def edit(name: str) -> None:
        with (root / "pipeline" / name).open("a") as file:
            file.write("\n# edited\n")

    run("git", "init", "-q")
    run("dvc", "repro", "train")
    assert "up to date" in run("dvc", "status", "train")
    byte_code = root / "pipeline" / "training" / "__pycache__" / "left.pyc"
    byte_code.parent.mkdir(exist_ok=True)
    byte_code.write_bytes(b"of another version of Python")
    edit("tracking/outbox.py")
    edit("reporting/page.py")
    assert "up to date" in run("dvc", "status", "train")
    edit("training/ema.py")
    assert "modified:" in (status := run("dvc", "status", "train"))
    assert "pipeline/training" in status
