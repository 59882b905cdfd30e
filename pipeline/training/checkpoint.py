"""What a training leaves on disk after each epoch."""

import io
import pickle
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.files import atomic_write
from pipeline.records import Epoch


@dataclass(frozen=True)
class Checkpoint:
    """All that `training.fit` needs to go on after an epoch.

    There is no state of random numbers in it: the draws of an epoch follow from the seed and the epoch's number.
    """

    epochs: list[Epoch]
    model: dict[str, Tensor]
    """The weights that count: with train.ema their average."""
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    moving: dict[str, Tensor] | None = None
    """With train.ema the weights that the optimiser moves, of which `model` is the average."""

    def save(self, path: Path) -> None:
        """Writes it to `path`; what was there stays beside it, as the one before. Raises OSError: a full disk."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["epochs"] = [asdict(epoch) for epoch in self.epochs]
        # Into memory first: of a full disk torch.save itself would say no more than that writing failed.
        serialized = io.BytesIO()
        torch.save(content, serialized)
        with atomic_write(path) as aside:
            aside.write_bytes(serialized.getbuffer())
            with suppress(FileNotFoundError):
                path.replace(_before(path))

    @classmethod
    def load(cls, path: Path) -> "Checkpoint | None":
        """The checkpoint at `path`, the one before if that can't be read; None if there is neither."""
        for candidate in (path, _before(path)):
            try:
                content = torch.load(candidate, map_location="cpu", weights_only=True)
                # An older version may have left more than is needed.
                known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
                return cls(**(known | {"epochs": [Epoch(**epoch) for epoch in content["epochs"]]}))
            except (OSError, pickle.UnpicklingError, EOFError, RuntimeError, KeyError, TypeError, AttributeError):
                # Not there, or of another version, or damaged: to train from further back is right, to stop is not.
                continue
        return None


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")
