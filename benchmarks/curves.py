"""Tables of real learning curves, for benchmarks/search.py: random configurations, each trained to its end.

    python benchmarks/curves.py crossing --data ARCHIVE --folder work --trials 250
    python benchmarks/curves.py crossing --data ARCHIVE --folder work --trials 40 --seed 1
    python benchmarks/curves.py digits --folder work --trials 1000

ARCHIVE is cifar-10-python.tar.gz. `crossing` trains on the first 500 images of each class, at half their size, 30 % of
them for validation, in a space whose curves cross: schedules, optimizers and depths that begin badly can end well.
`digits` searches the same space on the handwritten digits. A table is benchmarks/curves/NAME.csv: the values of a
configuration, its seed and the validation accuracy after each epoch. Its first row has the values that a search begins
with. --seed 1 writes NAME-1.csv, with the same configurations and other seeds: the noise.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from pipeline import config
from pipeline.cli import guarded
from pipeline.errors import PipelineError
from pipeline.files import Project, write_csv
from pipeline.search.studies.epochs import read_epochs

Row: TypeAlias = dict[str, str]
"""Of a table, by the names of its columns."""

TABLES = Path(__file__).parent / "curves"
EPOCHS = 8
PER_CLASS = 500
SPACE: dict[str, Any] = {
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
PARAMS: dict[str, Any] = {
    "model": {"family": "resnet", "depth": 8, "width": 8},
    "augment": {"policy": "flip", "flip": "random", "padding": 0.125, "small_side": 1},
    "train": {
        "epochs": EPOCHS,
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
    "space": SPACE,
    "tune": {"scheduler": "none", "sampler": "random", "confirm": 0, "models": "none", "retries": 1},
}
DATA = {
    "crossing": {"name": "folder", "url": "images", "image_size": 16},
    "digits": {"name": "digits"},
}


def write_images(archive: Path, folder: Path) -> None:
    """The first images of each class as PNG files: train/CLASS/NUMBER.png; and a hundred of each of the test set."""
    counts: Counter[tuple[str, int]] = Counter()
    with tarfile.open(archive) as opened:
        names = pickle.load(_member(opened, "batches.meta"), encoding="latin1")["label_names"]
        for part, most, members in (
            ("train", PER_CLASS, [f"data_batch_{number}" for number in range(1, 6)]),
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
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "params.yaml").is_file():
        first = [{key: config.parse_value(row[key], key) for key in SPACE} for row in again]
        # A study of another seed draws other configurations than those that are there.
        content = PARAMS | {"data": DATA[name], "tune": PARAMS["tune"] | {"first": first, "seed": len(rows)}}
        (folder / "params.yaml").write_text(config.yaml_text(content), encoding="utf-8")
    if name == "crossing" and not (folder / "images" / "test").is_dir():
        if archive is None or not archive.is_file():
            raise PipelineError("--data must name cifar-10-python.tar.gz.")
        write_images(archive, folder / "images")
    if not (folder / "data" / "meta.json").is_file():
        subprocess.run([sys.executable, "-m", "pipeline.download"], cwd=folder, check=True)


def read_table(path: Path) -> list[Row]:
    """Nothing if there is no such table yet."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def trained(project: Project) -> list[Row]:
    """The trials that have ended, as rows of a table. One that diverged has as many epochs as it had."""
    with project.trials.open(newline="", encoding="utf-8") as file:
        trials = [trial for trial in csv.DictReader(file) if trial["state"] in ("finished", "diverged")]
    rows = []
    for trial in trials:
        epochs = read_epochs(project.study_folder("main") / "trials" / f"{int(trial['trial']):04}")
        row = {"seed": trial["seed"]} | {key: _short(trial[key]) for key in SPACE}
        rows.append(row | {f"epoch_{number}": f"{epoch.validation_accuracy:.5f}" for number, epoch in epochs.items()})
    return rows


def added(rows: Sequence[Row], more: Sequence[Row]) -> list[Row]:
    """The rows, and those of `more` whose configuration they lack."""
    found = {configuration(row): row for row in (*more, *rows)}
    order = dict.fromkeys(configuration(row) for row in (*rows, *more))
    return [found[each] for each in order]


def configuration(row: Row) -> tuple[str, ...]:
    return tuple(row[key] for key in SPACE)


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
    rows = read_table(target)
    again = read_table(TABLES / f"{arguments.name}.csv")[: arguments.trials] if arguments.seed else []
    prepare(arguments.name, folder, arguments.data, rows, again[len(rows) :])
    # The study begins with the first row once more, and keeps what it has trained if it is resumed.
    lacking = arguments.trials - int(config.load(folder / "params.yaml").tune.seed) + bool(rows)
    command = [sys.executable, "-m", "pipeline.tune", "--trials", str(lacking)]
    command += ["--workers", str(arguments.workers)] if arguments.workers else []
    done = subprocess.run(command, cwd=folder, check=False)
    project = Project(folder, folder)
    if project.trials.is_file():
        rows = added(rows, trained(project))
        header = ["seed", *SPACE, *(f"epoch_{number}" for number in range(1, EPOCHS + 1))]
        write_csv(target, header, [[row.get(name, "") for name in header] for row in rows])
        print(json.dumps({"table": str(target), "configurations": len(rows)}))
    if done.returncode:
        raise PipelineError(f"The search ended with exit code {done.returncode}; the same command resumes it.")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(DATA))
    parser.add_argument("--data", type=Path, help="cifar-10-python.tar.gz, for crossing")
    parser.add_argument("--folder", type=Path, required=True, help="for images, checkpoints and MLflow")
    parser.add_argument("--trials", type=int, default=250, help="rows of the table in all")
    parser.add_argument("--workers", type=int, help="default: one per core")
    parser.add_argument("--seed", type=int, default=0, choices=(0, 1))
    arguments = parser.parse_args(argv)
    return guarded(lambda: build(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
