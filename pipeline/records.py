"""The typed records that stages and commands hand each other, and the JSON files that hold them.

meta.json     Meta            the data set: written by download, read by all
run.json      RunRecord       a training: written by train, read by evaluate and report
metrics.json  Metrics         the figures: written by evaluate, read by report and `dvc metrics diff`
epochs.jsonl  Epoch           a line an epoch: written and read by the owner of a study

One definition serves the writer and every reader. `read` checks a file as a whole and says in a sentence what is wrong.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.config import SOURCES, Scalar
from pipeline.errors import DataError, PipelineError
from pipeline.files import atomic_write

Record = TypeVar("Record")


@dataclass(frozen=True)
class Epoch:
    """The figures of one pass over the training images."""

    number: int
    """Counts from 1."""
    learning_rate: float
    """Of its last step."""
    training_loss: float
    """Mean over its steps, while the weights move; with label smoothing, if there is any."""
    training_accuracy: float
    """0..1, likewise; of augmented images."""
    validation_loss: float
    """Mean cross entropy after the pass, without label smoothing."""
    validation_accuracy: float
    """0..1, after the pass."""
    images_per_second: float
    """Of training, without validation."""
    elapsed_s: float
    """Seconds of training and validation since the first epoch began, over all starts of the training."""


@dataclass(frozen=True)
class Duplicates:
    """How many images of a data set are equal, pixel by pixel, as they are in its arrays."""

    training: int
    """Training images that equal an earlier training image."""
    test: int
    """Test images that equal an earlier test image."""
    leaked: int
    """Test images that equal a training or validation image."""
    conflicting: int
    """Images that equal an image of another class."""
    validation: int = 0
    """Images of the data's own validation part that equal an earlier one of it."""
    leaked_into_validation: int = 0
    """Those that equal a training image."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """A few pairs each of what is `leaked`, `leaked_into_validation` and `conflicting`, and of `copies` in one part:
    "a.png = b.png"."""

    @property
    def any(self) -> bool:
        return bool(self.copies or self.leaked or self.leaked_into_validation or self.conflicting)

    @property
    def copies(self) -> int:
        """Images that equal an earlier one of the same part."""
        return self.training + self.validation + self.test


@dataclass(frozen=True)
class NearDuplicates:
    """Test images that look nearly like a training image, by their pixels."""

    test: int
    compared: int
    """Test images that were looked at: all, or a part of very many."""
    examples: list[str] = field(default_factory=list)
    """A few pairs: "train/a.png ~ test/b.png"."""


@dataclass(frozen=True)
class Meta:
    """A data set without its images."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """Channels, height, width."""
    mean: tuple[float, ...]
    """Of each channel over the training set, pixels scaled to 0..1; `std` likewise."""
    std: tuple[float, ...]
    counts: dict[str, int]
    """Images in `train` and in `test`, and in `validation` if the data has a validation part of its own."""
    digest: str
    """SHA-256 of all images, labels and class names."""
    source: str
    """Where it came from, without user, password and query."""
    per_class: dict[str, list[int]] = field(default_factory=dict)
    """Images of each class, by part likewise."""
    archive_sha256: str | None = None
    fingerprint: str | None = None
    """Of the local folder or archive that it was made from. None for others and those that an earlier version made."""
    duplicates: Duplicates | None = None
    """None: an earlier version did not count them."""
    near_duplicates: NearDuplicates | None = None
    """None: the images are too small for that, or an earlier version did not count them."""
    highest_float: int | None = None
    """1 or 255, by which floating-point images were scaled to 8 bits; None if there were none."""

    def tags(self) -> dict[str, str]:
        """For MLflow: the digest, and the numbers of equal and nearly equal images."""
        counts = {} if self.duplicates is None else asdict(self.duplicates)
        counts.pop("examples", None)
        tags = {"data.digest": self.digest, "data.source": self.source}
        if self.archive_sha256:
            tags["data.archive_sha256"] = self.archive_sha256
        tags |= {f"data.duplicates.{key}": str(count) for key, count in counts.items()}
        return tags | ({"data.near_duplicates": str(self.near_duplicates.test)} if self.near_duplicates else {})

    @property
    def description(self) -> dict[str, Any]:
        """What a model of this data takes and gives, for those who have only the model."""
        resized = self.name in SOURCES and SOURCES[self.name].resized
        resize = "centre square, bilinear with antialiasing" if resized else "none"
        return {
            "data": self.name,
            "digest": self.digest,
            "classes": list(self.classes),
            "shape": list(self.shape),
            "resize": resize,
            "highest_float": self.highest_float,
        }


@dataclass(frozen=True, kw_only=True)
class TrainingData(Meta):
    """A data set with the sizes of the two parts that a training made of its training set."""

    training: int
    validation: int


@dataclass(frozen=True)
class DeviceRecord:
    """The device that a network was trained on."""

    type: str
    name: str
    threads: int
    precision: str


@dataclass(frozen=True)
class Provenance:
    """What a result was made from. None is what can't be known: outside a git repository, before the first commit."""

    git_commit: str | None
    git_dirty: bool | None
    """Whether tracked files differ from the commit, those that the pipeline writes left aside."""
    dvc_data_hash: str | None
    """DVC's MD5 of data/train, as dvc.lock has it."""
    versions: dict[str, str]
    """Of Python and of the installed packages, by name."""
    platform: str
    host: str
    dvc_experiment: str | None = None
    """The name that DVC has given to the experiment; None outside of `dvc exp run`."""


