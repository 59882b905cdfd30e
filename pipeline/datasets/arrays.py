"""A `DataSet` on disk: two arrays per part, and meta.json.

meta.json is written last and removed first, so the arrays are complete wherever it exists.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import records
from pipeline.datasets import disk, duplicates
from pipeline.datasets.dataset import DataSet, Part
from pipeline.files import Project, atomic_write
from pipeline.grouping import groups_of
from pipeline.records import Meta

UNPACKED = ".unpacked-"  # prefix of temporary folders below data/
_PIXELS_PER_COUNT = 1 << 20


def clear(project: Project) -> None:
    """Removes the files of earlier runs, also of killed ones; meta.json first."""
    for path in (
        project.meta,
        *(
            folder / name
            for folder in (project.training_data, project.test_data)
            for name in ("images.npy", "labels.npy", "groups.npy")
        ),
    ):
        path.unlink(missing_ok=True)
        for aside in path.parent.glob(f".{path.name}.*.part"):
            aside.unlink()
    for folder in project.data.glob(f"{UNPACKED}*"):
        shutil.rmtree(folder)


def write(project: Project, dataset: DataSet) -> Meta:
    """Writes the arrays and meta.json. Returns what meta.json holds. Raises DataError if the disk is full.

    The digest is the SHA-256 of all arrays and the class names. Each array enters it as a line with its name, dtype and
    shape, followed by its bytes. The class names enter it as JSON. If training images are equal, groups.npy has their
    groups. If equal images are in both parts of a split of this program, the split and the arrays are made again.
    """
    meta, hashes = _write(project, dataset)
    if dataset.split_again and not set(hashes[0]).isdisjoint(hashes[1]):
        print("some images are equal: splitting again, so that they are in one part", flush=True)
        meta, _ = _write(project, dataset.split_again(*hashes))
    records.write(meta, project.meta)
    return meta


def _write(project: Project, dataset: DataSet) -> tuple[Meta, tuple[list[bytes], list[bytes]]]:
    """Writes the arrays. Returns the record for meta.json, and the hashes of the training and of the test images."""
    channels, height, width = dataset.shape
    counts = {"train": len(dataset.training.labels), "test": len(dataset.test.labels)}
    needed_bytes = sum(counts.values()) * (channels * height * width + 8)
    disk.require(needed_bytes, project.data, "the arrays")
    digest = hashlib.sha256()
    histogram = np.zeros((channels, 256), dtype=np.int64)
    parts = (("train", project.training_data, dataset.training), ("test", project.test_data, dataset.test))
    hashes: tuple[list[bytes], list[bytes]] = ([], [])
    with disk.disk_errors("writing the arrays", project.data, needed_bytes):
        for (name, folder, part), found in zip(parts, hashes, strict=True):
            shape = (len(part.labels), height, width, channels)
            digest.update(f"{name}/images uint8 {list(shape)}\n".encode())
            with atomic_write(folder / "images.npy") as aside:
                _write_images(aside, shape, part.chunks, digest, found, histogram if name == "train" else None)
            labels = np.ascontiguousarray(part.labels, dtype="<i8")
            digest.update(f"{name}/labels int64 {list(labels.shape)}\n".encode())
            digest.update(labels.data)
            with atomic_write(folder / "labels.npy") as aside, aside.open("wb") as file:
                np.save(file, labels)
        if (groups := groups_of(hashes[0])) is not None:
            digest.update(f"train/groups int64 {list(groups.shape)}\n".encode())
            digest.update(groups.astype("<i8").data)
            with atomic_write(project.training_data / "groups.npy") as aside, aside.open("wb") as file:
                np.save(file, groups.astype("<i8"))
        else:
            (project.training_data / "groups.npy").unlink(missing_ok=True)
        digest.update(json.dumps(dataset.classes).encode())
        mean, deviation = _mean_and_deviation(histogram)
        meta = Meta(
            name=dataset.name,
            classes=tuple(dataset.classes),
            shape=dataset.shape,
            mean=tuple(mean),
            std=tuple(deviation),
            counts=counts,
            digest=f"sha256:{digest.hexdigest()}",
            source=dataset.source,
            per_class={name: _per_class(part, len(dataset.classes)) for name, _, part in parts},
            archive_sha256=dataset.archive_sha256,
            fingerprint=dataset.fingerprint,
            duplicates=duplicates.find(dataset.training, dataset.test, hashes),
        )
    return meta, hashes


def _write_images(
    path: Path,
    shape: tuple[int, int, int, int],
    chunks: Iterable[npt.NDArray[np.uint8]],
    digest: "hashlib._Hash",
    hashes: list[bytes],
    histogram: npt.NDArray[np.int64] | None,
) -> None:
    """Writes an .npy file of `shape` [N, H, W, C] chunk by chunk.

    Adds its bytes to the digest, a hash of each image to `hashes`, and its values to the histogram [C, 256]. A full
    disk must raise an error, so this writes to a file: a memory map would end the process by a signal.
    """
    count = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for chunk in chunks:
            contiguous = np.ascontiguousarray(chunk)
            file.write(contiguous.data)
            digest.update(contiguous.data)
            hashes += duplicates.hashes(contiguous)
            count += len(contiguous)
            if histogram is not None:
                pixels = contiguous.reshape(-1, shape[3])
                for start in range(0, len(pixels), _PIXELS_PER_COUNT):
                    for channel, values in enumerate(pixels[start : start + _PIXELS_PER_COUNT].T):
                        histogram[channel] += np.bincount(values, minlength=256)
    if count != shape[0]:
        raise AssertionError(f"{path.name} should have {shape[0]} images and has {count}")


def _mean_and_deviation(histogram: npt.NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Of each channel, for pixels scaled to 0..1. Sums are integers, so no order of summation changes a digit."""
    mean, deviation = [], []
    for counts in histogram.tolist():
        pixels = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        mean.append(total / (255 * pixels))
        deviation.append(math.sqrt((pixels * squares - total * total) / pixels**2) / 255)
    return mean, deviation


def _per_class(part: Part, classes: int) -> list[int]:
    return [int(count) for count in np.bincount(part.labels, minlength=classes)]
