"""Trains again what is on record and compares every epoch."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import ConfigError, Diverged
from pipeline.files import Project
from pipeline.records import DeviceRecord, Epoch, Meta

COMPARED = ("learning_rate", "training_loss", "training_accuracy", "validation_loss", "validation_accuracy")
"""The figures of an epoch that follow from its values, not from the speed of a machine."""
assert set(COMPARED) <= {field.name for field in fields(Epoch)}


@dataclass(frozen=True)
class Comparison:
    """Epochs beside epochs."""

    epochs: int
    """How many were compared."""
    first: int | None
    """The first epoch that is not the same to the bit; None if all are."""
    largest: float
    """Difference of any figure: of accuracies as it is, of losses relative to what was recorded."""
    where: str
    """The epoch and the figure with it; empty if all are the same."""


def compare(then: Sequence[Epoch], now: Sequence[Epoch]) -> Comparison:
    """The epochs of a training and those of its repetition. One that is missing differs by infinity."""
    first, largest, where = None, 0.0, ""
    for number in range(max(len(then), len(now))):
        if number >= min(len(then), len(now)):
            return Comparison(number + 1, first or number + 1, math.inf, f"epoch {number + 1} is missing")
        for name in COMPARED:
            old, new = getattr(then[number], name), getattr(now[number], name)
            if old == new:
                continue
            first = first or number + 1
            difference = abs(new - old) if name.endswith("accuracy") else abs(new - old) / max(abs(old), 1e-12)
            if difference > largest:
                largest, where = difference, f"{name} of epoch {number + 1}"
    return Comparison(len(then), first, largest, where)


class Repetition:
    """A training of recorded values on the images of this project."""

    def __init__(self, settings: Config, meta: Meta, wanted: DeviceRecord) -> None:
        """`wanted` is the device on record; where there is none like it, the best one here is taken."""
        from pipeline.machine import Machine
        from pipeline.training.device import Device

        self._settings, self._meta = settings, meta
        machine = Machine.probe()
        try:
            self._device = Device.choose(wanted.type, wanted.precision, wanted.threads, machine)
        except ConfigError:  # no such GPU, or no bf16 here
            self._device = Device.choose("auto", "auto", wanted.threads, machine)

    @property
    def device(self) -> DeviceRecord:
        """The device that it trains on."""
        return self._device.described()

    def epochs(self, project: Project, count: int) -> Iterator[Epoch]:
        """The first epochs, as they end; fewer if the training ends before. Shows a progress bar.

        Raises DataError, ConfigError, Diverged, OutOfMemory.
        """
        from pipeline.batches.images import load_images
        from pipeline.training.cross_validation import Training
        from pipeline.training.progress import TrainingDisplay

        self._device.prepare()
        images = load_images(project.training_data, self._meta)
        with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
            training = Training.of(self._settings, self._meta, images, self._device, Path(folder))
            with TrainingDisplay(count, training.images_per_epoch, done=0) as display:
                for epoch in training.fit(display.counting):
                    display.show(epoch)
                    yield epoch
                    if epoch.number == count:
                        return


def until_divergence(repetition: Iterator[Epoch]) -> tuple[list[Epoch], str]:
    """The epochs of a repetition, and what was said when it diverged; empty if it did not."""
    epochs = []
    try:
        for epoch in repetition:
            epochs.append(epoch)
    except Diverged as error:
        return epochs, str(error)
    return epochs, ""
