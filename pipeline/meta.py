"""What is known of a data set without its images: meta.json, which the stage download writes."""

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError


@dataclass(frozen=True)
class Meta:
    """What is known of a data set without its images."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """Channels, height, width."""
    mean: tuple[float, ...]
    """Of each channel, over the training set, pixels scaled to 0..1; `std` likewise."""
    std: tuple[float, ...]
    counts: dict[str, int]
    """Images in `train` and in `test`."""
    digest: str
    """Of all images, labels and class names."""
    source: str


def load_meta(path: Path) -> Meta:
    """Reads meta.json. Raises DataError if it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Meta(
            name=content["name"],
            classes=tuple(content["classes"]),
            shape=(content["shape"][0], content["shape"][1], content["shape"][2]),
            mean=tuple(content["mean"]),
            std=tuple(content["std"]),
            counts=content["counts"],
            digest=content["digest"],
            source=content["source"],
        )
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: run `dvc repro`, or `python -m pipeline.download`.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} can't be read ({error!r}): run `dvc repro -f download`.") from error
