"""The training loop: `fit` yields an `Epoch` after each pass, and the caller decides what follows.

It leaves a checkpoint after each epoch. A training that goes on from one ends with the numbers of a training that was
never stopped: on a CPU with the same number of threads bit for bit.
"""

import io
import math
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from pipeline import models
from pipeline.config import Config, Train
from pipeline.data import Batch, Epochs, OrderedBatches, Pictures, TrainingBatches, split
from pipeline.device import Device
from pipeline.epoch import Epoch
from pipeline.errors import Diverged, OutOfMemory
from pipeline.files import written_whole
from pipeline.meta import Meta
from pipeline.models import Classifier

# How many steps may pass before the loss is looked at: often enough to lose little to a diverged training, seldom
# enough that a GPU, which has to be waited for, does not notice.
STEPS_BETWEEN_CHECKS = 50


@dataclass(frozen=True)
class Checkpoint:
    """All that `fit` needs to go on after an epoch.

    There is no state of random numbers in it: the draws of an epoch follow from the seed and the epoch's number.
    """

    epochs: list[Epoch]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]

    def save(self, path: Path) -> None:
        """Writes it to `path`; what was there stays beside it, as the one before. Raises OSError: a full disk."""
        content = {"epochs": [asdict(epoch) for epoch in self.epochs]} | {
            name: getattr(self, name) for name in ("model", "optimizer", "schedule")
        }
        # Into memory first: of a full disk torch.save itself would say no more than that writing failed.
        serialized = io.BytesIO()
        torch.save(content, serialized)
        with written_whole(path) as aside:
            aside.write_bytes(serialized.getbuffer())
            with suppress(FileNotFoundError):
                path.replace(_before(path))

    @classmethod
    def load(cls, path: Path) -> "Checkpoint | None":
        """The checkpoint at `path`, the one before if that can't be read; None if there is neither."""
        for candidate in (path, _before(path)):
            try:
                content = torch.load(candidate, map_location="cpu", weights_only=True)
                return cls(**(content | {"epochs": [Epoch(**epoch) for epoch in content["epochs"]]}))
            except (OSError, pickle.UnpicklingError, EOFError, RuntimeError, KeyError, TypeError, AttributeError):
                # Not there, or of another version, or damaged: to train from further back is right, to stop is not.
                continue
        return None


class Parts(NamedTuple):
    """What `fit` brings together."""

    network: Classifier
    training: TrainingBatches
    validation: OrderedBatches

    @classmethod
    def of(cls, config: Config, meta: Meta, pictures: Pictures, device: Device) -> "Parts":
        """The untrained network and the two parts of the training set that `config` asks for. Raises DataError."""
        training, validation = split(pictures.labels, config.train.validation_share, config.train.validation_seed)
        batch_size = config.train.batch_size
        return cls(
            network=models.build(config.model, meta, config.train.seed),
            training=TrainingBatches(
                pictures,
                training,
                batch_size=batch_size,
                policy=config.augment,
                fill=meta.mean,
                seed=config.train.seed,
                device=device.handle,
            ),
            validation=OrderedBatches(pictures, validation, batch_size=batch_size, device=device.handle),
        )


