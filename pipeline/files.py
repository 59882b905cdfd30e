"""The names of all files of a project, and `atomic_write`, which writes a file as a whole or not at all."""

import csv
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True)
class Project:
    """The files of one project.

    `root` holds params.yaml and dvc.yaml. Stages run there, and their outputs are below it. `home` holds what outlives
    a run: MLflow's store, checkpoints, downloaded archives. The two differ only under `dvc exp run --temp` and
    `--queue`, where DVC runs the stages in a copy and names the real project in DVC_ROOT.
    """

    root: Path
    home: Path

    @classmethod
    def here(cls) -> "Project":
        """The project of the working directory."""
        root = Path.cwd()
        if "DVC_ROOT" in os.environ:
            return cls(root, Path(os.environ["DVC_ROOT"]))
        return cls(root, next((folder for folder in (root, *root.parents) if (folder / ".dvc").is_dir()), root))

    def given_path(self, name: str) -> Path:
        """The file or directory that a value of params.yaml names: `~` is the user's home, a relative path starts here.

        DVC's copies for experiments hold only what git tracks: what is missing in `root` is looked for in `home`. If it
        is missing in both, it is the path in `root`.
        """
        path = Path(name).expanduser()
        return next((there for there in (self.root / path, self.home / path) if there.exists()), self.root / path)

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def dvc_lock(self) -> Path:
        return self.root / "dvc.lock"

    @property
    def metrics(self) -> Path:
        """JSON: the metrics of a run by stage, which `dvc metrics diff` compares."""
        return self.root / "metrics.json"

    # Written by config.

    @property
    def resolved(self) -> Path:
        """YAML, one file per section: the values that the stages depend on, default or not."""
        return self.root / "results" / "config"

    # Written by download.

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def meta(self) -> Path:
        return self.data / "meta.json"

    @property
    def training_data(self) -> Path:
        return self.data / "train"

    @property
    def test_data(self) -> Path:
        """Written by `download`. Only `pipeline/evaluation/test_set.py` may read it."""
        return self.data / "test"

    @property
    def unreadable_images(self) -> Path:
        """Text, one line per image that can't be read. It exists if they are too many for a message."""
        return self.root / "results" / "download" / "unreadable_images.txt"

    # Written by train.

    @property
    def train(self) -> Path:
        return self.root / "results" / "train"

    @property
    def model(self) -> Path:
        return self.train / "model.safetensors"

    @property
    def history(self) -> Path:
        """CSV, one row per epoch."""
        return self.train / "history.csv"

    @property
    def run(self) -> Path:
        """JSON: the training's run in MLflow, and what it was made from."""
        return self.train / "run.json"

    # Written by evaluate.

    @property
    def evaluate(self) -> Path:
        return self.root / "results" / "evaluate"

    @property
    def predictions(self) -> Path:
        """CSV, one row per test image."""
        return self.evaluate / "predictions.csv"

    @property
    def probabilities(self) -> Path:
        """float32 [N, classes], in the order of the test set."""
        return self.evaluate / "probabilities.npy"

    @property
    def per_class(self) -> Path:
        """CSV, one row per class."""
        return self.evaluate / "per_class.csv"

    @property
    def confusion_matrix(self) -> Path:
        """CSV: numbers of test images, one row per actual class, one column per predicted class."""
        return self.evaluate / "confusion_matrix.csv"

    @property
    def mistakes(self) -> Path:
        """npz: the mistakes with the highest confidence, with their images."""
        return self.evaluate / "mistakes.npz"

    @property
    def suspects(self) -> Path:
        """npz: the test images whose label is most probably wrong, with their images."""
        return self.evaluate / "suspects.npz"

    @property
    def appearance(self) -> Path:
        """CSV, one row per test image: brightness, contrast, sharpness."""
        return self.evaluate / "appearance.csv"

    # Written by report.

    @property
    def report(self) -> Path:
        return self.root / "results" / "report"

    @property
    def page(self) -> Path:
        return self.report / "index.html"

    @property
    def comparison_page(self) -> Path:
        """Beside the output of the stage, which DVC compares with what the stage wrote; likewise `watch_page`."""
        return self.root / "results" / "compare" / "index.html"

    @property
    def watch_page(self) -> Path:
        return self.root / "results" / "watch" / "index.html"

    # Written by tune.

    @property
    def tune(self) -> Path:
        return self.root / "results" / "tune"

    @property
    def trials(self) -> Path:
        """CSV, one row per trial."""
        return self.tune / "trials.csv"

    @property
    def best(self) -> Path:
        """YAML: the values of the winning trial, and its accuracies."""
        return self.tune / "best.yaml"

    @property
    def study(self) -> Path:
        """JSON: a summary of the study."""
        return self.tune / "study.json"

    @property
    def search_history(self) -> Path:
        """JSON: every trial of the study with its epochs, and what happened when, for the report."""
        return self.tune / "history.json"

    # Written by ensemble.

    @property
    def ensemble(self) -> Path:
        return self.root / "results" / "ensemble"

    @property
    def ensemble_figures(self) -> Path:
        """JSON: the ensemble and the soups, their members and their metrics."""
        return self.ensemble / "ensemble.json"

    @property
    def soup(self) -> Path:
        """The mean of the weights of several networks. It exists if that mean was at least as good as each of them."""
        return self.ensemble / "soup.safetensors"

    # Written by study, one folder per grid.

    @property
    def grids(self) -> Path:
        return self.root / "results" / "study"

    def grid_table(self, name: str) -> Path:
        """CSV, one row per trial."""
        return self.grids / name / "results.csv"

    def grid_curves(self, name: str) -> Path:
        """CSV, one row per epoch of a trial."""
        return self.grids / name / "curves.csv"

    def grid_figure(self, name: str) -> Path:
        """PNG. It exists for a grid that varies depth or family."""
        return self.grids / name / "degradation.png"

    # Written by export.

    @property
    def exports(self) -> Path:
        """Networks in the formats of other programs, and MODEL_CARD.md."""
        return self.root / "results" / "export"

    # These outlive a run.

    @property
    def mlflow_database(self) -> Path:
        """Where runs are, unless MLFLOW_TRACKING_URI names another store; what plain `mlflow ui` opens."""
        return self.home / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """The artifacts of those runs."""
        return self.home / "mlruns"

    @property
    def optuna_journal(self) -> Path:
        """All studies, in a format that Optuna's own tools read."""
        return self.home / "optuna.journal"

    def study_folder(self, name: str) -> Path:
        """The lock of a study, its events, and the checkpoints and weights of its trials."""
        return self.home / ".studies" / name

    @property
    def downloads(self) -> Path:
        """Archives as downloaded. A person may put one here by hand."""
        return self.home / "downloads"

    @property
    def checkpoints(self) -> Path:
        return self.home / ".checkpoints"

    @property
    def outbox(self) -> Path:
        """Records that MLflow has not received yet."""
        return self.home / ".outbox"


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file `path`. Changes nothing, as asking for the lock by FileLock would."""
    if sys.platform == "win32":
        return path.exists()
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file as a whole (see `atomic_write`)."""
    with atomic_write(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a path beside `path` to write to. Renames it to `path` if the block ends without an error.

    After a crash at any moment `path` holds either what it held before or all of what was written. Without `durable`,
    which takes milliseconds, a power cut may leave it empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        if durable:
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    # Syncing the folder makes the rename survive a power cut. Windows can't open folders and does not need it.
    if durable and os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
