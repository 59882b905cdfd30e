"""Tables of real learning curves, for benchmarks/search.py: random configurations, each trained to its end.

    python benchmarks/curves.py crossing --data ARCHIVE --folder work --trials 250
    python benchmarks/curves.py crossing --data ARCHIVE --folder work --trials 40 --seed 1
    python benchmarks/curves.py shipped --data ARCHIVE --folder work --trials 150
    python benchmarks/curves.py digits --folder work --trials 1000

ARCHIVE is cifar-10-python.tar.gz. `crossing` trains on the first 500 images of each class, at half their size, 30 % of
them for validation, in a space whose curves cross: schedules, optimizers and depths that begin badly can end well.
`shipped` has the recipe and the space of the project's params.yaml, on the same images. `digits` searches the space of
`crossing` on the handwritten digits. `resnet20` has the recipe and the space of examples/resnet20, with 8 epochs and
half its widths, on 2,000 images of each class, at half their size.

A table is benchmarks/curves/NAME.csv: the values of a configuration, its seed and the validation accuracy after each
epoch. Its first row has the values that a search begins with. --seed 1 writes NAME-1.csv, with the same configurations
and other seeds: the noise.

--trials is the number of rows wanted. Trainings that end are added to the table, also if the run is stopped; the same
command resumes it, and in a new folder it trains what the table lacks. Hours, on two cores.
"""

import argparse
import csv
import io
import json
import pickle
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from pipeline import config
from pipeline.cli import guarded
from pipeline.errors import PipelineError
from pipeline.files import Project, write_csv
from pipeline.search.studies.epochs import read_epochs
from pipeline.search.studies.options import count

Row: TypeAlias = dict[str, str]
"""Of a table, by the names of its columns."""

TABLES = Path(__file__).parent / "curves"


@dataclass(frozen=True)
class Recipe:
    """What a table's configurations have in common, as in params.yaml."""

    data: Mapping[str, Any]
    space: Mapping[str, Any]
    values: Mapping[str, Mapping[str, Any]]
    per_class: int = 0
    """The first training images of each class of CIFAR-10; 0: other data."""

    @property
    def epochs(self) -> int:
        return int(self.values["train"]["epochs"])

    @property
    def params(self) -> dict[str, Any]:
        tune = {"scheduler": "none", "sampler": "random", "confirm": 0, "models": "none", "retries": 1}
        return {"data": self.data, **self.values, "space": self.space, "tune": tune}


