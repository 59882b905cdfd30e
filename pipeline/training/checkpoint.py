"""The state of a training after an epoch, on disk."""

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
    """All that `fit` needs to resume after an epoch.

    It has no state of random numbers, since the draws of an epoch follow from the seed and the epoch's number.
    """

    epochs: list[Epoch]
    model: dict[str, Tensor]
    """The weights to validate and save: with train.ema the averaged ones."""
    optimizer: dict[str, Any]
    moving: dict[str, Tensor] | None = None
    """With train.ema the weights that the optimiser moves; else None."""

    def save(self, path: Path) -> None:
        """Writes it to `path` and keeps the previous checkpoint beside it. Raises OSError, as on a full disk."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["epochs"] = [asdict(epoch) for epoch in self.epochs]
        # Into memory first: on a full disk torch.save itself would not say why writing failed.
        serialized = io.BytesIO()
        torch.save(content, serialized)
        with atomic_write(path) as aside:
            aside.write_bytes(serialized.getbuffer())
            with suppress(FileNotFoundError):
                path.replace(_before(path))

    @classmethod
    def load(cls, path: Path) -> "Checkpoint | None":
        """The checkpoint at `path`; if it can't be read, the previous one; None if there is neither."""
        for candidate in (path, _before(path)):
            try:
                content = torch.load(candidate, map_location="cpu", weights_only=True)
                # A checkpoint of an older version may have more fields.
                known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
                return cls(**(known | {"epochs": [Epoch(**epoch) for epoch in content["epochs"]]}))
            except (OSError, pickle.UnpicklingError, EOFError, RuntimeError, KeyError, TypeError, AttributeError):
                # Missing, damaged or of another version: training an epoch again is better than an error.
                continue
        return None


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")
