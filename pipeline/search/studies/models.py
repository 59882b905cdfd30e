"""The models of a study that are being made for MLflow, in a process of their own."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import Model
from pipeline.exporting.process import Exporter


@dataclass
class Models:
    """Models that are being made, each with what is done with it afterwards. The recorders of a study share them."""

    exporter: Exporter
    _waiting: dict[int, Callable[[Path, str | None], None]] = field(default_factory=dict)
    _count: int = 0

    def make(self, weights: Path, network: Model, folder: Path, then: Callable[[Path, str | None], None]) -> None:
        """Makes a model in `folder`. A later `tick` calls `then` with the folder, and with an error or None."""
        shutil.rmtree(folder, ignore_errors=True)  # left by a process that was killed
        self._count += 1
        self._waiting[self._count] = then
        self.exporter.submit(self._count, weights, network, folder)

    def tick(self) -> None:
        for number, folder, error in self.exporter.done() if self._waiting else ():
            self._waiting.pop(number)(folder, error)

    @property
    def waiting(self) -> int:
        """How many models are being made."""
        return len(self._waiting)
