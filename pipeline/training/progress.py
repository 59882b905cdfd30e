"""The progress of a training in the terminal: a bar with the remaining time, and a line per epoch."""

import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pipeline.batches.batches import Batch, Epochs
from pipeline.cli import duration
from pipeline.records import Epoch


class TrainingDisplay:
    """A context manager. The bar appears only on a terminal; the lines also go to a file or a pipe."""

    def __init__(self, epochs: int, images_per_epoch: int, done: int, before_s: float = 0.0) -> None:
        """`done` of the epochs were trained by earlier starts, in `before_s` seconds."""
        self._epochs = epochs
        self._done, self._before_s = done, before_s
        self._console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]:>3}/" + str(epochs)),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            speed_estimate_period=120,
            disable=not self._console.is_terminal,
        )
        self._bar = self._progress.add_task(
            "training", total=epochs * images_per_epoch, completed=done * images_per_epoch, epoch=done + 1, speed=""
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def counting(self, batches: Epochs) -> Epochs:
        """The same batches; the bar advances by each one that is taken."""
        return _Counting(batches, self)

    @property
    def completed(self) -> float:
        """Images trained on so far."""
        return self._progress.tasks[0].completed

    def advance(self, number: int, images: int) -> None:
        """Advances the bar by `images` of epoch `number`."""
        speed = self._progress.tasks[0].speed
        text = f"{speed:,.0f} images/s" if speed else ""
        self._progress.update(self._bar, advance=images, epoch=number, speed=text)

    def show(self, epoch: Epoch) -> None:
        """Prints the line of an epoch that ended."""
        # The pace of this start: an earlier one may have been on a busy machine.
        epoch_s = (epoch.elapsed_s - self._before_s) / max(1, epoch.number - self._done)
        left_s = epoch_s * (self._epochs - epoch.number)
        self._console.print(
            f"epoch {epoch.number:>3}/{self._epochs}"
            f"  training {epoch.training_loss:.4f} {epoch.training_accuracy:6.2%}"
            f"  validation {epoch.validation_loss:.4f} {epoch.validation_accuracy:6.2%}"
            f"  learning rate {epoch.learning_rate:.2e}"
            f"  {epoch.images_per_second:,.0f} images/s" + (f"  ETA {duration(left_s)}" if left_s else "")
        )


class _Counting:
    def __init__(self, batches: Epochs, display: TrainingDisplay) -> None:
        self._batches = batches
        self._display = display

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def steps(self) -> int:
        return self._batches.steps

    def epoch(self, number: int) -> Iterator[Batch]:
        for batch in self._batches.epoch(number):
            yield batch
            self._display.advance(number, len(batch.labels))
