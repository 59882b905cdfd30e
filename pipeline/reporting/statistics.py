"""Small statistics of the report, in numpy and plain Python."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Z = 1.959964
"""Of a 95 % interval."""


def wilson(right: float, total: float, z: float = Z) -> tuple[float, float]:
    """The interval of a share, 95 % if `z` is not given (Wilson 1927); 0 to 1 if there is nothing to count."""
    if total <= 0:
        return 0.0, 1.0
    share = right / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    spread = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    return max(0.0, middle - spread), min(1.0, middle + spread)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value that two results on the same images differ by chance alone (McNemar 1947).

    The counts are those of the images that only one of the two gets right: by chance each is as likely as the other.
    """
    total, fewer = only_first + only_second, min(only_first, only_second)
    # Whole numbers, as a float would underflow after a thousand images.
    tail = sum(math.comb(total, count) for count in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**total))


def explained(values: Sequence[object], scores: Sequence[float], *, is_scale: bool) -> float:
    """The share of the differences in rank of `scores` that one key alone explains, 0..1, corrected for chance.

    On a scale a parabola over the key's ranks is fitted; of choices each has its own mean.
    """
    ranks = _ranks(scores)
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if is_scale:
        along = _ranks([float(value) for value in values])  # type: ignore[arg-type]
        design = np.vander(along / max(1.0, along.max()), 3)
    else:
        design = np.array([[value == choice for choice in dict.fromkeys(values)] for value in values], dtype=np.float64)
    free = len(ranks) - int(np.linalg.matrix_rank(design))
    if total == 0 or free <= 0:
        return 0.0
    fitted = design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
    left = float(((ranks - fitted) ** 2).sum())
    return max(0.0, 1 - (left / free) / (total / (len(ranks) - 1)))


def _ranks(numbers: Sequence[float]) -> npt.NDArray[np.float64]:
    """The rank of each number, equal ones sharing the mean of theirs."""
    _, places, counts = np.unique(np.asarray(numbers, dtype=np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (ends - (counts - 1) / 2)[places]
    return ranks
