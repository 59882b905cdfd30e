"""What a training is made of: a network, the batches that it trains on, and those that validate it."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline import networks
from pipeline.batches import splits
from pipeline.batches.batches import OrderedBatches, TrainingBatches
from pipeline.batches.images import Images
from pipeline.batches.loaders import Loader
from pipeline.batches.splits import Positions
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.networks import Classifier
from pipeline.records import Meta
from pipeline.training.device import Device


class Parts(NamedTuple):
    """The first three arguments of `fit`."""

    network: Classifier
    training: TrainingBatches
    validation: OrderedBatches

    @classmethod
    def build(
        cls,
        config: Config,
        meta: Meta,
        images: Images,
        device: Device,
        *,
        loader: Loader | None = None,
        positions: tuple[Positions, Positions] | None = None,
        seed: int | None = None,
    ) -> "Parts":
        """An untrained network, prepared by training images, and both parts of the training set `images`.

        `loader` is the one that brings them to the device, which folds share; None: one for this training alone.
        `positions` are those of the training and of the validation images; None: those of `splits.held_out`.
        `seed` is that of the initial weights, the order and the augmentation; None: train.seed. Raises DataError and
        ConfigError.
        """
        train = config.train
        training, validation = positions or splits.held_out(images, train, meta.classes)
        seed = train.seed if seed is None else seed
        loader = loader or device.loader(images)
        network = networks.build(config.model, meta, seed)
        network.prepare(_sample(images, training))
        return cls(
            network=network,
            training=TrainingBatches(
                loader,
                training,
                batch_size=train.batch_size,
                policy=config.augment,
                fill=meta.mean,
                seed=seed,
                small_epochs=_small_epochs(config, network, meta),
            ),
            validation=OrderedBatches(loader, validation, batch_size=train.batch_size),
        )


def _small_epochs(config: Config, classifier: Classifier, meta: Meta) -> int:
    """How many epochs have small images. Raises ConfigError if they are too small for the network."""
    if config.augment.small_side == 1:
        return 0
    network = classifier.network
    side = round(config.augment.small_side * min(meta.shape[1:]))
    if network.image_size is None and not network.takes(side, side):
        raise ConfigError(
            f"augment.small_side is {config.augment.small_side}, which makes images of {side} pixels a side, but "
            f"model.family {config.model.family} needs {network.least_side}: raise it, or set it to 1 to go without.",
            keys=("augment.small_side", *networks.SIZE_KEYS),
        )
    return round(config.augment.small_until * config.train.epochs)


def _sample(images: Images, positions: Positions) -> Tensor:
    """Images spread evenly over a part, uint8 [N, C, H, W]: up to 2,000, fewer of large ones."""
    _, height, width, _ = images.pixels.shape
    count = min(2_000, max(1, 2_000_000 // (height * width)), len(positions))
    chosen = positions[np.linspace(0, len(positions) - 1, count).astype(int)]
    return torch.from_numpy(images.gather(chosen)).permute(0, 3, 1, 2)
