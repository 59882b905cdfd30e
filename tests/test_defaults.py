"""What DVC reruns when a default changes, and when a key is named with the value that it has anyway."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import REPOSITORY

from pipeline import config

STUB = """
import pathlib, time
import ruamel.yaml

for out in ruamel.yaml.YAML(typ="safe", pure=True).load(open("dvc.yaml"))["stages"]["STAGE"]["outs"]:
    path = pathlib.Path(out if isinstance(out, str) else next(iter(out)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{time.time_ns()}")
pathlib.Path("metrics.json").write_text("{}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("project", [".", "examples/digits"])
def test_dvc_reruns_what_a_changed_default_concerns_and_nothing_for_a_key_that_is_only_named(
    tmp_path: Path, project: str
) -> None:
    code, root = tmp_path / "code", tmp_path / "project"
    shutil.copytree(REPOSITORY / "pipeline", code / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    if project == ".":
        (root / "pipeline").symlink_to(code / "pipeline")
    # Trainings take too long here: each stage but the first is replaced by one that writes something new into its outs.
    text = (REPOSITORY / project / "dvc.yaml").read_text()
    stages = ("download", "train", "evaluate", "report")
    for stage in stages:
        text = text.replace(f"cmd: python -m pipeline.{stage}", f"cmd: python {stage}_stub.py")
        (root / f"{stage}_stub.py").write_text(STUB.replace("STAGE", stage))
    (root / "dvc.yaml").write_text(text)
    (root / "params.yaml").write_text("# Short.\ndata:\n  name: digits\nmodel: {width: 64}\n")
    environment = {
        **os.environ,
        "PYTHONPATH": str(code),
        "PYTHONDONTWRITEBYTECODE": "1",
        **{f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def reran() -> list[str]:
        return re.findall(r"^Running stage '(?!config)(\w+)'", run(sys.executable, "-m", "dvc", "repro"), re.MULTILINE)

    run("git", "init", "--quiet")
    assert reran() == [*stages]
    run("git", "add", "--all")
    run("git", "commit", "--quiet", "--message", "first")

    run(sys.executable, "-m", "pipeline.config", "--fill", "model")
    run(sys.executable, "-m", "pipeline.config", "--set", "evaluate.tta=none")
    assert reran() == []

    schema = code / "pipeline" / "config" / "schema.py"
    before = schema.read_text()
    schema.write_text(re.sub(r"(\n    ema: .*) = 0\.95\n", r"\1 = 0.75\n", before))
    assert schema.read_text() != before
    if project != ".":  # the code is no dependency of an example
        assert reran() == []
        run(sys.executable, "-m", "dvc", "repro", "--quiet", "--force", "--single-item", "config")
    assert reran() == ["train", "evaluate", "report"]
    difference = run(sys.executable, "-m", "dvc", "params", "diff")
    assert re.search(r"results/config/defaults\.yaml +train\.ema +0\.95 +0\.75", difference)

    # DVC refuses `-S train.ema=0.5`, as the file does not name the key.
    run(sys.executable, "-m", "dvc", "exp", "run", "--quiet", "--set-param", "++train.ema=0.5")
    assert config.load(root / "params.yaml").train.ema == 0.5
    assert config.read_yaml(root / "results" / "config" / "train.yaml")["ema"] == 0.5
    assert "ema" not in config.read_yaml(root / "results" / "config" / "defaults.yaml")["train"]
