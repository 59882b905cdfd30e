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

from pipeline import augment
from pipeline.config import Augment
from pipeline.errors import DataError
from pipeline.meta import Meta


class Pictures(NamedTuple):
    """Pictures with their classes."""

    images: npt.NDArray[np.uint8]
    """[N, H, W, C]"""
    labels: npt.NDArray[np.int64]
    """[N]"""


class Batch(NamedTuple):
    """What a training step sees."""

    images: Tensor
    """uint8 [B, C, H, W], channels last in memory"""
    labels: Tensor
    """int64 [B]"""


class Epochs(Protocol):
    """Batches for any epoch, cut anew for each."""

    def __len__(self) -> int:
        """Pictures in an epoch."""
        ...

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]: ...


def load_pictures(folder: Path, meta: Meta) -> Pictures:
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
    return Pictures(images, labels)


def split(
    labels: npt.NDArray[np.int64], validation_share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the training and of the validation part, a share of each class, at least one picture of each.

    Raises DataError if a class has a single picture.
    """
    random = np.random.default_rng(seed)
    validation = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        if len(positions) < 2:
            raise DataError(f"Class {label} has a single training picture: too few to hold one out for validation.")
        count = min(max(round(validation_share * len(positions)), 1), len(positions) - 1)
        validation.append(random.permutation(positions)[:count])
    held_out = np.sort(np.concatenate(validation))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


class TrainingBatches:
    """Shuffled, augmented batches of the pictures at `positions`.

    What epoch `number` holds depends on `seed` and `number` alone, not on the epochs before: a training that goes on
    from a checkpoint sees what it would have seen. The last, incomplete batch is left out, as the order changes anyway;
    a part smaller than one batch is a batch.
    """

    def __init__(
        self,
        pictures: Pictures,
        positions: npt.NDArray[np.int64],
        *,
        batch_size: int,
        policy: Augment,
        fill: tuple[float, ...],
        seed: int,
        device: torch.device,
    ) -> None:
        self._images, self._labels = _on_device(pictures, positions, device)
        self._positions = torch.from_numpy(positions)
        self._batch_size = min(batch_size, len(positions))
        self._policy = policy
        self._fill = fill
        self._seed = seed

    @property
    def pictures(self) -> int:
        """Pictures in the part, those of an incomplete last batch too."""
        return len(self._positions)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self._positions) // self._batch_size

    def __len__(self) -> int:
        return self.steps * self._batch_size

    def epoch(self, number: int) -> Iterator[Batch]:
        # Drawn on the CPU and for the whole epoch: the same on every device, and one transfer.
        random = torch.Generator().manual_seed(_mixed(self._seed, number))
        order = torch.randperm(len(self._positions), generator=random)
        if self._images.device.type == "cpu":
            order = self._positions[order]
        draws = augment.draw(self._policy, len(order), self._images.shape[1:3], random).to(self._images.device)
        order = order.to(self._images.device)
        for step in range(self.steps):
            part = slice(step * self._batch_size, (step + 1) * self._batch_size)
            images = self._images[order[part]]
            yield Batch(augment.apply(images, draws[part], self._fill), self._labels[order[part]])


class OrderedBatches:
    """Batches of the pictures at `positions`, all of them, as they are and in order: the same for every epoch."""

    def __init__(
        self, pictures: Pictures, positions: npt.NDArray[np.int64], *, batch_size: int, device: torch.device
    ) -> None:
        self._images, self._labels = _on_device(pictures, positions, device)
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


def _on_device(pictures: Pictures, positions: npt.NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """All pictures on a CPU, where they are shared and cost nothing; the ones at `positions` on other devices."""
    if device.type == "cpu":
        return torch.from_numpy(pictures.images), torch.from_numpy(pictures.labels)
    return (
        torch.from_numpy(pictures.images[positions]).to(device),
        torch.from_numpy(pictures.labels[positions]).to(device),
    )


def _mixed(seed: int, number: int) -> int:
    """A seed for one epoch of one training: neighbours have nothing in common, unlike those of `seed + number`."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)
