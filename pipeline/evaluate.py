"""Scores the model on the test set, which nothing else reads, and writes what `dvc metrics diff` compares.

    python -m pipeline.evaluate     (or `dvc repro evaluate`)

Reads data/test and the model; writes metrics.json (train's last epoch and the test figures) and, below
results/evaluate, predictions.csv, probabilities.npy, confusion_matrix.csv, per_class.csv and mistakes.npz. Always in
fp32, the precision of the model that MLflow keeps. All of it is of the images as they are; with evaluate.tta flip the
figures of test-time augmentation stand beside it, as evaluate.tta_flip. The figures are added to the MLflow run that
train opened.
"""

import csv
import json
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline import cli, config, tracking
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.files import Project, atomic_write

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.batches.data import Batch, Epochs, Images
    from pipeline.meta import Meta
    from pipeline.networks import Classifier
    from pipeline.training.device import Device

    Floats: TypeAlias = npt.NDArray[np.float64]
    Ints: TypeAlias = npt.NDArray[np.int64]

Metrics = dict[str, float | int]

# A small test set is passed through several times, since one pass of milliseconds would measure the machine's mood.
SPEED_MEASURED_S = 1.0


def evaluate(project: Project) -> None:
    """Raises ConfigError, DataError; PipelineError where the model is missing or is not that of params.yaml."""
    settings = config.load(project.params)
    record = _read_record(project.run)
    import numpy as np

    from pipeline import networks
    from pipeline.batches import data
    from pipeline.meta import load_meta
    from pipeline.training import loop

    meta = load_meta(project.meta)
    device = device_of(settings)
    images, batches = _test_set(project, meta, settings, device)
    network = network_of(settings.model, project.model, meta)
    macs = networks.macs(network, meta)
    loop.place(network, device)
    warm_up = data.OrderedBatches(
        images,
        np.arange(len(images.labels))[: settings.evaluate.batch_size],
        batch_size=settings.evaluate.batch_size,
        device=device.handle,
    )
    loop.infer(network, warm_up, device)
    passes_s: list[float] = []
    while sum(passes_s) < SPEED_MEASURED_S:
        began = time.perf_counter()
        probabilities = predict(network, batches, device)
        passes_s.append(time.perf_counter() - began)

    metrics = score(probabilities, images.labels, settings.evaluate.calibration_bins) | {
        "parameters": networks.parameters(network),
        "macs": macs,
        "images_per_second": round(len(images.labels) / statistics.median(passes_s), 1),
    }
    flip: dict[str, Metrics] = {}
    if settings.evaluate.tta == "flip":
        flipped = predict(network, batches, device, flip=True)
        flip["tta_flip"] = score(flipped, images.labels, settings.evaluate.calibration_bins)
    table = per_class(probabilities, images.labels, meta.classes)
    matrix = confusion_matrix(probabilities, images.labels)
    with atomic_write(project.probabilities) as aside, aside.open("wb") as file:
        np.save(file, probabilities.astype(np.float32))
    _write_predictions(project.predictions, probabilities, images.labels, meta)
    _write_csv(project.per_class, list(table), zip(*table.values(), strict=True))
    _write_csv(
        project.confusion_matrix,
        ["actual", *meta.classes],
        ([name, *row] for name, row in zip(meta.classes, matrix.tolist(), strict=True)),
    )
    _write_mistakes(project.mistakes, probabilities, images, settings.evaluate.mistakes)
    with atomic_write(project.metrics) as aside:
        content = {
            "train": {**_last_epoch(project.history), **_folds(record)},
            "evaluate": {**metrics, **flip},
        }
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    with tracking.Tracker(project) as tracker:
        run = tracker.open(record["key"], name=record["name"])
        # As tags: a model can be evaluated again with other values, and MLflow's params are for good.
        run.set_tags({key: value for key, value in settings.values().items() if key.startswith("evaluate.")})
        figures = {f"evaluate.{key}": value for key, value in metrics.items()}
        for name, section in flip.items():
            figures |= {f"evaluate.{name}.{key}": value for key, value in section.items()}
        run.log_metrics(figures, step=settings.train.epochs)
        run.log_table(table, "per_class.json")
        run.log_file(project.confusion_matrix)
        run.log_file(project.predictions)
        run.finish("finished")
    print(
        f"test accuracy {metrics['accuracy']:.2%} (95 % interval {metrics['accuracy_low']:.2%} to "
        f"{metrics['accuracy_high']:.2%}), macro F1 {metrics['macro_f1']:.4f}, NLL {metrics['nll']:.4f}, "
        f"ECE {metrics['ece']:.4f}, {metrics['images_per_second']:,.0f} images/s"
    )
    for name, section in flip.items():
        print(f"{name}: test accuracy {section['accuracy']:.2%}, NLL {section['nll']:.4f}, ECE {section['ece']:.4f}")


