"""CIFAR-10 (Krizhevsky 2009): 60,000 colour images of 32x32 pixels, 10 classes, read from its archive."""

from collections.abc import Iterator, Sequence
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

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
OFFICIAL = Checksum("md5", "c58f30108f718f92721af3b95e74349a")  # that of torchvision.datasets.CIFAR10
FILE_NAME = "cifar-10-python.tar.gz"

_TRAINING_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST_FILE = "test_batch"
_NAMES_FILE = "batches.meta"
_NEEDED = {*_TRAINING_FILES, _TEST_FILE, _NAMES_FILE}
_CLASSES = 10
_SHAPE = (3, 32, 32)
_VALUES = 3 * 32 * 32
_LARGEST_FILE_BYTES = 256 << 20  # the official files have 31 MB
_CHUNK = 1000
_NOT_CIFAR = "is not CIFAR-10's"


def read(data: Data, project: Project) -> DataSet:
    """CIFAR-10 from data.url, or else from the official address. It stays in memory (184 MB) until it is written.

    Raises DataError if the archive is not CIFAR-10's, DownloadError if it can't be fetched.
    """
    address = Address.parse(data.url or URL)
    expected = Checksum("sha256", data.sha256) if data.sha256 else OFFICIAL
    archive = fetch(address, project, expected, FILE_NAME)
    files = _files(archive)
    return DataSet(
        name="cifar10",
        classes=files[_NAMES_FILE],
        shape=_SHAPE,
        training=_part([files[name] for name in _TRAINING_FILES]),
        test=_part([files[_TEST_FILE]]),
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


def _files(archive: Archive) -> dict[str, Any]:
    """By file name: (rows, labels) of each batch, and the class names of batches.meta."""
    files: dict[str, Any] = {}
    with archives.archive_errors(archive), archives.open_tar(archive) as tar:
        for entry in tar:
            archives.refuse_outside(entry.name)
            name = PurePosixPath(entry.name).name
            if name not in _NEEDED:
                continue
            if not entry.isfile() or name in files or entry.size > _LARGEST_FILE_BYTES:
                raise archives.Unusable(f"{_NOT_CIFAR}: {entry.name} is not a plain file, occurs twice or is too large")
            try:
                content = pickles.load(cast(IO[bytes], tar.extractfile(entry)).read())
                files[name] = _class_names(content) if name == _NAMES_FILE else _batch(content)
            except pickles.PickleRefused as error:
                raise archives.Unusable(f"{_NOT_CIFAR}: {entry.name} {error}") from error
        if missing := sorted(_NEEDED - set(files)):
            raise archives.Unusable(f"{_NOT_CIFAR}: {', '.join(missing)} can't be found in it")
        if len({len(files[name][1]) for name in _TRAINING_FILES}) > 1:
            raise archives.Unusable(f"{_NOT_CIFAR}: its five training batches differ in length")
    return files


def _batch(content: dict[str, Any]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    rows = pickles.uint8_array(content.get("data"), _VALUES)
    labels = content.get("labels")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < _CLASSES for label in labels):
        raise pickles.PickleRefused("holds labels that are not whole numbers from 0 to 9")
    if len(labels) != len(rows):
        raise pickles.PickleRefused(f"holds {len(rows)} images and {len(labels)} labels")
    return rows, np.array(labels, dtype=np.int64)


def _class_names(content: dict[str, Any]) -> list[str]:
    names = content.get("label_names")
    if not isinstance(names, list) or len(names) != _CLASSES:
        raise pickles.PickleRefused("holds no list of 10 class names")
    names = [pickles.text(name) for name in names]
    if len(set(names)) < _CLASSES:
        raise pickles.PickleRefused("holds a class name twice")
    return names