_SMALL_CIFAR = {"name": "folder", "url": "images", "image_size": 16}
_CROSSING = {
    "train.learning_rate": {"low": 1e-4, "high": 0.3, "log": True},
    "train.optimizer": ["adam", "sgd", "muon"],
    "train.batch_size": [32, 64, 128, 256],
    "train.weight_decay": {"low": 1e-5, "high": 0.1, "log": True},
    "train.schedule": ["constant", "one_cycle", "cosine"],
    "train.label_smoothing": {"low": 0.0, "high": 0.3},
    "augment.policy": ["none", "flip", "crop_flip"],
    "model.depth": {"low": 8, "high": 20, "step": 6},
    "model.width": [4, 8, 12],
}
_PLAIN: dict[str, dict[str, Any]] = {
    "model": {"family": "resnet", "depth": 8, "width": 8},
    "augment": {"policy": "flip", "flip": "random", "padding": 0.125, "small_side": 1},
    "train": {
        "epochs": 8,
        "batch_size": 64,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "constant",
        "warmup": 0.25,
        "ema": 0,
        "label_smoothing": 0,
        "validation_share": 0.3,
    },
}
_SHIPPED = {
    "train.learning_rate": {"low": 0.03, "high": 0.5, "log": True},
    "train.batch_size": [250, 500, 1000],
    "train.weight_decay": {"low": 0.01, "high": 0.5, "log": True},
    "train.label_smoothing": {"low": 0.0, "high": 0.3},
    "model.depth": {"low": 5, "high": 11, "step": 3},
    "model.width": [32, 48, 64],
    "augment.policy": ["flip", "crop_flip", "crop_flip_cutout"],
    "augment.cutout": {"low": 0.25, "high": 0.6, "when": {"augment.policy": ["crop_flip_cutout"]}},
}
_SPEED: dict[str, dict[str, Any]] = {
    "model": {"family": "speed", "depth": 8, "width": 48},
    "augment": {"policy": "crop_flip"},
    "train": {
        "epochs": 10,
        "batch_size": 500,
        "optimizer": "muon",
        "learning_rate": 0.12,
        "momentum": 0.85,
        "weight_decay": 0.1,
        "schedule": "wsd",
        "ema": 0.95,
        "label_smoothing": 0.2,
        "validation_share": 0.3,
    },
}
_RESNET20: dict[str, dict[str, Any]] = {
    "model": {"family": "resnet", "depth": 20, "width": 8},
    "augment": {"policy": "crop_flip", "flip": "random", "padding": 0.125, "small_side": 1},
    "train": {
        "epochs": 8,
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.2,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "one_cycle",
        "warmup": 0.25,
        "ema": 0,
        "label_smoothing": 0,
        "validation_share": 0.3,
    },
}
_AROUND_RESNET20 = {
    "train.learning_rate": {"low": 0.02, "high": 0.8, "log": True},
    "train.batch_size": [64, 128, 256],
    "train.weight_decay": {"low": 5e-5, "high": 5e-3, "log": True},
    "train.label_smoothing": {"low": 0.0, "high": 0.2},
    "model.depth": {"low": 8, "high": 32, "step": 6},
    "model.width": [4, 8, 12],
    "augment.policy": ["flip", "crop_flip", "crop_flip_cutout"],
    "augment.cutout": {"low": 0.25, "high": 0.6, "when": {"augment.policy": ["crop_flip_cutout"]}},
}
RECIPES = {
    "crossing": Recipe(_SMALL_CIFAR, _CROSSING, _PLAIN, per_class=500),
    "shipped": Recipe(_SMALL_CIFAR, _SHIPPED, _SPEED, per_class=500),
    "resnet20": Recipe(_SMALL_CIFAR, _AROUND_RESNET20, _RESNET20, per_class=2000),
    "digits": Recipe({"name": "digits"}, _CROSSING, _PLAIN),
}


def write_images(archive: Path, folder: Path, per_class: int) -> None:
    """The first images of each class as PNG files: train/CLASS/NUMBER.png; and a hundred of each of the test set."""
    counts: Counter[tuple[str, int]] = Counter()
    with tarfile.open(archive) as opened:
        names = pickle.load(_member(opened, "batches.meta"), encoding="latin1")["label_names"]
        for part, most, members in (
            ("train", per_class, [f"data_batch_{number}" for number in range(1, 6)]),
            ("test", 100, ["test_batch"]),
        ):
            for member in members:
                batch = pickle.load(_member(opened, member), encoding="latin1")
                for pixels, label in zip(batch["data"], batch["labels"], strict=True):
                    if counts[part, label] < most:
                        path = folder / part / names[label] / f"{counts[part, label]:04}.png"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        image = np.asarray(pixels, dtype=np.uint8).reshape(3, 32, 32).transpose(1, 2, 0)
                        Image.fromarray(image).save(path)
                        counts[part, label] += 1


def _member(opened: tarfile.TarFile, name: str) -> io.BytesIO:
    file = opened.extractfile(f"cifar-10-batches-py/{name}")
    assert file
    return io.BytesIO(file.read())