def probabilities_of(
    project: Project, model: config.Model, weights: Path, settings: Config, *, flip: bool = False
) -> "tuple[Floats, Ints]":
    """What a network predicts for the test set, float64 [N, classes], and the labels of it, int64 [N].

    `model` is what the network is built from, `weights` what models.save wrote of it. `settings` has the device, its
    threads and the batch size; `flip` is test-time augmentation. In fp32, as the stage does it.
    Raises ConfigError and DataError; PipelineError where the weights are missing or don't fit.
    """
    from pipeline.meta import load_meta
    from pipeline.training import loop

    meta = load_meta(project.meta)
    device = device_of(settings)
    network = network_of(model, weights, meta)
    loop.place(network, device)
    images, batches = _test_set(project, meta, settings, device)
    return predict(network, batches, device, flip=flip), images.labels


def device_of(settings: Config) -> "Device":
    """The device of params.yaml in fp32, ready. Raises ConfigError where it is not there."""
    from pipeline.machine import Machine
    from pipeline.training.device import Device

    device = Device.choose(settings.train.device, "fp32", settings.train.threads, Machine.probe())
    device.prepare()
    return device


def network_of(model: config.Model, weights: Path, meta: "Meta") -> "Classifier":
    """The network with the weights of a file, on the CPU. Raises PipelineError where they are missing or don't fit."""
    from pipeline import networks

    network = networks.build(model, meta, seed=0, initial=False)
    networks.load(network, weights)
    return network


def on_device(network: "Classifier", device: "Device") -> "Classifier":
    """The same network, moved."""
    network.to(device.handle)
    network.to(memory_format=device.memory_format)
    return network


def predict(network: "Classifier", batches: "Epochs", device: "Device", *, flip: bool = False) -> "Floats":
    """Probabilities float64 [N, classes]; with `flip` the mean of those of each image and of its mirror image."""
    from pipeline.training import loop

    logits, _ = loop.infer(network, batches, device)
    probabilities: Floats = logits.cpu().double().softmax(dim=1).numpy()
    if flip:
        probabilities = (probabilities + predict(network, _Mirrored(batches), device)) / 2
    return probabilities


