"""Scores the model on the test set, which nothing else reads, and writes what `dvc metrics diff` compares.

    python -m pipeline.evaluate     (or `dvc repro evaluate`)

Reads data/test and the model; writes metrics.json (train's last epoch and the test figures) and, below
results/evaluate, predictions.csv, probabilities.npy, confusion_matrix.csv, per_class.csv and mistakes.npz. Always in
fp32, the precision of the model that MLflow keeps. The figures are added to the MLflow run that train opened.
"""

import csv
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import command, config, tracking
from pipeline.errors import PipelineError
from pipeline.files import Project, written_whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.meta import Meta

Metrics = dict[str, float | int]

# A small test set is passed through several times, since one pass of milliseconds would measure the machine's mood.
SPEED_MEASURED_S = 1.0


def evaluate(project: Project) -> None:
    """Raises ConfigError, DataError; PipelineError where the model is missing or is not that of params.yaml."""
    settings = config.load(project.params)
    record = _read_record(project.run)
    import numpy as np

    from pipeline import data, models, training
    from pipeline.device import Device
    from pipeline.machine import Machine
    from pipeline.meta import load_meta

    meta = load_meta(project.meta)
    pictures = data.load_pictures(project.test_data, meta)
    device = Device.choose(settings.train.device, "fp32", settings.train.threads, Machine.probe())
    device.prepare()
    network = models.build(settings.model, meta, seed=0)
    models.load(network, project.model)
    macs = models.macs(network, meta)
    network.to(device.handle)
    network.to(memory_format=device.memory_format)

    positions = np.arange(len(pictures.labels))
    batch_size = settings.evaluate.batch_size
    warm_up = data.OrderedBatches(pictures, positions[:batch_size], batch_size=batch_size, device=device.handle)
    batches = data.OrderedBatches(pictures, positions, batch_size=batch_size, device=device.handle)
    training.infer(network, warm_up, device)
    passes_s: list[float] = []
    while sum(passes_s) < SPEED_MEASURED_S:
        began = time.perf_counter()
        logits, _ = training.infer(network, batches, device)
        device.synchronize()
        passes_s.append(time.perf_counter() - began)
    probabilities = logits.cpu().double().softmax(dim=1).numpy()

    metrics = score(probabilities, pictures.labels, settings.evaluate.calibration_bins) | {
        "parameters": models.parameters(network),
        "macs": macs,
        "images_per_second": round(len(positions) / statistics.median(passes_s), 1),
    }
    table = per_class(probabilities, pictures.labels, meta.classes)
    matrix = confusion_matrix(probabilities, pictures.labels)
    with written_whole(project.probabilities) as aside, aside.open("wb") as file:
        np.save(file, probabilities.astype(np.float32))
    _write_predictions(project.predictions, probabilities, pictures.labels, meta)
    _write_csv(project.per_class, list(table), zip(*table.values(), strict=True))
    _write_csv(
        project.confusion_matrix,
        ["actual", *meta.classes],
        ([name, *row] for name, row in zip(meta.classes, matrix.tolist(), strict=True)),
    )
    _write_mistakes(project.mistakes, probabilities, pictures, settings.evaluate.mistakes)
    with written_whole(project.metrics) as aside:
        content = {"train": _last_epoch(project.history), "evaluate": metrics}
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    with tracking.Tracker(project) as tracker:
        run = tracker.open(record["key"], name=record["name"])
        # As tags: a model can be evaluated again with other values, and MLflow's params are for good.
        run.set_tags({key: value for key, value in settings.values().items() if key.startswith("evaluate.")})
        run.log_metrics({f"evaluate.{key}": value for key, value in metrics.items()}, step=settings.train.epochs)
        run.log_table(table, "per_class.json")
        run.log_file(project.confusion_matrix)
        run.log_file(project.predictions)
        run.finish("finished")
    print(
        f"test accuracy {metrics['accuracy']:.2%} (95 % interval {metrics['accuracy_low']:.2%} to "
        f"{metrics['accuracy_high']:.2%}), macro F1 {metrics['macro_f1']:.4f}, NLL {metrics['nll']:.4f}, "
        f"ECE {metrics['ece']:.4f}, {metrics['images_per_second']:,.0f} images/s"
    )


def score(probabilities: "npt.NDArray[np.float64]", labels: "npt.NDArray[np.int64]", bins: int) -> Metrics:
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


def expected_calibration_error(
    probabilities: "npt.NDArray[np.float64]", labels: "npt.NDArray[np.int64]", bins: int
) -> float:
    """Mean distance of confidence and accuracy over bins of equal width (Guo et al. 2017, section 2, equation 3)."""
    import numpy as np

    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    # Bins are open at the left, closed at the right, as in the paper.
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def per_class(
    probabilities: "npt.NDArray[np.float64]", labels: "npt.NDArray[np.int64]", classes: Sequence[str]
) -> dict[str, list[Any]]:
    """Columns class, precision, recall, f1 and support (test pictures), a row a class."""
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=range(len(classes)), zero_division=0.0
    )
    names = ("precision", "recall", "f1", "support")
    return {"class": list(classes)} | {name: column.tolist() for name, column in zip(names, columns, strict=True)}


def confusion_matrix(
    probabilities: "npt.NDArray[np.float64]", labels: "npt.NDArray[np.int64]"
) -> "npt.NDArray[np.int64]":
    """Counts [actual, predicted]."""
    from sklearn.metrics import confusion_matrix as counted

    matrix: npt.NDArray[np.int64] = counted(labels, probabilities.argmax(axis=1), labels=range(probabilities.shape[1]))
    return matrix


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


def _write_predictions(
    path: Path, probabilities: "npt.NDArray[np.float64]", labels: "npt.NDArray[np.int64]", meta: "Meta"
) -> None:
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rows = (
        [index, meta.classes[actual], meta.classes[guess], f"{certain:.6f}"]
        for index, (actual, guess, certain) in enumerate(zip(labels, predicted, confidence, strict=True))
    )
    _write_csv(path, ["index", "actual", "predicted", "confidence"], rows)


def _write_mistakes(path: Path, probabilities: "npt.NDArray[np.float64]", pictures: Any, count: int) -> None:
    import numpy as np

    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != pictures.labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    with written_whole(path) as aside, aside.open("wb") as file:
        np.savez(
            file,
            images=pictures.images[worst],
            index=worst,
            actual=pictures.labels[worst],
            predicted=predicted[worst],
            confidence=confidence[worst].astype(np.float32),
        )


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with written_whole(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run_stage(evaluate, __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
