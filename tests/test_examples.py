"""The project folders of examples/, beside digits, which other tests use throughout."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import REPOSITORY

from pipeline import config
from pipeline.config import Config, Scalar
from pipeline.search.space.space import Space

DIGITS = REPOSITORY / "examples" / "digits"
ADAM: dict[str, Scalar] = {
    "data.name": "cifar10",
    "augment.policy": "crop_flip",
    "train.optimizer": "adam",
    "train.learning_rate": 0.001,
    "train.schedule": "constant",
    "train.weight_decay": 0.0,
    "train.epochs": 20,
}
PINNED: dict[str, dict[str, Scalar]] = {
    "resnet18": ADAM
    | {
        "model.family": "torchvision",
        "model.name": "resnet18",
        "model.stem": "small",
        "train.batch_size": 64,
        "evaluate.batch_size": 100,
    },
    "transfer": ADAM
    | {
        "model.family": "torchvision",
        "model.name": "resnet18",
        "model.weights": "default",
        "model.trained": "all",
        "model.image_size": None,
        "train.batch_size": 128,
    },
    "quick": {
        "data.name": "cifar10",
        "model.family": "speed",
        "model.depth": 8,
        "model.width": 48,
        "augment.policy": "flip",
        "augment.small_side": 0.625,
        "augment.small_until": 0.6,
        "train.optimizer": "muon",
        "train.epochs": 5,
    },
    "accurate": {
        "data.name": "cifar10",
        "model.family": "speed",
        "model.depth": 11,
        "model.width": 64,
        "model.stages": "wide",
        "augment.policy": "crop_flip",
        "augment.padding": 0.0625,
        "augment.padding_mode": "reflect",
        "augment.small_side": 0.625,
        "augment.small_until": 0.31,
        "train.optimizer": "muon",
        "train.validation_share": 0.02,
        "train.batch_size": 500,
        "train.epochs": 13,
    },
    "resnet20": {
        "data.name": "cifar10",
        "model.family": "resnet",
        "model.depth": 20,
        "model.width": 16,
        "model.shortcut": "identity",
        "augment.policy": "crop_flip",
        "train.optimizer": "sgd",
        "train.learning_rate": 0.2,
        "train.schedule": "one_cycle",
        "train.batch_size": 128,
        "train.epochs": 20,
    },
}
"""The values that make each example. Those of the first two are from published reports."""

example = pytest.mark.parametrize("name", PINNED)


def test_every_example_is_tested() -> None:
    assert {path.parent.name for path in (REPOSITORY / "examples").glob("*/params.yaml")} == {*PINNED, "digits"}


@example
def test_an_example_has_the_values_that_it_is_named_for(name: str) -> None:
    values = config.load(REPOSITORY / "examples" / name / "params.yaml").values()
    assert {key: values[key] for key in PINNED[name]} == PINNED[name]


@example
def test_an_example_is_as_short_as_its_idea_and_says_what_each_value_is(name: str) -> None:
    path = REPOSITORY / "examples" / name / "params.yaml"
    content: dict[str, dict[str, Scalar]] = config.read_yaml(path)
    named = {
        f"{section}.{key}": value
        for section, keys in content.items()
        if section not in ("space", "tune", "study")
        for key, value in keys.items()
    }
    defaults = Config().values()
    assert list(named) == [key for key in defaults if key in named]
    # A value that is the default stands there only if the example is named for it.
    assert {key for key, value in named.items() if value == defaults[key]} <= set(PINNED[name])
    lines = [line for line in path.read_text().splitlines() if re.match(r"  \w+:", line)]
    assert all(re.search(r" # .", line) for line in lines)


def test_the_quick_example_is_a_page_of_ten_lines_and_its_space() -> None:
    text = (REPOSITORY / "examples" / "quick" / "params.yaml").read_text()
    assert len([line for line in text.partition("space:")[0].splitlines() if line]) <= 10


@example
def test_an_example_can_be_searched_and_its_grids_begun(name: str) -> None:
    settings = config.load(REPOSITORY / "examples" / name / "params.yaml")
    assert len(Space.of(settings)) > 5
    for study in settings.study:
        assert Space.of(config.grid(settings, study)).size in range(2, 20)


@example
def test_an_example_is_a_project_folder_like_the_digits(name: str) -> None:
    """DVC has no way to share them between folders, and each is to be one that can be copied away."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."],
        cwd=DIGITS,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert len(tracked) == 7
    for file in tracked:
        if file != "params.yaml":
            assert (REPOSITORY / "examples" / name / file).read_bytes() == (DIGITS / file).read_bytes(), file


@example
def test_an_example_says_what_it_is_and_how_it_is_run(name: str) -> None:
    text = (REPOSITORY / "examples" / name / "README.md").read_text(encoding="utf-8")
    assert f"cd examples/{name}\n" in text
    assert "dvc repro" in text
    settings = config.load(REPOSITORY / "examples" / name / "params.yaml")
    for study in settings.study:
        assert f"python -m pipeline.study {study}" in text
    assert len(text.splitlines()) <= 20


@pytest.mark.slow
def test_an_example_runs_by_dvc_repro_on_a_small_folder_of_images(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for colour, label in ((40, "dark"), (200, "bright")):
        for number in range(12):
            path = tmp_path / "images" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(colour - 30, colour + 30, (16, 16, 3), dtype=np.uint8)).save(path)
    root = tmp_path / "resnet18"
    shutil.copytree(REPOSITORY / "examples" / "resnet18", root)
    small: dict[str, Scalar] = {
        "data.name": "folder",
        "data.url": str(tmp_path / "images"),
        "data.image_size": 16,
        "train.epochs": 1,
        "train.device": "cpu",
        "train.threads": 1,
    }
    config.write_values(root / "params.yaml", small)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((root / "metrics.json").read_text())
    with (root / "results" / "evaluate" / "predictions.csv").open(newline="") as file:
        predictions = list(csv.DictReader(file))
    right = sum(row["predicted"] == row["actual"] for row in predictions)
    assert len(predictions) == 4  # a fifth of each class
    assert metrics["evaluate"]["accuracy"] == pytest.approx(right / len(predictions))
    assert "resnet18 on " in (root / "results" / "report" / "index.html").read_text(encoding="utf-8")
    status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    assert not [line for line in status.stdout.splitlines() if "data/" in line or "mlflow.db" in line]
