"""A trained network that was read from a file, whatever its format."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Loaded(NamedTuple):
    """What it takes and gives, and what it computes."""

    description: Mapping[str, Any]
    """That of a pipeline.networks.Classifier."""
    logits: "Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]"
    """uint8 [N, C, H, W] -> [N, classes], for any N."""
