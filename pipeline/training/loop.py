"""The training loop: `fit` yields an `Epoch` after each pass over the images, and the caller decides what follows.

It saves a checkpoint after each epoch, or once a second where epochs are shorter. A training that resumes from one ends
with the numbers of a training that was never interrupted: bit for bit on a CPU with the same number of threads.
"""

import copy
import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from pipeline.batches.batches import Batch, Epochs
from pipeline.config import Train
from pipeline.errors import Diverged
from pipeline.records import Epoch
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.device import Device
from pipeline.training.ema import Average
from pipeline.training.failures import memory_errors
from pipeline.training.optimizers import build_optimizer
from pipeline.training.schedules import Schedule, Step

STEPS_BETWEEN_CHECKS = 50
"""Steps after which the loss is checked. Each check waits for a GPU, so it must be rare; but a diverged training should
end soon."""


CHECKPOINT_INTERVAL_S = 1.0
"""A checkpoint costs as much as some short epochs, and waits for the disk. A kill costs so many seconds of training, or
an epoch that is longer."""


def fit(
    network: nn.Module,
    training: Epochs,
    validation: Epochs,
    config: Train,
    device: Device,
    *,
    path: Path | None = None,
    checkpoint: Checkpoint | None = None,
) -> Generator[Epoch, None, None]:
    """Trains `network` in place until the training is `over`, and yields each epoch as it ends.

    Whenever it yields, `network` holds the weights to validate and save. With train.ema these are the averaged weights,
    and a copy of `network` holds those that the optimiser moves. It resumes from `checkpoint` if there is one.

    Before it yields it saves a checkpoint at `path`: of the first epoch, of one that ends CHECKPOINT_INTERVAL_S after
    the checkpoint before, and of the last one. A caller that wants no more epochs closes it, which saves the one that
    it has yielded. Raises Diverged and OutOfMemory.
    """
    with memory_errors(device, config.batch_size):
        place(network, device)
        moving = copy.deepcopy(network) if config.ema else network
    optimizer = build_optimizer(
        moving,
        config,
        fused=device.fused_optimizer,
        bf16=device.precision == "bf16",
        packed=device.waits_for_launches,
    )
    schedule = Schedule(
        optimizer,
        config,
        steps=config.epochs * training.steps,
        on=device.handle if device.waits_for_launches else None,
    )
    done: list[Epoch] = []
    if checkpoint:
        network.load_state_dict(checkpoint.model)
        moving.load_state_dict(checkpoint.moving or checkpoint.model)
        with memory_errors(device, config.batch_size):
            optimizer.load_state_dict(checkpoint.optimizer)
        done = list(checkpoint.epochs)
    average = Average(network, moving) if config.ema else None
    saved, saved_s = len(done), time.monotonic() if done else -math.inf

    def save() -> None:
        nonlocal saved, saved_s
        if path and saved < len(done):
            Checkpoint(
                done,
                network.state_dict(),
                optimizer.state_dict(),
                moving.state_dict() if config.ema else None,
            ).save(path)
        saved, saved_s = len(done), time.monotonic()

    state = _TrainState(moving, optimizer, schedule, average, config, device)
    while not over(done, config):
        number = len(done) + 1
        began = time.perf_counter()
        with memory_errors(device, config.batch_size):
            with _seeded(config.seed, number, device):
                passed = state.train_epoch(training, number)
            device.synchronize()
            trained_s = time.perf_counter() - began
            logits, labels = infer(network, validation, device)
        done.append(
            Epoch(
                number=number,
                learning_rate=passed.learning_rate,
                training_loss=passed.loss,
                training_accuracy=passed.accuracy,
                validation_loss=F.cross_entropy(logits, labels).item(),
                validation_accuracy=(logits.argmax(1) == labels).float().mean().item(),
                images_per_second=passed.images / trained_s,
                elapsed_s=(done[-1].elapsed_s if done else 0.0) + time.perf_counter() - began,
            )
        )
        if over(done, config) or time.monotonic() - saved_s >= CHECKPOINT_INTERVAL_S:
            save()
        try:
            yield done[-1]
        except GeneratorExit:
            save()
            raise


