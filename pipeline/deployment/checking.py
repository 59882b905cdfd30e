"""Whether a network predicts the same in another format, how large it is there and how fast."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.deployment.opened import Opened
from pipeline.evaluation.comparing import Comparison

BATCH_SIZES = (1, 128)
_MEASURED_S = 1.5
_FEWEST = 20
_MOST = 2000


@dataclass(frozen=True)
class Latency:
    """Milliseconds from an array of images to logits, in this process."""

    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.p50_ms:.3g}, {self.p99_ms:.3g}"


@dataclass(frozen=True)
class Measured:
    """One form of a network."""

    form: str
    path: Path
    size_bytes: int
    latencies: dict[int, Latency]
    """By batch size."""
    accuracy: float
    comparison: Comparison | None = None
    """With the network that it was made of; None for that one."""

    @property
    def fields(self) -> tuple[str, ...]:
        """For a row under HEADINGS."""
        found = self.comparison
        return (
            self.form,
            f"{self.size_bytes / 1e6:.2f} MB",
            f"{self.accuracy:.2%}",
            f"{found.largest_difference:.2g}" if found else "",
            f"{found.changed:,}" if found else "",
            *(str(self.latencies[size]) for size in BATCH_SIZES),
        )


# Differences are those of probabilities; "other class" counts images that are given another one.
HEADINGS = (
    "",
    "size",
    "accuracy",
    "largest difference",
    "other class",
    *(f"batch {size}: p50, p99 ms" for size in BATCH_SIZES),
)


def measure(form: str, path: Path, model: Opened, accuracy: float, comparison: Comparison | None = None) -> Measured:
    """Takes some seconds."""
    latencies = {size: latency(model.logits, model.shape, size) for size in BATCH_SIZES}
    return Measured(form, path, path.stat().st_size, latencies, accuracy, comparison)


def latency(
    logits: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]], shape: tuple[int, ...], batch_size: int
) -> Latency:
    """Of at least 20 calls after three that warm up; of more, if they are quick."""
    images = np.random.default_rng(0).integers(0, 256, (batch_size, *shape), dtype=np.uint8)
    for _ in range(3):
        logits(images)
    passes_ms: list[float] = []
    while len(passes_ms) < _FEWEST or (sum(passes_ms) < 1000 * _MEASURED_S and len(passes_ms) < _MOST):
        began = time.perf_counter()
        logits(images)
        passes_ms.append(1000 * (time.perf_counter() - began))
    p50, p99 = np.percentile(passes_ms, [50, 99])
    return Latency(float(p50), float(p99))
