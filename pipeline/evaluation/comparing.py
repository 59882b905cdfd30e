"""Two forms of one network on a whole part of the data: do they predict the same?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.batches import splits
from pipeline.batches.images import Images, load_images
from pipeline.config import Config
from pipeline.evaluation import test_set
from pipeline.evaluation.metrics import Floats, Ints
from pipeline.files import Project
from pipeline.records import Meta

PartName = Literal["validation", "test"]
Predict: TypeAlias = Callable[[npt.NDArray[np.uint8]], Floats]
"""uint8 [N, C, H, W] -> probabilities [N, classes]."""

_BATCH_SIZE = 128


@dataclass(frozen=True)
class Part:
    """Some images of a data set."""

    name: PartName
    _images: Images
    _positions: Ints

    def __len__(self) -> int:
        return len(self._positions)

    def pixels(self, start: int, count: int) -> npt.NDArray[np.uint8]:
        """Consecutive images, [N, C, H, W]."""
        return np.ascontiguousarray(self._images.gather(self._positions[start : start + count]).transpose(0, 3, 1, 2))

    @property
    def labels(self) -> Ints:
        return self._images.labels[self._positions]


@dataclass(frozen=True)
class Comparison:
    """What two forms of a network predict for the same images."""

    accuracy_before: float
    accuracy_after: float
    largest_difference: float
    """Of two probabilities of one image and class."""
    changed: int
    """Images whose class is another one."""


def read_part(project: Project, settings: Config, meta: Meta, name: PartName) -> Part:
    """The test set, or the images that a training by params.yaml does not see. Raises DataError."""
    if name == "test":
        images = test_set.load_all(project, meta)
        return Part(name, images, np.arange(len(images.labels)))
    images, train = load_images(project.training_data, meta), settings.train
    if train.folds:  # the network that is saved is that of the first fold
        folds = splits.folds(images.labels, train.folds, train.validation_seed, images.groups, meta.classes)
        return Part(name, images, folds[0][1])
    return Part(name, images, splits.held_out(images, train, meta.classes)[1])


def compare(part: Part, before: Predict, after: Predict) -> Comparison:
    found = [
        (before(pixels), after(pixels))
        for pixels in (part.pixels(start, _BATCH_SIZE) for start in range(0, len(part), _BATCH_SIZE))
    ]
    old, new = (np.concatenate(each) for each in zip(*found, strict=True))
    guesses = old.argmax(axis=1), new.argmax(axis=1)
    right = [float((guess == part.labels).mean()) for guess in guesses]
    return Comparison(right[0], right[1], float(np.abs(old - new).max()), int((guesses[0] != guesses[1]).sum()))