@dataclass(frozen=True)
class Folds:
    """The result of a cross-validation after its last epoch."""

    count: int
    validation_accuracy: list[float]
    """Of each fold."""
    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A training: its run in MLflow, and where and from what its model was made."""

    key: str
    """Of the run: the tag pipeline.key."""
    name: str
    started: str
    """ISO 8601."""
    elapsed_s: float
    seconds_per_epoch: float
    peak_memory_bytes: int
    folds: Folds | None = None
    temperature: float = 1.0
    """What the logits of the model were divided by after the last epoch, so that its probabilities are calibrated."""
    macs: int | None = None
    """Multiply-accumulate operations per image. None: of an older version, which did not count them."""
    code: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of the code of a network of the user's, by its value of model.family."""
    code_sha256: str | None = None
    """Of this project's code that trained. None: of an older version, as `model_sha256`."""
    model_sha256: str | None = None
    """Of model.safetensors."""
    device: DeviceRecord
    platform: str
    provenance: Provenance
    data: TrainingData
    values: dict[str, Scalar]
    """All values of params.yaml that decide a training, by dotted name."""


@dataclass(frozen=True)
class FoldFigures:
    """Of a cross-validation: mean and standard deviation over its folds."""

    count: int
    validation_accuracy_mean: float
    validation_accuracy_sd: float


@dataclass(frozen=True)
class TrainFigures:
    """Of the last epoch, never of the best one."""

    epochs: int
    training_loss: float
    training_accuracy: float
    validation_loss: float
    validation_accuracy: float
    images_per_second: float
    """Median over the epochs."""
    folds: FoldFigures | None = None


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Predictions against labels."""

    accuracy: float
    accuracy_low: float
    """Ends of Wilson's 95 % interval (Wilson 1927)."""
    accuracy_high: float
    top5_accuracy: float | None = None
    """Of data sets with more than 5 classes."""
    macro_f1: float
    nll: float
    """Mean negative log likelihood in nats."""
    ece: float
    """Expected calibration error (Guo et al. 2017)."""


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are from the accuracy: see Scores."""

    nll: float
    ece: float


@dataclass(frozen=True, kw_only=True)
class EvaluateFigures(Scores):
    """Of the test set, with the cost of a prediction."""

    parameters: int
    macs: int
    """Multiply-accumulate operations per image."""
    images_per_second: float
    uncalibrated: Calibration | None = None
    """Of the network as it was trained: before its logits were divided by run.json's temperature."""
    tta_flip: Scores | None = None
    """With test-time augmentation."""


@dataclass(frozen=True)
class Metrics:
    """The figures of metrics.json, by stage."""

    train: TrainFigures
    evaluate: EvaluateFigures


def write(record: Any, path: Path) -> None:
    """Replaces the file as a whole."""
    content = asdict(record)
    if isinstance(record, Metrics):
        content = _without_none(content)  # dvc would show them as figures
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read(kind: type[Record], path: Path, *, stage: str) -> Record:
    """The record in a file that `stage` writes. Raises PipelineError: missing, damaged, of another version."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError as error:
        raise PipelineError(f"{path} is missing: run `dvc repro`, or `python -m pipeline.{stage}`.") from error
    except OSError as error:
        raise PipelineError(f"{path} can't be read: {error.strerror}.") from error
    except ValidationError as error:
        details = error.errors()[0]
        place = ".".join(map(str, details["loc"]))
        if details["type"] == "missing":
            raise PipelineError(
                f"{path} has no {place}, another version of this project wrote it: run `dvc repro -f {stage}`."
            ) from error
        reason = f"{place}: {details['msg']}" if place else details["msg"]
        raise PipelineError(f"{path} is damaged ({reason}): run `dvc repro`, which writes it again.") from error


def flat(record: Any, prefix: str) -> dict[str, float]:
    """The figures of a record under dotted names, without those that it does not have."""
    found: dict[str, float] = {}
    for name, value in asdict(record).items() if not isinstance(record, dict) else record.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}.{name}")
        elif value is not None:
            found[f"{prefix}.{name}"] = value
    return found


def load_meta(path: Path) -> Meta:
    """Reads meta.json. Raises DataError if it is missing, damaged or of another version."""
    try:
        return read(Meta, path, stage="download")
    except PipelineError as error:
        raise DataError(str(error)) from error


def _without_none(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in content.items()
        if value is not None
    }
