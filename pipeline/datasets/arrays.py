"""A `DataSet` on disk: arrays of images and labels, and meta.json.

data/train has the training images, and after them the data's own validation images, which validation.npy marks.

meta.json is written last and removed first, so the arrays are complete wherever it exists.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pipeline import records
from pipeline.datasets import disk, duplicates, near_duplicates
from pipeline.datasets.dataset import DataSet, Part
from pipeline.files import Project, atomic_write
from pipeline.grouping import groups_of
from pipeline.records import Meta, NearDuplicates

UNPACKED = ".unpacked-"  # prefix of temporary folders below data/
_PIXELS_PER_COUNT = 1 << 20


def clear(project: Project) -> None:
    """Removes the files of earlier runs, also of killed ones; meta.json first."""
    for path in (
        project.meta,
        *files(project).values(),
    ):
        path.unlink(missing_ok=True)
        for aside in path.parent.glob(f".{path.name}.*.part"):
            aside.unlink()
    for folder in project.data.glob(f"{UNPACKED}*"):
        shutil.rmtree(folder)


def files(project: Project) -> dict[str, Path]:
    """All arrays that a data set can have, by their name in the digest and in its order."""
    return {
        "train/images": project.training_data / "images.npy",
        "train/labels": project.training_data / "labels.npy",
        "test/images": project.test_data / "images.npy",
        "test/labels": project.test_data / "labels.npy",
        "train/groups": project.training_data / "groups.npy",
        "train/validation": project.training_data / "validation.npy",
    }


def write(project: Project, dataset: DataSet) -> Meta:
    """Writes the arrays and meta.json. Returns what meta.json holds. Raises DataError if the disk is full.

    The digest is the SHA-256 of all arrays and the class names. Each array enters it as a line with its name, dtype and
    shape, followed by its bytes. The class names enter it as JSON. If images of data/train are equal, groups.npy has
    their groups. If equal images are in both parts of a split of this program, the split and the arrays are made again.
    """
    meta, hashes = _write(project, dataset)
    if dataset.split_again and not set(hashes["train"]).isdisjoint(hashes["test"]):
        print("some images are equal: splitting again, so that they are in one part", flush=True)
        meta, _ = _write(project, dataset.split_again(hashes["train"], hashes["test"]))
    records.write(meta, project.meta)
    return meta


def _write(project: Project, dataset: DataSet) -> tuple[Meta, dict[str, list[bytes]]]:
    """Writes the arrays. Returns the record for meta.json, and the hashes of the images of each part."""
    channels, height, width = dataset.shape
    given = {"train": dataset.training, "validation": dataset.validation, "test": dataset.test}
    parts = {name: part for name, part in given.items() if part is not None}
    counts = {name: len(part.labels) for name, part in parts.items()}
    needed_bytes = sum(counts.values()) * (channels * height * width + 8)
    disk.require(needed_bytes, project.data, "the arrays")
    digest = hashlib.sha256()
    histogram = np.zeros((channels, 256), dtype=np.int64)
    hashes: dict[str, list[bytes]] = {name: [] for name in parts}
    folders = {project.training_data: ["train", "validation"], project.test_data: ["test"]}
    with disk.disk_errors("writing the arrays", project.data, needed_bytes):
        for folder, names in folders.items():
            inside = [name for name in names if name in parts]
            shape = (sum(counts[name] for name in inside), height, width, channels)
            digest.update(f"{names[0]}/images uint8 {list(shape)}\n".encode())
            with atomic_write(folder / "images.npy") as aside, aside.open("wb") as file:
                # A full disk must raise an error, so this is no memory map, which would end the process by a signal.
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
                for name in inside:
                    counted = histogram if name == "train" else None
                    _write_images(file, parts[name], dataset.shape, digest, hashes[name], counted)
            labels = np.concatenate([parts[name].labels for name in inside]).astype("<i8")
            digest.update(f"{names[0]}/labels int64 {list(labels.shape)}\n".encode())
            digest.update(labels.data)
            _save(folder / "labels.npy", labels)
        _optional(project.training_data / "groups.npy", _groups(hashes), digest, "train/groups int64")
        _optional(project.training_data / "validation.npy", _validation(counts), digest, "train/validation bool")
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
            per_class={name: _per_class(part, len(dataset.classes)) for name, part in parts.items()},
            archive_sha256=dataset.archive_sha256,
            fingerprint=dataset.fingerprint,
            duplicates=duplicates.find(parts, hashes),
            near_duplicates=_near_duplicates(project, parts),
            highest_float=dataset.scale.highest_float if dataset.scale else None,
        )
    return meta, hashes


def _write_images(
    file: IO[bytes],
    part: Part,
    shape: tuple[int, int, int],
    digest: "hashlib._Hash",
    hashes: list[bytes],
    histogram: npt.NDArray[np.int64] | None,
) -> None:
    """Appends the images of a part to the file, chunk by chunk; `shape` is theirs: channels, height, width.

    Adds their bytes to the digest, a hash of each image to `hashes`, and their values to the histogram [C, 256].
    """
    channels, height, width = shape
    count = 0
    for chunk in part.chunks:
        contiguous = np.ascontiguousarray(chunk)
        if contiguous.shape[1:] != (height, width, channels):
            raise AssertionError(f"the images should be {(height, width, channels)} and are {contiguous.shape[1:]}")
        file.write(contiguous.data)
        digest.update(contiguous.data)
        hashes += duplicates.hashes(contiguous)
        count += len(contiguous)
        if histogram is not None:
            pixels = contiguous.reshape(-1, channels)
            for start in range(0, len(pixels), _PIXELS_PER_COUNT):
                for channel, values in enumerate(pixels[start : start + _PIXELS_PER_COUNT].T):
                    histogram[channel] += np.bincount(values, minlength=256)
    if count != len(part.labels):
        raise AssertionError(f"a part should have {len(part.labels)} images and has {count}")


def _optional(path: Path, array: npt.NDArray[Any] | None, digest: "hashlib._Hash", what: str) -> None:
    """Writes an array that not every data set has, and adds it to the digest."""
    if array is None:
        path.unlink(missing_ok=True)
        return
    digest.update(f"{what} {list(array.shape)}\n".encode())
    digest.update(array.data)
    _save(path, array)


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.save(file, array)


def _near_duplicates(project: Project, parts: Mapping[str, Part]) -> NearDuplicates | None:
    learned, test = (
        near_duplicates.Labelled(np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy"))
        for folder in (project.training_data, project.test_data)
    )

    def pair(one: int, other: int) -> str:
        before = len(parts["train"].labels)
        name, place = ("train", one) if one < before else ("validation", one - before)
        return f"{parts[name].name(name, place)} ~ {parts['test'].name('test', other)}"

    return near_duplicates.find(learned, test, pair)


def _groups(hashes: Mapping[str, list[bytes]]) -> npt.NDArray[np.int64] | None:
    """The groups of equal images of data/train; None if all differ."""
    groups = groups_of([*hashes["train"], *hashes.get("validation", [])])
    return None if groups is None else groups.astype("<i8")


def _validation(counts: Mapping[str, int]) -> npt.NDArray[np.bool_] | None:
    """[N], true for the images of data/train that are the data's own validation images; None if it has none."""
    if "validation" not in counts:
        return None
    return np.repeat([False, True], [counts["train"], counts["validation"]])


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
