"""The images of a data set, as the arrays that the stage download wrote."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.batches.mapped import read_ahead
from pipeline.errors import DataError
from pipeline.grouping import Groups
from pipeline.records import Meta


class Images(NamedTuple):
    """Images with their classes."""

    pixels: npt.NDArray[np.uint8]
    """[N, H, W, C]"""
    labels: npt.NDArray[np.int64]
    """[N]"""
    groups: Groups | None = None
    """Of equal images, which stay together in splits; None where all images differ."""
    validation: npt.NDArray[np.bool_] | None = None
    """[N], true for the data's own validation images; None where it has none."""

    def gather(
        self, positions: npt.NDArray[np.int64], out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Copies of the images at `positions`, [B, H, W, C]; in `out` if it is given.

        Of a memory map no other images are read from disk. Raises IndexError.
        """
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(self.pixels):
            raise IndexError(f"positions must be 0 to {len(self.pixels) - 1}")
        read_ahead(self.pixels, positions)
        # numpy checks positions on a second copy of the result, unless its mode is another.
        return np.take(np.asarray(self.pixels), positions, axis=0, out=out, mode="clip")


def load_images(folder: Path, meta: Meta) -> Images:
    """Memory-maps images.npy and reads labels.npy, and groups.npy and validation.npy if they are there.

    Raises DataError if they are missing, damaged or don't fit `meta`.
    """
    try:
        # Read-only: the kernel refuses a map that could be written to where the file is larger than the memory.
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npy")
        groups, validation = (
            np.load(folder / name) if (folder / name).exists() else None for name in ("groups.npy", "validation.npy")
        )
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: run `dvc repro`, or `python -m pipeline.download`.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"The arrays in {folder} can't be read ({error}): run `dvc repro -f download`.") from error
    channels, height, width = meta.shape
    if images.dtype != np.uint8 or images.shape != (len(labels), height, width, channels):
        raise DataError(
            f"{folder / 'images.npy'} holds {images.dtype} {list(images.shape)}, but meta.json and labels.npy promise "
            f"uint8 {[len(labels), height, width, channels]}: run `dvc repro -f download`."
        )
    for name, optional in (("groups.npy", groups), ("validation.npy", validation)):
        if optional is not None and optional.shape != labels.shape:
            raise DataError(f"{folder / name} does not fit labels.npy: run `dvc repro -f download`.")
    return Images(images, labels, groups, validation)
