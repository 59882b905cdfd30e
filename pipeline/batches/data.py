"""Arrays on disk -> a training and a validation part -> batches on the device.

A data set is small beside the memory of the machines that train on it, so it goes to the device once, as uint8, and
batches are cut there: no loader processes, nothing decoded or copied while training. On a CPU the arrays stay
memory-mapped, and all processes of a machine share them.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.batches import augment
from pipeline.config import Augment
from pipeline.errors import DataError
from pipeline.records import Meta


class Images(NamedTuple):
    """Images with their classes."""

    pixels: npt.NDArray[np.uint8]
    """[N, H, W, C]"""
    labels: npt.NDArray[np.int64]
    """[N]"""


class Mix(NamedTuple):
    """What has been mixed into the images of a batch."""

    labels: Tensor
    """int64 [B]: classes of the images mixed in"""
    share: Tensor
    """float32 [B]: of an image's own class in its target; the rest is that of the other"""


class Batch(NamedTuple):
    """What a training step sees."""

    images: Tensor
    """uint8 [B, C, H, W], channels last in memory"""
    labels: Tensor
    """int64 [B]"""
    mix: Mix | None = None
    """None: each image is one image"""


class Epochs(Protocol):
    """Batches for any epoch, cut anew for each."""

    def __len__(self) -> int:
        """Images in an epoch."""
        ...

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]: ...


def load_images(folder: Path, meta: Meta) -> Images:
    """Memory-maps images.npy and labels.npy. Raises DataError if they are missing, damaged or don't fit `meta`."""
    try:
        # Copy on write: torch wants memory that it could write to, and no write ever reaches the file.
        images = np.load(folder / "images.npy", mmap_mode="c")
        labels = np.load(folder / "labels.npy")
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: run `dvc repro`, or `python -m pipeline.download`.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"The arrays in {folder} can't be read ({error}): run `dvc repro -f download`.") from error
    channels, height, width = meta.shape
    if images.dtype != np.uint8 or images.shape != (len(labels), height, width, channels):
        raise DataError(
            f"{folder / 'images.npy'} holds {images.dtype} {list(images.shape)}, but meta.json and labels.npy promise "
            f"uint8 {[len(labels), height, width, channels]}: run `dvc repro -f download`."
        )
    return Images(images, labels)


def split(
    labels: npt.NDArray[np.int64], validation_share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the training and of the validation part, a share of each class, at least one image of each.

    Raises DataError if a class has a single image.
    """
    random = np.random.default_rng(seed)
    validation = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        if len(positions) < 2:
            raise DataError(f"Class {label} has a single training image: too few to hold one out for validation.")
        count = min(max(round(validation_share * len(positions)), 1), len(positions) - 1)
        validation.append(random.permutation(positions)[:count])
    held_out = np.sort(np.concatenate(validation))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def folds(
    labels: npt.NDArray[np.int64], count: int, seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Positions of the training and of the validation part of each of `count` folds, as even as can be.

    Each image is validated in one fold. Between two folds, the images differ by one at most, in all and of each
    class. Raises DataError if a class has fewer images than there are folds.
    """
    random = np.random.default_rng(seed)
    dealt = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        if len(positions) < count:
            raise DataError(
                f"Class {label} has too few training images ({len(positions)}) for {count} folds, each of which "
                "validates on one or more: lower train.folds, or add images of that class."
            )
        dealt.append(random.permutation(positions))
    # Dealt in turn like cards, from one class on to the next: so neither a class nor the whole is uneven by over one.
    order = np.concatenate(dealt)
    validation = [np.sort(order[fold::count]) for fold in range(count)]
    return [(np.setdiff1d(np.arange(len(labels)), held_out), held_out) for held_out in validation]


class TrainingBatches:
    """Shuffled, augmented batches of the images at `positions`.

    What epoch `number` (from 1) holds depends on `seed` and `number` alone, not on the epochs before: a training that
    goes on from a checkpoint sees what it would have seen. The last, incomplete batch is left out, as the order changes
    anyway; a part smaller than one batch is a batch.
    """

    def __init__(
        self,
        images: Images,
        positions: npt.NDArray[np.int64],
        *,
        batch_size: int,
        policy: Augment,
        fill: tuple[float, ...],
        seed: int,
        device: torch.device,
        small_epochs: int = 0,
    ) -> None:
        """Images are as small as `policy.small_side` says for the first `small_epochs` epochs."""
        self._images, self._labels = _on_device(images, positions, device)
        self._positions = torch.from_numpy(positions)
        self._small_epochs = small_epochs
        self._batch_size = min(batch_size, len(positions))
        self._policy = policy
        self._fill = fill
        self._seed = seed
        # By the place in the whole data, so that an image's flips are the same in every split.
        self._flipped_first = torch.randint(2, (len(images.labels),), generator=_generator(seed, 0)).bool()[
            self._positions
        ]

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return self.total // self._batch_size

    @property
    def total(self) -> int:
        """Images in the part, those of an incomplete last batch too."""
        return len(self._positions)

    def __len__(self) -> int:
        return self.steps * self._batch_size

    def epoch(self, number: int) -> Iterator[Batch]:
        # Drawn on the CPU and for the whole epoch: the same on every device, and one transfer.
        random = _generator(self._seed, number)
        order = torch.randperm(len(self._positions), generator=random)
        alternating = None
        if self._policy.flip == "alternating":
            alternating = self._flipped_first[order] ^ (number % 2 == 0)
        size, device = self._images.shape[1:3], self._images.device
        draws = augment.draw(self._policy, len(order), size, random, alternating).to(device)
        rows = self._positions[order] if device.type == "cpu" else order.to(device)
        for step in range(self.steps):
            part = slice(step * self._batch_size, (step + 1) * self._batch_size)
            images = augment.apply(self._images.index_select(0, rows[part]), draws[part], self._fill)
            labels = self._labels[rows[part]]
            mixing = augment.draw_mixing(self._policy, len(labels), size, random)
            mix = None
            if mixing is not None:
                mixing = mixing.to(device)
                images, mix = augment.mix(images, mixing), Mix(augment.partners(labels), mixing.share)
            if number <= self._small_epochs:
                images = augment.resized(images, self._policy.small_side)
            yield Batch(images, labels, mix)


class OrderedBatches:
    """Batches of the images at `positions`, all of them, as they are and in order: the same for every epoch."""

    def __init__(
        self, images: Images, positions: npt.NDArray[np.int64], *, batch_size: int, device: torch.device
    ) -> None:
        self._images, self._labels = _on_device(images, positions, device)
        positions_there = torch.from_numpy(positions)
        self._order = positions_there if device.type == "cpu" else torch.arange(len(positions), device=device)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return len(self._order)

    @property
    def steps(self) -> int:
        return math.ceil(len(self._order) / self._batch_size)

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        for part in torch.split(self._order, self._batch_size):
            yield Batch(self._images[part].permute(0, 3, 1, 2), self._labels[part])


def _on_device(images: Images, positions: npt.NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """All images on a CPU, where they are shared and cost nothing; the ones at `positions` on other devices."""
    if device.type == "cpu":
        return torch.from_numpy(images.pixels), torch.from_numpy(images.labels)
    return (
        torch.from_numpy(images.pixels[positions]).to(device),
        torch.from_numpy(images.labels[positions]).to(device),
    )


def _generator(seed: int, number: int) -> torch.Generator:
    """Of one epoch of one training: neighbours have nothing in common, unlike those of `seed + number`."""
    mixed = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> 1))