def score(probabilities: "Floats", labels: "Ints", bins: int) -> Metrics:
    """Figures of predictions [N, classes] against labels [N].

    `accuracy_low` and `accuracy_high` are the ends of Wilson's 95 % interval (Wilson 1927); `top5_accuracy` is there
    for over 5 classes; `nll` is the mean negative log likelihood, in nats; `ece` the expected calibration error.
    """
    from scipy.stats import binomtest
    from sklearn.metrics import f1_score, log_loss, top_k_accuracy_score

    classes = range(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    correct = int((predicted == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
    metrics: Metrics = {
        "accuracy": correct / len(labels),
        "accuracy_low": float(interval.low),
        "accuracy_high": float(interval.high),
    }
    if len(classes) > 5:
        metrics["top5_accuracy"] = float(top_k_accuracy_score(labels, probabilities, k=5, labels=classes))
    metrics["macro_f1"] = float(f1_score(labels, predicted, labels=classes, average="macro", zero_division=0.0))
    metrics["nll"] = float(log_loss(labels, probabilities, labels=classes))
    metrics["ece"] = expected_calibration_error(probabilities, labels, bins)
    return metrics


def expected_calibration_error(probabilities: "Floats", labels: "Ints", bins: int) -> float:
    """Mean distance of confidence and accuracy over bins of equal width (Guo et al. 2017, section 2, equation 3)."""
    import numpy as np

    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    # Bins are open at the left, closed at the right, as in the paper.
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def per_class(probabilities: "Floats", labels: "Ints", classes: Sequence[str]) -> dict[str, list[Any]]:
    """Columns class, precision, recall, f1 and support (test images), a row a class."""
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=range(len(classes)), zero_division=0.0
    )
    names = ("precision", "recall", "f1", "support")
    return {"class": list(classes)} | {name: column.tolist() for name, column in zip(names, columns, strict=True)}


def confusion_matrix(probabilities: "Floats", labels: "Ints") -> "Ints":
    """Counts [actual, predicted]."""
    from sklearn.metrics import confusion_matrix as counted

    matrix: Ints = counted(labels, probabilities.argmax(axis=1), labels=range(probabilities.shape[1]))
    return matrix


class _Mirrored:
    """Batches with every image mirrored left to right."""

    def __init__(self, batches: "Epochs") -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def steps(self) -> int:
        return self._batches.steps

    def epoch(self, number: int) -> "Iterator[Batch]":
        for batch in self._batches.epoch(number):
            yield batch._replace(images=batch.images.flip(-1))


def _test_set(project: Project, meta: "Meta", settings: Config, device: "Device") -> "tuple[Images, Epochs]":
    """Raises DataError."""
    import numpy as np

    from pipeline.batches import data

    images = data.load_images(project.test_data, meta)
    positions = np.arange(len(images.labels))
    batch_size = settings.evaluate.batch_size
    return images, data.OrderedBatches(images, positions, batch_size=batch_size, device=device.handle)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PipelineError(f"{path} is missing: run `dvc repro`, or `python -m pipeline.train`.") from error
    except ValueError as error:
        raise PipelineError(f"{path} is damaged ({error}): run `dvc repro -f train`.") from error
    return record


def _last_epoch(history: Path) -> Metrics:
    """Of the training: the figures of its last epoch, never of its best."""
    with history.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = rows[-1]
    names = ("training_loss", "training_accuracy", "validation_loss", "validation_accuracy")
    speed = statistics.median(float(row["images_per_second"]) for row in rows)
    return (
        {"epochs": int(last["epoch"])}
        | {name: float(last[name]) for name in names}
        | {"images_per_second": round(speed, 1)}
    )


def _folds(record: Mapping[str, Any]) -> dict[str, Metrics]:
    """Of the training, where it was a cross-validation."""
    folds = record.get("folds")
    if not folds:
        return {}
    return {
        "folds": {
            "count": folds["count"],
            "validation_accuracy_mean": folds["mean"],
            "validation_accuracy_sd": folds["sd"],
        }
    }


def _write_predictions(path: Path, probabilities: "Floats", labels: "Ints", meta: "Meta") -> None:
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rows = (
        [index, meta.classes[actual], meta.classes[guess], f"{certain:.6f}"]
        for index, (actual, guess, certain) in enumerate(zip(labels, predicted, confidence, strict=True))
    )
    _write_csv(path, ["index", "actual", "predicted", "confidence"], rows)


def _write_mistakes(path: Path, probabilities: "Floats", images: Any, count: int) -> None:
    import numpy as np

    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != images.labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(
            file,
            images=images.pixels[worst],
            index=worst,
            actual=images.labels[worst],
            predicted=predicted[worst],
            confidence=confidence[worst].astype(np.float32),
        )


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_write(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_stage(evaluate, __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
