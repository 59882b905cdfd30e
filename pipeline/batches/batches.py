"""Batches on the device: shuffled and augmented to train on, or all images in order.

A loader brings the images; see loaders.py. They are augmented on the device, as whole batches.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.batches import augment
from pipeline.batches.loaders import Loader
from pipeline.batches.splits import Positions
from pipeline.config import Augment


class Mix(NamedTuple):
    """What mixup or cutmix has mixed into the images of a batch."""

    labels: Tensor
    """int64 [B]: classes of the images mixed in"""
    share: Tensor
    """float32 [B], 0..1: share of the image's own class in its target; the class mixed in has the rest"""


class Batch(NamedTuple):
    """What a training step sees."""

    images: Tensor
    """uint8 [B, C, H, W], channels last in memory"""
    labels: Tensor
    """int64 [B]"""
    mix: Mix | None = None
    """None: nothing is mixed in"""


class Epochs(Protocol):
    """The batches of any epoch."""

    def __len__(self) -> int:
        """Images in an epoch."""
        ...

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`, from 1."""
        ...


class TrainingBatches:
    """Shuffled, augmented batches of the images at `positions`.

    Epoch `number` (from 1) depends on `seed` and `number` alone, not on the epochs before, so that a resumed training
    gets the same batches. An incomplete last batch is left out; its images differ from epoch to epoch. With fewer
    images than `batch_size` all of them are one batch.
    """

    def __init__(
        self,
        loader: Loader,
        positions: Positions,
        *,
        batch_size: int,
        policy: Augment,
        fill: tuple[float, ...],
        seed: int,
        small_epochs: int = 0,
    ) -> None:
        """`fill` is the colour of what augmentation blanks: a value per channel, 0..1.

        The first `small_epochs` epochs have images resized by `policy.small_side`.
        """
        self._loader = loader
        self._positions = torch.from_numpy(positions)
        self._small_epochs = small_epochs
        self._batch_size = min(batch_size, len(positions))
        self._policy = policy
        self._colour = augment.colour_of(fill, loader.device)
        self._seed = seed
        batch_bytes = self._batch_size * loader.images.pixels[:1].nbytes
        self._at_once = max(1, loader.at_once_bytes // batch_bytes)
        """Batches that are augmented together."""
        # Drawn for the whole training set, so that an image's flips are the same in every split.
        self._flipped_first = torch.randint(2, (len(loader.images.labels),), generator=_generator(seed, 0)).bool()[
            self._positions
        ]

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return self.total // self._batch_size

    @property
    def total(self) -> int:
        """Images in the part, those of an incomplete last batch included."""
        return len(self._positions)

    @property
    def positions(self) -> Positions:
        """Of the images in the whole training set."""
        return self._positions.numpy()

    def __len__(self) -> int:
        return self.steps * self._batch_size

    def epoch(self, number: int) -> Iterator[Batch]:
        # Drawn on the CPU, so that the numbers are the same on every device, and for the whole epoch, in one transfer.
        random = _generator(self._seed, number)
        order = torch.randperm(len(self._positions), generator=random)
        alternating = None
        if self._policy.flip == "alternating":
            alternating = self._flipped_first[order] ^ (number % 2 == 0)
        _, height, width, _ = self._loader.images.pixels.shape
        size, device = (height, width), self._loader.device
        together = self._batch_size * self._at_once
        draws = augment.draw(self._policy, len(order), size, random, alternating)
        draws = draws[: len(self)].to(device, together)
        mixings = iter(augment.draw_mixings(self._policy, self.steps, self._batch_size, size, random, device))
        small, mixes = number <= self._small_epochs, bool(self._policy.mixup or self._policy.cutmix)
        whole_batches = self._positions[order[: len(self)]]
        for place, (many, labels) in enumerate(self._loader.load(whole_batches, together)):
            changed = augment.apply(many, draws[place * together : (place + 1) * together], self._colour)
            if small and not mixes:
                changed = augment.resized(changed, self._policy.small_side)
            for images, their in zip(
                *(torch.split(whole, self._batch_size) for whole in (changed, labels)), strict=True
            ):
                mixing = next(mixings)
                if mixing is None:
                    yield Batch(images, their)
                    continue
                mixed = augment.mix(images, mixing)
                if small:
                    mixed = augment.resized(mixed, self._policy.small_side)
                yield Batch(mixed, their, Mix(augment.partners(their), mixing.share))


class OrderedBatches:
    """Batches of all images at `positions`, unchanged and in order: the same for every epoch."""

    def __init__(self, loader: Loader, positions: Positions, *, batch_size: int) -> None:
        self.positions = positions
        """Of the images in the whole data set."""
        self._loader = loader
        self._batch_size = batch_size

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def steps(self) -> int:
        return math.ceil(len(self.positions) / self._batch_size)

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        for images, labels in self._loader.load(torch.from_numpy(self.positions), self._batch_size):
            yield Batch(images.permute(0, 3, 1, 2), labels)


def _generator(seed: int, number: int) -> torch.Generator:
    """The generator of one epoch of one training. Seeds of `seed + number` would repeat among trainings."""
    mixed = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> 1))