def over(epochs: Sequence[Epoch], config: Train) -> bool:
    """Whether a training has ended after these epochs: at train.epochs, or by train.early_stopping."""
    if len(epochs) >= config.epochs:
        return True
    if config.early_stopping is None or not epochs:
        return False
    best = max(epochs, key=lambda epoch: epoch.validation_accuracy)  # the first one among equals
    return epochs[-1].number - best.number >= config.early_stopping


def place(network: nn.Module, device: Device) -> None:
    """Moves a network to the device, in the memory format that suits it."""
    network.to(device.handle)
    network.to(memory_format=device.memory_format)


def infer(network: nn.Module, batches: Epochs, device: Device) -> tuple[Tensor, Tensor]:
    """Logits float32 [N, classes] and labels int64 [N] of all images, on the device. Leaves `network` in eval mode."""
    network.eval()
    logits, labels = [], []
    with torch.inference_mode(), device.autocast():
        for batch in batches.epoch(0):
            logits.append(network(batch.images).float())
            labels.append(batch.labels)
    return torch.cat(logits), torch.cat(labels)


@contextmanager
def _seeded(seed: int, number: int, device: Device) -> Iterator[None]:
    """Seeds PyTorch's global generator, which dropout uses, for this epoch. Restores its state afterwards."""
    with torch.random.fork_rng(devices=[device.handle] if device.handle.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([seed, number, 1]).generate_state(1)[0]))
        yield


class _Pass(NamedTuple):
    """The figures of one pass over the training images: means over its steps, and the last learning rate."""

    loss: float
    accuracy: float
    learning_rate: float
    images: int


@dataclass(frozen=True)
class _TrainState:
    """What a training step changes."""

    network: nn.Module
    """With the weights that the optimiser moves."""
    optimizer: optim.Optimizer
    schedule: Schedule
    average: Average | None
    config: Train
    device: Device

    def train_epoch(self, training: Epochs, number: int) -> _Pass:
        """Trains on all batches of epoch `number`. Raises Diverged."""
        self.network.train()
        loss_sum = torch.zeros((), device=self.device.handle)
        correct = torch.zeros((), dtype=torch.int64, device=self.device.handle)
        seen = step = 0
        learning_rate = math.nan
        numbers = self.schedule.epoch((number - 1) * training.steps, training.steps)
        for step, (batch, now) in enumerate(zip(training.epoch(number), numbers, strict=True), start=1):
            with self.device.autocast():
                logits = self.network(batch.images)
                loss = batch_loss(logits, batch, self.config.label_smoothing)
            learning_rate = now.learning_rate
            self._step(loss, now)
            loss_sum += loss.detach()
            correct += (logits.detach().argmax(1) == _main_labels(batch)).sum()
            seen += len(batch.labels)
            if step % STEPS_BETWEEN_CHECKS == 0:
                _check_finite(loss_sum, number, learning_rate)
        _check_finite(loss_sum, number, learning_rate)
        return _Pass(loss_sum.item() / step, correct.item() / seen, learning_rate, seen)

    def _step(self, loss: Tensor, now: Step) -> None:
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        if self.average:
            self.average.update(now.share)


def batch_loss(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    """The mean cross entropy. For mixed images that of both labels, by their shares (Zhang et al. 2017, section 2)."""
    if batch.mix is None:
        return F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    own, other = (
        F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
        for labels in (batch.labels, batch.mix.labels)
    )
    return torch.lerp(other, own, batch.mix.share).mean()


def _main_labels(batch: Batch) -> Tensor:
    """The label with the greater share of each image, int64 [B]."""
    return batch.labels if batch.mix is None else torch.where(batch.mix.share >= 0.5, batch.labels, batch.mix.labels)


def _check_finite(loss_sum: Tensor, number: int, learning_rate: float) -> None:
    if not math.isfinite(loss_sum.item()):
        raise Diverged(
            f"The training diverged: the loss is not finite in epoch {number}, learning rate {learning_rate:.3g}. "
            "Lower train.learning_rate (a third of it is a good next try), or lengthen train.warmup."
        )
