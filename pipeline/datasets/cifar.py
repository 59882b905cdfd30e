"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 colour images of 32x32 pixels, read from their archives.

torchvision's reader executes what the pickles in the archive ask for; this one does not (pickles.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from pipeline.config import Data
from pipeline.datasets import archives, pickles
from pipeline.datasets.address import Address
from pipeline.datasets.dataset import DataSet, Part
from pipeline.datasets.fetch import Archive, Checksum, fetch
from pipeline.datasets.fingerprint import fingerprint
from pipeline.files import Project


@dataclass(frozen=True)
class _Layout:
    """The files of an archive, and the keys of what they hold."""

    training: tuple[str, ...]
    test: str
    names: str
    labels_key: str
    names_key: str
    classes: int

    @property
    def files(self) -> set[str]:
        return {*self.training, self.test, self.names}


_LAYOUTS = {
    "cifar10": _Layout(
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test_batch",
        "batches.meta",
        "labels",
        "label_names",
        10,
    ),
    "cifar100": _Layout(("train",), "test", "meta", "fine_labels", "fine_label_names", 100),
}
_SHAPE = (3, 32, 32)
_VALUES = 3 * 32 * 32
_LARGEST_FILE_BYTES = 256 << 20  # the official files have 31 and 155 MB
_CHUNK = 1000


def read(data: Data, project: Project) -> DataSet:
    """CIFAR from data.url, or else from the official address. It stays in memory (184 MB) until it is written.

    Raises DataError if the archive is not CIFAR's, DownloadError if it can't be fetched.
    """
    address = Address.parse(data.url or data.source.address)
    ((file_name, md5),) = data.source.files.items()
    expected = Checksum("sha256", data.sha256) if data.sha256 else Checksum("md5", md5)
    archive = fetch(address, project, expected, file_name)
    layout = _LAYOUTS[data.name]
    files = _files(archive, layout, f"is not {data.name.replace('cifar', 'CIFAR-')}'s")
    return DataSet(
        name=data.name,
        classes=files[layout.names],
        shape=_SHAPE,
        training=_part([files[name] for name in layout.training]),
        test=_part([files[layout.test]]),
        source=str(address),
        archive_sha256=archive.sha256,
        fingerprint=fingerprint(address, project),
    )


def _part(batches: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]) -> Part:
    return Part(np.concatenate([labels for _, labels in batches]), _chunks([rows for rows, _ in batches]))


def _chunks(batches: Sequence[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.uint8]]:
    """Images [n, 32, 32, 3] from rows [N, 3072], which hold all red values, then green, then blue."""
    for rows in batches:
        for start in range(0, len(rows), _CHUNK):
            yield rows[start : start + _CHUNK].reshape(-1, *_SHAPE).transpose(0, 2, 3, 1)


def _files(archive: Archive, layout: _Layout, not_cifar: str) -> dict[str, Any]:
    """By file name: (rows, labels) of each batch, and the class names."""
    files: dict[str, Any] = {}
    with archives.archive_errors(archive), archives.open_tar(archive) as tar:
        for entry in tar:
            archives.refuse_outside(entry.name)
            name = PurePosixPath(entry.name).name
            if name not in layout.files:
                continue
            if not entry.isfile() or name in files or entry.size > _LARGEST_FILE_BYTES:
                raise archives.Unusable(f"{not_cifar}: {entry.name} is not a plain file, occurs twice or is too large")
            try:
                content = pickles.load(cast(IO[bytes], tar.extractfile(entry)).read())
                files[name] = _class_names(content, layout) if name == layout.names else _batch(content, layout)
            except pickles.PickleRefused as error:
                raise archives.Unusable(f"{not_cifar}: {entry.name} {error}") from error
        if missing := sorted(layout.files - set(files)):
            raise archives.Unusable(f"{not_cifar}: {', '.join(missing)} can't be found in it")
        if len({len(files[name][1]) for name in layout.training}) > 1:
            raise archives.Unusable(f"{not_cifar}: its training batches differ in length")
    return files


def _batch(content: dict[str, Any], layout: _Layout) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    rows = pickles.uint8_array(content.get("data"), _VALUES)
    labels = content.get(layout.labels_key)
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < layout.classes for label in labels):
        raise pickles.PickleRefused(f"holds labels that are not whole numbers from 0 to {layout.classes - 1}")
    if len(labels) != len(rows):
        raise pickles.PickleRefused(f"holds {len(rows)} images and {len(labels)} labels")
    return rows, np.array(labels, dtype=np.int64)


def _class_names(content: dict[str, Any], layout: _Layout) -> list[str]:
    names = content.get(layout.names_key)
    if not isinstance(names, list) or len(names) != layout.classes:
        raise pickles.PickleRefused(f"holds no list of {layout.classes} class names")
    names = [pickles.text(name) for name in names]
    if len(set(names)) < layout.classes:
        raise pickles.PickleRefused("holds a class name twice")
    return names
