"""Results of a training as the stages would leave them, made up; and the report's page as a test reads it."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.files import Project
from pipeline.reporting import page as pages
from pipeline.reporting import results
from pipeline.reporting.certainty import Predictions

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
VALUES = {
    "data.name": "cifar10",
    "data.url": None,
    "data.sha256": None,
    "data.image_size": None,
    "data.test_share": 0.2,
    "data.test_seed": 0,
    "model.family": "resnet",
    "model.depth": 20,
    "model.width": 16,
    "augment.policy": "crop_flip",
    "augment.padding": 0.125,
    "augment.cutout": 0.5,
    "train.seed": 0,
    "train.validation_share": 0.1,
    "train.validation_seed": 0,
    "train.epochs": 20,
    "train.batch_size": 128,
    "train.optimizer": "sgd",
    "train.learning_rate": 0.2,
    "train.momentum": 0.9,
    "train.weight_decay": 0.0005,
    "train.schedule": "one_cycle",
    "train.warmup": 0.25,
    "train.label_smoothing": 0.0,
    "train.device": "auto",
    "train.precision": "auto",
    "train.threads": None,
    "evaluate.batch_size": 500,
    "evaluate.calibration_bins": 15,
    "evaluate.mistakes": 24,
}


def confusion_of(classes: int, support: int = 1000) -> npt.NDArray[np.int64]:
    """A likely confusion matrix: most on the diagonal, a few classes mixed up more than others."""
    random = np.random.default_rng(1)
    shares = np.eye(classes) + 0.2 / classes * random.random((classes, classes)) ** 4
    if classes == 10:
        shares[3, 5], shares[5, 3], shares[2, 4] = 0.12, 0.1, 0.05
    shares /= shares.sum(axis=1, keepdims=True)
    return np.stack([random.multinomial(support, row) for row in shares])


def write_results(
    root: Path,
    classes: tuple[str, ...] = CIFAR,
    *,
    confusion: npt.NDArray[np.int64] | None = None,
    epochs: int = 20,
    mistakes: int = 24,
    side: int = 32,
    channels: int = 3,
    run: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    validation_accuracy: list[float] | None = None,
) -> Project:
    """Writes to `root` what the stages train and evaluate would leave for CIFAR-10, with some parts replaced."""
    project = Project(root, root)
    project.train.mkdir(parents=True)
    project.evaluate.mkdir(parents=True)
    random = np.random.default_rng(0)
    counts = confusion_of(len(classes)) if confusion is None else confusion
    total, right = counts.sum(), counts.trace()

    rows = []
    for epoch in range(1, epochs + 1):
        rate = min(epoch / (0.25 * epochs), max(0.0, (epochs - epoch) / (0.75 * epochs))) * 0.2
        learned = 1 - np.exp(-4 * epoch / epochs)
        wobble = random.normal(0, 0.02) * (1 - epoch / epochs)
        rows.append(
            {
                "epoch": epoch,
                "learning_rate": rate,
                "training_loss": 2.0 - 1.78 * learned,
                "training_accuracy": 0.25 + 0.69 * learned,
                "validation_loss": 1.9 - 1.6 * learned - 2 * wobble,
                "validation_accuracy": 0.3 + 0.61 * learned + wobble,
                "images_per_second": 1180 + random.normal(0, 20),
                "elapsed_s": 38.1 * epoch,
            }
        )
    for row, value in zip(rows, validation_accuracy or [], strict=False):
        row["validation_accuracy"] = value
    write_csv(project.history, rows)
    last = rows[-1]

    content = {
        "key": "7c1f6f0f5b0e4d3e9f64",
        "name": "resnet20 on cifar10",
        "started": "2026-10-03T12:41:07+00:00",
        "elapsed_s": 38.1 * epochs,
        "seconds_per_epoch": 38.1,
        "peak_memory_bytes": 1_432_000_000,
        "device": {"type": "cpu", "name": "AMD EPYC 9654", "threads": 2, "precision": "fp32"},
        "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
        "provenance": {
            "git_commit": "3f9d2c47a5e06b18d7c92f04a6b3e8105d7c4f21",
            "git_dirty": False,
            "dvc_data_hash": "md5:1c94bd0d3b6e51c2f7a3a0c54d8a2b7e.dir",
            "versions": {"python": "3.11.9", "torch": "2.14.1", "numpy": "2.4.6", "mlflow": "3.17.2", "dvc": "3.67.1"},
            "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
            "host": "somewhere",
        },
        "data": {
            "name": "cifar10",
            "digest": "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            "source": "the official archive",
            "classes": list(classes),
            "shape": [channels, side, side],
            "mean": [0.5] * channels,
            "std": [0.25] * channels,
            "counts": {"train": 50_000, "test": int(total)},
            "training": 45_000,
            "validation": 5_000,
        },
        "values": VALUES,
    } | (run or {})
    project.run.write_text(json.dumps(content))

    accuracy, z = right / total, 1.96
    middle = (accuracy + z**2 / (2 * total)) / (1 + z**2 / total)
    spread = z * np.sqrt(accuracy * (1 - accuracy) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    evaluate = {
        "accuracy": accuracy,
        "accuracy_low": middle - spread,
        "accuracy_high": middle + spread,
        "macro_f1": accuracy - 0.001,
        "nll": 0.312,
        "ece": 0.0213,
        "parameters": 269_722,
        "macs": 40_550_000,
        "images_per_second": 3120.5,
    }
    if len(classes) > 5:
        evaluate["top5_accuracy"] = 0.997
    train = {"epochs": epochs} | {name: last[name] for name in last if name not in ("epoch", "elapsed_s")}
    project.metrics.write_text(json.dumps({"train": train, "evaluate": evaluate | (metrics or {})}, default=float))

    recall = counts.diagonal() / np.maximum(counts.sum(axis=1), 1)
    precision = counts.diagonal() / np.maximum(counts.sum(axis=0), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    write_csv(
        project.per_class,
        [
            {"class": name, "precision": precision[i], "recall": recall[i], "f1": f1[i], "support": counts[i].sum()}
            for i, name in enumerate(classes)
        ],
    )
    with project.confusion_matrix.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("actual", *classes), *([name, *row] for name, row in zip(classes, counts, strict=True))]
        )
    actual, predicted = np.nonzero(counts * (1 - np.eye(len(classes), dtype=int)))
    chosen = random.choice(len(actual), mistakes, replace=len(actual) < mistakes) if mistakes else np.array([], int)
    np.savez(
        project.mistakes,
        images=np.stack([blob(random, side, channels) for _ in range(mistakes)])
        if mistakes
        else np.empty((0, side, side, channels), np.uint8),
        index=random.integers(0, total, mistakes),
        actual=actual[chosen].astype(np.int64),
        predicted=predicted[chosen].astype(np.int64),
        confidence=np.sort(1 - 0.2 * random.random(mistakes) ** 3)[::-1].astype(np.float32),
    )
    return project


def write_grid(project: Project, name: str = "depth", *, figure: bool = True) -> Path:
    """Writes what `python -m pipeline.study` would leave: a network that was trained, and one that diverged."""
    trained = {"trial": 0, "ended": "finished", "model.family": "vgg16", "model.depth": 20}
    trained |= {"parameters": 14_728_266, "macs": 313_463_808, "epochs": 20, "training_error": 0.0512}
    trained |= {"validation_error": 0.0731, "test_error": 0.0752, "elapsed_s": 754.2, "images_per_second": 1200.0}
    diverged = dict.fromkeys(trained, "") | {"trial": 1, "ended": "diverged", "model.family": "speed"}
    diverged |= {"model.depth": 8, "epochs": 0}
    table = project.grid_table(name)
    table.parent.mkdir(parents=True)
    write_csv(table, [trained | {"why": ""}, diverged | {"why": "the loss was nan"}])
    if figure:
        with Image.new("RGB", (1800, 700), "white") as image:
            image.save(project.grid_figure(name))
    return table


def blob(random: np.random.Generator, side: int, channels: int) -> npt.NDArray[np.uint8]:
    """An image that could be of something: a spot of one colour on a ground of another."""
    rows, columns = np.mgrid[:side, :side] / side
    centre, radius = random.uniform(0.3, 0.7, 2), random.uniform(0.15, 0.35, 2)
    inside = np.exp(-(((rows - centre[0]) / radius[0]) ** 2) - ((columns - centre[1]) / radius[1]) ** 2)[..., None]
    colours = random.integers(0, 255, (2, channels))
    noise = random.normal(0, 8, (side, side, channels))
    return np.clip(inside * colours[0] + (1 - inside) * colours[1] + noise, 0, 255).astype(np.uint8)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def predictions(count: int = 2000, accuracy: float = 0.8, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    actual = random.integers(0, 10, count)
    confidence = random.uniform(0.5, 1, count)
    is_right = random.random(count) < confidence
    return Predictions(actual, np.where(is_right, actual, (actual + 1) % 10), confidence)


def write_beside(project: Project, classes: tuple[str, ...] = CIFAR, count: int = 10_000) -> None:
    """Predictions and appearance of the test images."""
    found = predictions(count)
    write_csv(
        project.predictions,
        [
            {"index": place, "actual": classes[actual], "predicted": classes[guess], "confidence": f"{sure:.6f}"}
            for place, (actual, guess, sure) in enumerate(
                zip(found.actual, found.predicted, found.confidence, strict=True)
            )
        ],
    )
    looks = np.where(found.right, 120, 40) + np.random.default_rng(1).normal(0, 30, count)
    write_csv(
        project.appearance,
        [
            {"index": place, "brightness": f"{value:.3f}", "contrast": 1.0, "sharpness": value % 7}
            for place, value in enumerate(looks)
        ],
    )


class Page(HTMLParser):
    """An HTML page as a test reads it: its text with plain single spaces, its elements with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.text = " ".join("".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open.append(tag)
        if tag not in ("strong", "span", "a", "code"):
            self._words.append(" ")

    def handle_endtag(self, tag: str) -> None:
        while self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self._words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


ALONE = pages.Beside("No search has been made here.")


def page_of(project: Project) -> Page:
    """The page without its PNG files, which take most of the time."""
    return Page(pages.page(results.read(project), ALONE))


def data_in(page: Page) -> dict[str, Any]:
    """What the page's script draws."""
    found: dict[str, Any] = json.loads(page.html.partition('id="data">')[2].partition("</script>")[0])
    return found