def fit(
    network: nn.Module,
    training: Epochs,
    validation: Epochs,
    config: Train,
    device: Device,
    *,
    path: Path | None = None,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Trains `network` in place until `config.epochs` and yields each epoch as it ends.

    Goes on after `checkpoint` where one is given. Leaves a checkpoint at `path` before it yields.
    Raises Diverged and OutOfMemory.
    """
    network.to(device.handle)
    network.to(memory_format=device.memory_format)
    optimizer = build_optimizer(network, config, fused=device.fused_optimizer)
    schedule = optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(config.schedule, config.warmup, step / (config.epochs * training.steps)),
    )
    done: list[Epoch] = []
    if checkpoint:
        network.load_state_dict(checkpoint.model)
        optimizer.load_state_dict(checkpoint.optimizer)
        schedule.load_state_dict(checkpoint.schedule)
        done = list(checkpoint.epochs)
    for number in range(len(done) + 1, config.epochs + 1):
        began = time.perf_counter()
        with out_of_memory_told(config, device):
            loss, accuracy, learning_rate = _train_epoch(
                network, training.epoch(number), optimizer, schedule, config, device, number
            )
            device.synchronize()
            trained_s = time.perf_counter() - began
            logits, labels = infer(network, validation, device)
        done.append(
            Epoch(
                number=number,
                learning_rate=learning_rate,
                training_loss=loss,
                training_accuracy=accuracy,
                validation_loss=F.cross_entropy(logits, labels).item(),
                validation_accuracy=(logits.argmax(1) == labels).float().mean().item(),
                images_per_second=len(training) / trained_s,
                elapsed_s=(done[-1].elapsed_s if done else 0.0) + time.perf_counter() - began,
            )
        )
        if path:
            Checkpoint(done, network.state_dict(), optimizer.state_dict(), schedule.state_dict()).save(path)
        yield done[-1]


def infer(network: nn.Module, batches: Epochs, device: Device) -> tuple[Tensor, Tensor]:
    """Logits float32 [N, classes] and labels int64 [N] of all pictures, on the device, in evaluation mode."""
    network.eval()
    logits, labels = [], []
    with torch.inference_mode(), device.autocast():
        for batch in batches.epoch(0):
            logits.append(network(batch.images).float())
            labels.append(batch.labels)
    return torch.cat(logits), torch.cat(labels)


def build_optimizer(network: nn.Module, config: Train, *, fused: bool = False) -> optim.Optimizer:
    """The optimiser of `train.optimizer`, with weight decay for matrices and kernels alone.

    Norms and biases, vectors all, are left out, as Goyal et al. 2017 (section 5.3) do.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return optim.SGD(groups, config.learning_rate, config.momentum, nesterov=nesterov, fused=fused)
    adam = optim.AdamW if config.optimizer == "adamw" else optim.Adam
    return adam(groups, config.learning_rate, betas=(config.momentum, 0.999), fused=fused)


def learning_rate_factor(schedule: str, warmup: float, done: float) -> float:
    """What the learning rate is multiplied by when the share `done` (0..1) of all steps is taken.

    one_cycle rises from 1/25 along a cosine for the share `warmup` and falls along a cosine to 0 (Smith & Topin 2017,
    in the form that fast.ai made common); cosine falls from 1 to 0 (Loshchilov & Hutter 2016, equation 5, one cycle).
    """
    if schedule == "constant":
        return 1.0
    if schedule == "one_cycle":
        if done < warmup:
            return 1 - 0.96 * _cosine(done / warmup)
        return _cosine((done - warmup) / (1 - warmup))
    return _cosine(done)


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")


def _cosine(done: float) -> float:
    """From 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * done)) / 2


def _train_epoch(
    network: nn.Module,
    batches: Iterator[Batch],
    optimizer: optim.Optimizer,
    schedule: optim.lr_scheduler.LambdaLR,
    config: Train,
    device: Device,
    number: int,
) -> tuple[float, float, float]:
    """Mean loss, accuracy and last learning rate of one pass."""
    network.train()
    loss_sum = torch.zeros((), device=device.handle)
    correct = torch.zeros((), dtype=torch.int64, device=device.handle)
    seen = step = 0
    learning_rate = math.nan
    for step, batch in enumerate(batches, start=1):
        with device.autocast():
            logits = network(batch.images)
            loss = F.cross_entropy(logits, batch.labels, label_smoothing=config.label_smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        learning_rate = float(schedule.get_last_lr()[0])
        schedule.step()
        loss_sum += loss.detach()
        correct += (logits.detach().argmax(1) == batch.labels).sum()
        seen += len(batch.labels)
        if step % STEPS_BETWEEN_CHECKS == 0:
            _check_finite(loss_sum, number, learning_rate)
    _check_finite(loss_sum, number, learning_rate)
    return loss_sum.item() / step, correct.item() / seen, learning_rate


def _check_finite(loss_sum: Tensor, number: int, learning_rate: float) -> None:
    if not math.isfinite(loss_sum.item()):
        raise Diverged(
            f"The training diverged: the loss is not finite in epoch {number}, learning rate {learning_rate:.3g}. "
            "Lower train.learning_rate (a third of it is a good next try), or lengthen train.warmup."
        )


@contextmanager
def out_of_memory_told(config: Train, device: Device) -> Iterator[None]:
    """Raises OutOfMemory in place of what PyTorch raises when an allocation fails."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not (
            isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        ):
            raise
        raise OutOfMemory(
            f"{device.handle} ({device.name}) has too little memory for a train.batch_size of {config.batch_size}: "
            f"halve it (and train.learning_rate with it), or lower model.width. PyTorch says: {error}"
        ) from error
