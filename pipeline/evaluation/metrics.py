"""Figures of predictions."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.records import Scores

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


def score(probabilities: Floats, labels: Ints, bins: int) -> Scores:
    """Scores of probabilities [N, classes] against labels [N]; `bins` is for the calibration error."""
    from scipy.stats import binomtest
    from sklearn.metrics import f1_score, log_loss, top_k_accuracy_score

    classes = range(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    correct = int((predicted == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
    top5 = float(top_k_accuracy_score(labels, probabilities, k=5, labels=classes)) if len(classes) > 5 else None
    return Scores(
        accuracy=correct / len(labels),
        accuracy_low=float(interval.low),
        accuracy_high=float(interval.high),
        top5_accuracy=top5,
        macro_f1=float(f1_score(labels, predicted, labels=classes, average="macro", zero_division=0.0)),
        nll=float(log_loss(labels, probabilities, labels=classes)),
        ece=expected_calibration_error(probabilities, labels, bins),
    )


def with_temperature(probabilities: Floats, temperature: float) -> Floats:
    """The probabilities [N, classes] that the same logits give when they are divided by `temperature`."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Floats = scaled / scaled.sum(axis=1, keepdims=True)
    return found


def expected_calibration_error(probabilities: Floats, labels: Ints, bins: int) -> float:
    """Mean distance of confidence and accuracy over bins of equal width (Guo et al. 2017, section 2, equation 3)."""
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    # Bins are open at the left, closed at the right, as in the paper.
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def per_class(probabilities: Floats, labels: Ints, classes: Sequence[str]) -> dict[str, list[Any]]:
    """Columns class, precision, recall, f1 and support (test images), a row per class."""
    from sklearn.metrics import precision_recall_fscore_support

    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), zero_division=0.0
    )
    return {
        "class": list(classes),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        # Not scikit-learn's, which are floats if no prediction is right.
        "support": np.bincount(labels, minlength=len(classes)).tolist(),
    }


def confusion_matrix(probabilities: Floats, labels: Ints) -> Ints:
    """Counts [actual, predicted]."""
    from sklearn.metrics import confusion_matrix as counted

    matrix: Ints = counted(labels, probabilities.argmax(axis=1), labels=range(probabilities.shape[1]))
    return matrix
