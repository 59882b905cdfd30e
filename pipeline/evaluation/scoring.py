"""Scores the model of a training on the test set and writes what that gives."""

import csv
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import config, networks, records
from pipeline.batches.batches import OrderedBatches
from pipeline.batches.images import Images
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.evaluation import examination, metrics, test_set
from pipeline.evaluation.inference import load_network, predict, prepared_device
from pipeline.evaluation.metrics import Floats, Ints
from pipeline.files import Project, atomic_write, write_csv
from pipeline.records import Calibration, EvaluateFigures, FoldFigures, Folds, Meta, Metrics, RunRecord, TrainFigures
from pipeline.training import loop
from pipeline.training.failures import memory_errors

SPEED_MEASURED_S = 0.3
"""Seconds that predictions are timed for: a single pass over a small test set takes milliseconds, which vary."""


@dataclass(frozen=True)
class Scored:
    """The figures of metrics.json, and the table of the classes: columns by name, a row per class."""

    metrics: Metrics
    per_class: dict[str, list[Any]]


def score_model(project: Project, settings: Config, record: RunRecord) -> Scored:
    """Writes metrics.json and the files below results/evaluate, and returns the figures.

    Raises ConfigError, DataError, OutOfMemory; PipelineError where the model is missing or is not that of params.yaml.
    """
    meta = records.load_meta(project.meta)
    _check_network(project.model, settings, record)
    device = prepared_device(settings)
    size, bins = settings.evaluate.batch_size, settings.evaluate.calibration_bins
    with memory_errors(device, size, "evaluate.batch_size"):
        loader, batches = test_set.load(project, meta, settings, device)
        images = loader.images
        network = load_network(settings.model, project.model, meta)
        macs = networks.macs(network, meta) if record.macs is None else record.macs
        loop.place(network, device)
        first = np.arange(len(images.labels))[:size]
        loop.infer(network, OrderedBatches(loader, first, batch_size=size), device)  # warm-up
        probabilities, seconds = _timed(lambda: predict(network, batches, device))
        flipped = predict(network, batches, device, flip=True) if settings.evaluate.tta == "flip" else None
    before = metrics.score(metrics.with_temperature(probabilities, 1 / record.temperature), images.labels, bins)
    figures = EvaluateFigures(
        **asdict(metrics.score(probabilities, images.labels, bins)),
        parameters=networks.parameters(network),
        macs=macs,
        images_per_second=round(len(images.labels) / seconds, 1),
        uncalibrated=Calibration(before.nll, before.ece),
        tta_flip=None if flipped is None else metrics.score(flipped, images.labels, bins),
    )
    table = metrics.per_class(probabilities, images.labels, meta.classes)
    matrix = metrics.confusion_matrix(probabilities, images.labels).tolist()
    with atomic_write(project.probabilities) as aside, aside.open("wb") as file:
        np.save(file, probabilities.astype(np.float32))
    _write_predictions(project.predictions, probabilities, images, meta)
    write_csv(project.per_class, list(table), zip(*table.values(), strict=True))
    counts = ([name, *row] for name, row in zip(meta.classes, matrix, strict=True))
    write_csv(project.confusion_matrix, ["actual", *meta.classes], counts)
    most, wrong = settings.evaluate.mistakes, _mistakes(probabilities, images)
    _write_images(project.mistakes, probabilities, images, wrong[:most])
    _write_images(project.suspects, probabilities, images, examination.suspects(probabilities, images.labels)[:most])
    rows = ([index, *np.round(row, 3)] for index, row in enumerate(examination.appearance(images)))
    write_csv(project.appearance, ["index", *examination.APPEARANCE], rows)
    found = Metrics(_last_epoch(project.history, record.folds), figures)
    records.write(found, project.metrics)
    return Scored(found, table)


_WITHOUT_EFFECT = ("dropout", "trained", "weights")
"""Keys of the section model that don't change what a trained network predicts."""


def _check_network(path: Path, settings: Config, record: RunRecord) -> None:
    """Raises PipelineError, with the values that differ, if the model is not of the network of params.yaml."""
    in_use = settings.model.in_use()
    now = {f"model.{key}": value for key, value in in_use.items() if key not in _WITHOUT_EFFECT}
    now |= {f"the code of {family}": digest for family, digest in config.code_digests(settings).items()}
    then = record.values | {f"the code of {family}": digest for family, digest in record.code.items()}
    differences = [
        f"  {key}: it was {json.dumps(then[key])}, it is {json.dumps(value)}"
        for key, value in now.items()
        if key in then and then[key] != value
    ]
    if path.exists() and differences:
        raise PipelineError(
            f"{path} does not hold the network of params.yaml. These values have changed since it was trained:\n"
            + "\n".join(differences)
            + "\nTrain it by `dvc repro`, or set them back."
        )


def _timed(work: Callable[[], Floats]) -> tuple[Floats, float]:
    """What `work` returns, and its fewest seconds: others, such as the process that sends to MLflow, only slow it."""
    passes_s: list[float] = []
    while sum(passes_s) < SPEED_MEASURED_S:
        began = time.perf_counter()
        found = work()
        passes_s.append(time.perf_counter() - began)
    return found, min(passes_s)


def _last_epoch(history: Path, folds: Folds | None) -> TrainFigures:
    """Of the training: the figures of its last epoch, never of its best."""
    with history.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = rows[-1]
    speed = statistics.median(float(row["images_per_second"]) for row in rows)
    return TrainFigures(
        epochs=int(last["epoch"]),
        training_loss=float(last["training_loss"]),
        training_accuracy=float(last["training_accuracy"]),
        validation_loss=float(last["validation_loss"]),
        validation_accuracy=float(last["validation_accuracy"]),
        images_per_second=round(speed, 1),
        folds=FoldFigures(folds.count, folds.mean, folds.sd) if folds else None,
    )


def _write_predictions(path: Path, probabilities: Floats, images: Images, meta: Meta) -> None:
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rows = (
        [index, meta.classes[actual], meta.classes[guess], f"{certain:.6f}"]
        for index, (actual, guess, certain) in enumerate(zip(images.labels, predicted, confidence, strict=True))
    )
    write_csv(path, ["index", "actual", "predicted", "confidence"], rows)


def _mistakes(probabilities: Floats, images: Images) -> Ints:
    """Positions of the wrongly classified images, the most certain mistake first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != images.labels)
    return wrong[np.argsort(-probabilities.max(axis=1)[wrong], kind="stable")]


def _write_images(path: Path, probabilities: Floats, images: Images, chosen: Ints) -> None:
    """The images at the positions `chosen`, with what they are and what they were taken for."""
    labels, chances = images.labels[chosen], probabilities[chosen]
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(
            file,
            images=images.gather(chosen),
            index=chosen,
            actual=labels,
            predicted=chances.argmax(axis=1),
            confidence=chances.max(axis=1).astype(np.float32),
            of_actual=chances[np.arange(len(chosen)), labels].astype(np.float32),
        )
