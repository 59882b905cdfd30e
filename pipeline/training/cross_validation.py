"""A training as the rest of the house sees it: one network or, with train.folds, one per fold.

Cross-validation trains one network per fold. Each is validated on its fold and trained on the others. The networks
advance together, one epoch at a time, and each epoch is reported once, by the means over the folds. The training as a
whole is paused, resumed and stopped.
"""

import statistics
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.batches import splits
from pipeline.batches.batches import Epochs
from pipeline.batches.images import Images
from pipeline.batches.loaders import Loader
from pipeline.config import Config, Train
from pipeline.errors import DataError, Diverged
from pipeline.networks import Classifier
from pipeline.records import Epoch, Folds, Meta
from pipeline.training import loop
from pipeline.training.calibration import divide_logits, temperature
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.device import Device
from pipeline.training.failures import memory_errors
from pipeline.training.parts import Parts


@dataclass(frozen=True)
class Training:
    """One network, or one per fold, and the epochs that each has behind it."""

    config: Train
    device: Device
    parts: Sequence[Parts]
    checkpoints: Sequence[Checkpoint | None]
    paths: Sequence[Path]
    """Of the checkpoints: checkpoint.pt, checkpoint-2.pt, ..."""
    histories: Sequence[list[Epoch]]
    """The epochs of each network. After a kill some networks may be ahead of the others."""

    @classmethod
    def of(
        cls, config: Config, meta: Meta, images: Images, device: Device, folder: Path, loader: Loader | None = None
    ) -> "Training":
        """The training of `config`, resumed from the checkpoints in `folder` where there are some.

        `loader` is that of an earlier training with these images; None: a new one. Raises DataError, ConfigError,
        DownloadError and OutOfMemory.
        """
        train = config.train
        _check_classes(images.labels, meta, train)
        with memory_errors(device, train.batch_size):
            if loader is None:
                loader = device.loader(images)
            if train.folds is None:
                parts = [Parts.build(config, meta, images, device, loader=loader)]
            else:
                parts = [
                    Parts.build(config, meta, images, device, loader=loader, positions=positions, seed=seed)
                    for positions, seed in zip(
                        splits.folds(images.labels, train.folds, train.validation_seed, images.groups, meta.classes),
                        seeds(train),
                        strict=True,
                    )
                ]
            names = ["checkpoint.pt", *(f"checkpoint-{number}.pt" for number in range(2, len(parts) + 1))]
            paths = [folder / name for name in names]
            checkpoints = [Checkpoint.load(path) for path in paths]
            for part, checkpoint in zip(parts, checkpoints, strict=True):
                if checkpoint:
                    part.network.load_state_dict(checkpoint.model)
                loop.place(part.network, device)
        histories = [list(checkpoint.epochs) if checkpoint else [] for checkpoint in checkpoints]
        return cls(train, device, parts, checkpoints, paths, histories)

    @property
    def done(self) -> list[Epoch]:
        """The epochs that all networks have behind them, as means over the networks."""
        return [self._mean(number) for number in range(1, min(map(len, self.histories)) + 1)]

    @property
    def over(self) -> bool:
        """Whether the training has ended, at train.epochs or by train.early_stopping."""
        return loop.over(self.done, self.config)

    @property
    def network(self) -> Classifier:
        """The network that is saved: with folds that of the first fold."""
        return self.parts[0].network

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of images that the saved network is trained and validated on."""
        first = self.parts[0]
        return {"training": first.training.total, "validation": len(first.validation)}

    @property
    def images_per_epoch(self) -> int:
        """Images that all networks together train on in an epoch."""
        return sum(len(part.training) for part in self.parts)

    @property
    def folds(self) -> Folds | None:
        """The result of a cross-validation after its last epoch; None without folds."""
        if len(self.parts) == 1:
            return None
        accuracies = self.accuracies(len(self.done))
        return Folds(len(accuracies), accuracies, statistics.fmean(accuracies), statistics.stdev(accuracies))

    def accuracies(self, number: int) -> list[float]:
        """Validation accuracy of each network after epoch `number`."""
        return [history[number - 1].validation_accuracy for history in self.histories]

    @property
    def kept(self) -> int:
        """How many epochs of all networks are in checkpoints on disk."""
        return min(len(there.epochs) if (there := Checkpoint.load(path)) else 0 for path in self.paths)

    def fit(self, wrap: Callable[[Epochs], Epochs] = lambda batches: batches) -> Generator[Epoch, None, None]:
        """Trains and yields each epoch as it ends, like `loop.fit`; `wrap` may wrap the training batches.

        A caller that wants no more epochs closes it, and all that were yielded are in checkpoints. Raises Diverged and
        OutOfMemory.
        """
        fits = [
            loop.fit(
                part.network,
                wrap(part.training),
                part.validation,
                # The mean over the folds decides on early stopping, no single network does.
                self.config.model_copy(update={"seed": seed, "early_stopping": None}),
                self.device,
                path=path,
                checkpoint=checkpoint,
            )
            for part, seed, path, checkpoint in zip(
                self.parts, seeds(self.config), self.paths, self.checkpoints, strict=True
            )
        ]
        try:
            while not self.over:
                number = len(self.done) + 1
                for fold, (fit, history) in enumerate(zip(fits, self.histories, strict=True), start=1):
                    if len(history) < number:
                        with self._naming_fold(fold):
                            history.append(next(fit))
                yield self._mean(number)
        finally:
            for fit in fits:
                fit.close()

    def infer(self) -> tuple[Tensor, Tensor]:
        """Logits and labels of the validation images. With folds these are all images, each predicted by the network
        that was not trained on it. Raises OutOfMemory."""
        with memory_errors(self.device, self.config.batch_size):
            found = [loop.infer(part.network, part.validation, self.device) for part in self.parts]
            return torch.cat([logits for logits, _ in found]), torch.cat([labels for _, labels in found])

    def calibrate(self, logits: Tensor, labels: Tensor) -> float:
        """Divides the logits of the saved network by the temperature that suits its validation part, and returns it.

        `logits` and `labels` are those that `infer` gives. To be called when the training is over, before the network
        is saved: it can't be trained on after that.
        """
        count = len(self.parts[0].validation)
        divisor = temperature(logits[:count], labels[:count])
        divide_logits(self.network, divisor)
        return divisor

    def _mean(self, number: int) -> Epoch:
        return mean([history[number - 1] for history in self.histories], [len(part.training) for part in self.parts])

    @contextmanager
    def _naming_fold(self, fold: int) -> Iterator[None]:
        """A context that adds the number of the fold to a Diverged."""
        try:
            yield
        except Diverged as error:
            if len(self.parts) == 1:
                raise
            raise Diverged(f"Fold {fold} of {len(self.parts)}: {error}") from error


def _check_classes(labels: npt.NDArray[np.int64], meta: Meta, train: Train) -> None:
    """Raises DataError, with the names of the classes, if some have too few images for the validation."""
    least = train.folds or 2
    counts = np.bincount(labels, minlength=len(meta.classes))
    rare = [f"{name} ({count})" for name, count in zip(meta.classes, counts, strict=True) if 0 < count < least]
    if not rare:
        return
    more = f" and {len(rare) - 10} more classes" if len(rare) > 10 else ""
    raise DataError(
        f"Too few training images of {', '.join(rare[:10])}{more}: "
        + (
            f"each of {least} folds validates on one or more of each class. Lower train.folds, or add images."
            if train.folds
            else "one of each class is held out for validation, and one more is needed to train on. Add images, or "
            "leave the class out."
        )
    )


def mean(epochs: Sequence[Epoch], images: Sequence[int]) -> Epoch:
    """The same epoch of several networks as one; `images` says how many each of them was trained on.

    Losses, accuracies and the learning rate are means. Seconds are sums. The speed is all images divided by all time.
    """
    if len(epochs) == 1:
        return epochs[0]
    seconds = sum(count / epoch.images_per_second for count, epoch in zip(images, epochs, strict=True))
    return Epoch(
        number=epochs[0].number,
        learning_rate=statistics.fmean(epoch.learning_rate for epoch in epochs),
        training_loss=statistics.fmean(epoch.training_loss for epoch in epochs),
        training_accuracy=statistics.fmean(epoch.training_accuracy for epoch in epochs),
        validation_loss=statistics.fmean(epoch.validation_loss for epoch in epochs),
        validation_accuracy=statistics.fmean(epoch.validation_accuracy for epoch in epochs),
        images_per_second=sum(images) / seconds,
        elapsed_s=sum(epoch.elapsed_s for epoch in epochs),
    )


def seeds(config: Train) -> list[int]:
    """The seed of each network: train.seed, or with folds seeds derived from it."""
    if config.folds is None:
        return [config.seed]
    return [int(seed >> 1) for seed in np.random.SeedSequence(config.seed).generate_state(config.folds)]
