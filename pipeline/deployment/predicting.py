"""Images -> classes with their probabilities, batch after batch. Images are decoded on all granted cores."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.datasets import outside
from pipeline.datasets.images import strict_warnings
from pipeline.deployment.inputs import Input
from pipeline.deployment.opened import Opened
from pipeline.machine import granted_cores

BATCH_SIZE = 128


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image."""

    name: str
    """Of the image."""
    pixels: npt.NDArray[np.uint8]
    """[C, H, W], as the network saw it."""
    probabilities: npt.NDArray[np.float64]
    """[classes]"""

    def top(self, count: int) -> list[int]:
        """The most probable classes, the first one first."""
        return [int(label) for label in np.argsort(-self.probabilities, kind="stable")[:count]]


@dataclass(frozen=True)
class Unreadable:
    """An image that can't be read."""

    name: str
    reason: str


_Decoded = npt.NDArray[np.uint8] | str


def predict(model: Opened, images: Sequence[Input], batch_size: int = BATCH_SIZE) -> Iterator[Prediction | Unreadable]:
    """An answer to each image, in their order. The next batch is decoded while the network computes."""

    def decoding(start: int) -> list[Future[_Decoded]]:
        return [threads.submit(_pixels, image, model) for image in images[start : start + batch_size]]

    with strict_warnings(), ThreadPoolExecutor(granted_cores()) as threads:
        try:
            following = decoding(0)
            for start in range(0, len(images), batch_size):
                current, following = following, decoding(start + batch_size)
                names = [image.name for image in images[start : start + batch_size]]
                yield from _answers(model, names, [future.result() for future in current])
        finally:
            threads.shutdown(cancel_futures=True)


def _pixels(image: Input, model: Opened) -> _Decoded:
    source = image.open()
    return source if isinstance(source, str) else outside.pixels(source, model.shape, model.highest_float)


def _answers(model: Opened, names: Sequence[str], decoded: Sequence[_Decoded]) -> Iterator[Prediction | Unreadable]:
    readable = [pixels for pixels in decoded if not isinstance(pixels, str)]
    probabilities = iter(model.probabilities(np.stack(readable)) if readable else ())
    for name, pixels in zip(names, decoded, strict=True):
        yield Unreadable(name, pixels) if isinstance(pixels, str) else Prediction(name, pixels, next(probabilities))