def prepare(name: str, folder: Path, archive: Path | None, rows: Sequence[Row], again: Sequence[Row]) -> None:
    """A project with the data. Its study goes on from a table of `rows`; `again` are configurations to train again."""
    recipe = RECIPES[name]
    lacks_images = recipe.per_class and not (folder / "images" / "test").is_dir()
    if lacks_images and (archive is None or not archive.is_file()):
        raise PipelineError("--data must name cifar-10-python.tar.gz.")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "params.yaml").is_file():
        first = [{key: config.parse_value(row[key], key) for key in recipe.space if row[key]} for row in again]
        # A study of another seed draws other configurations than those that are there.
        content = recipe.params | {"tune": recipe.params["tune"] | {"first": first, "seed": len(rows)}}
        (folder / "params.yaml").write_text(config.yaml_text(content), encoding="utf-8")
    if lacks_images and archive:
        write_images(archive, folder / "images", recipe.per_class)
    if not (folder / "data" / "meta.json").is_file():
        subprocess.run([sys.executable, "-m", "pipeline.download"], cwd=folder, check=True)


def read_table(path: Path) -> list[Row]:
    """Nothing if there is no such table yet."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def trained(project: Project, recipe: Recipe) -> list[Row]:
    """The trials that have ended, as rows of a table. One that diverged has as many epochs as it had."""
    with project.trials.open(newline="", encoding="utf-8") as file:
        trials = [trial for trial in csv.DictReader(file) if trial["state"] in ("finished", "diverged")]
    rows = []
    for trial in trials:
        epochs = read_epochs(project.study_folder("main") / "trials" / f"{int(trial['trial']):04}")
        row = {"seed": trial["seed"]} | {key: _short(trial[key]) for key in recipe.space}
        rows.append(row | {f"epoch_{number}": f"{epoch.validation_accuracy:.5f}" for number, epoch in epochs.items()})
    return rows


def added(rows: Sequence[Row], more: Sequence[Row], keys: Collection[str]) -> list[Row]:
    """The rows, and those of `more` whose configuration, the values of `keys`, they lack."""
    found = {tuple(row[key] for key in keys): row for row in (*more, *rows)}
    order = dict.fromkeys(tuple(row[key] for key in keys) for row in (*rows, *more))
    return [found[each] for each in order]


def _short(text: str) -> str:
    """A number with six digits."""
    try:
        return f"{float(text):.6g}"
    except ValueError:
        return text


def build(arguments: argparse.Namespace) -> None:
    """Trains what is missing and writes the table."""
    suffix = f"-{arguments.seed}" if arguments.seed else ""
    folder, target = arguments.folder / f"{arguments.name}{suffix}", TABLES / f"{arguments.name}{suffix}.csv"
    rows, recipe = read_table(target), RECIPES[arguments.name]
    again = read_table(TABLES / f"{arguments.name}.csv")[: arguments.trials] if arguments.seed else []
    prepare(arguments.name, folder, arguments.data, rows, again[len(rows) :])
    # The study begins with the first row once more, and keeps what it has trained if it is resumed.
    lacking = arguments.trials - int(config.load(folder / "params.yaml").tune.seed) + bool(rows)
    command = [sys.executable, "-m", "pipeline.tune", "--trials", str(lacking)]
    command += ["--workers", str(arguments.workers)] if arguments.workers else []
    done = subprocess.run(command, cwd=folder, check=False)
    project = Project(folder, folder)
    if project.trials.is_file():
        rows = added(rows, trained(project, recipe), recipe.space)
        header = ["seed", *recipe.space, *(f"epoch_{number}" for number in range(1, recipe.epochs + 1))]
        write_csv(target, header, [[row.get(name, "") for name in header] for row in rows])
        print(json.dumps({"table": str(target), "configurations": len(rows)}))
    if done.returncode:
        raise PipelineError(f"The search ended with exit code {done.returncode}; the same command resumes it.")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--data", type=Path, help="cifar-10-python.tar.gz, for crossing and shipped")
    parser.add_argument("--folder", type=Path, required=True, help="for images, checkpoints and MLflow")
    parser.add_argument("--trials", type=count, default=250, help="rows of the table in all")
    parser.add_argument("--workers", type=count, help="default: one per core")
    parser.add_argument("--seed", type=int, default=0, choices=(0, 1))
    arguments = parser.parse_args(argv)
    return guarded(lambda: build(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
