"""A folder of images in the ImageFolder layout, one directory per class: a directory, .zip, .tar or compressed tar.

- Either `train/` and `test/` hold the classes, or the classes are at the top and a test part is split off. A `val/` or
  `valid/` beside `train/` is not used, since validation images are split from the training part.
- A single directory that wraps all this is entered.
- Images may be at any depth inside the directory of their class.
- Hidden files, and files whose ending is not that of an image, are skipped. An unreadable image is an error.
"""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.config import Data
from pipeline.datasets import archives, arrays, disk, progress
from pipeline.datasets.address import Address
from pipeline.datasets.dataset import FEWEST_TEST, FEWEST_TRAINING, DataSet, Part, test_split
from pipeline.datasets.fetch import Checksum, fetch
from pipeline.datasets.images import ENDINGS, ImageReader
from pipeline.errors import DataError
from pipeline.files import Project
from pipeline.machine import granted_cores

_VALIDATION = {"val", "valid", "validation"}
_SYSTEM_FILES = {"__MACOSX", "Thumbs.db", "desktop.ini"}


@contextmanager
def open_dataset(data: Data, project: Project) -> Iterator[DataSet]:
    """The folder at data.url. Its images are decoded while the block iterates them. Raises DataError, DownloadError."""
    assert data.url is not None and data.image_size is not None  # checked by config
    address = Address.parse(data.url)
    with ExitStack() as stack:
        if not address.remote and (top := address.path(project)).is_dir():
            if data.sha256:
                raise DataError(f"data.sha256 is for archives, and {top} is a directory. Set data.sha256 to null.")
            archive_sha256 = None
        else:
            expected = Checksum("sha256", data.sha256) if data.sha256 else None
            archive = fetch(address, project, expected, address.file_name)
            archive_sha256 = archive.sha256
            top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=arrays.UNPACKED, dir=project.data)))
            archives.unpack(archive, top)
        with disk.disk_errors("listing the images", top):
            listing = _Listing(top, str(address))
            training, test = listing.parts(data.test_share, data.test_seed)
        listing.warn_of_skipped_files()
        bar = progress.image_bar("decoding", len(training[0]) + len(test[0]))
        reader = ImageReader(
            side=data.image_size,
            pool=stack.enter_context(ThreadPoolExecutor(granted_cores())),
            name_of=listing.name_of,
            advance=stack.enter_context(bar),
        )
        yield DataSet(
            name="folder",
            classes=listing.classes,
            shape=(3, data.image_size, data.image_size),
            training=Part(training[1], reader.chunks(training[0], later=test[0])),
            test=Part(test[1], reader.chunks(test[0])),
            source=str(address),
            archive_sha256=archive_sha256,
        )


_Labelled = tuple[list[Path], npt.NDArray[np.int64]]


class _Listing:
    """The images of a folder by class, in an order that does not depend on the file system."""

    def __init__(self, top: Path, source: str) -> None:
        self._top, self._source = top, source
        self._skipped: list[Path] = []
        self.classes: list[str] = []

    def parts(self, test_share: float, test_seed: int) -> tuple[_Labelled, _Labelled]:
        """Paths and labels of the training and of the test part. Raises DataError if they can't be trained on."""
        top = self._unwrapped(self._top)
        folders = {folder.name: folder for folder in self._folders(top)}
        if self._has_parts(set(folders)):
            training, test = self._by_class(folders["train"]), self._by_class(folders["test"])
            if unused := sorted(_VALIDATION & set(folders)):
                _warn(f"{', '.join(unused)}/ in {self._source} is not used: validation is split from train/")
            self._check_same_classes(set(training), set(test))
            self._check_counts(training, "train/", FEWEST_TRAINING)
            self._check_counts(test, "test/", FEWEST_TEST)
            return self._labelled(training), self._labelled(test)
        images = self._by_class(top)
        self._check_counts(images, "", FEWEST_TRAINING + FEWEST_TEST)
        paths, labels = self._labelled(images)
        in_test = test_split(labels, test_share, test_seed)
        return _selected(paths, labels, ~in_test), _selected(paths, labels, in_test)

    def name_of(self, path: Path) -> str:
        return f"{self._source}: {path.relative_to(self._top).as_posix()}"

    def warn_of_skipped_files(self) -> None:
        if self._skipped:
            endings = Counter(path.suffix.lower() or "no ending" for path in self._skipped)
            listed = ", ".join(f"{ending} ({count})" for ending, count in sorted(endings.items()))
            example = self.name_of(min(self._skipped))
            _warn(f"skipped {len(self._skipped)} files that are not images of a class: {listed}, such as {example}")

    def _unwrapped(self, folder: Path) -> Path:
        """Follows directories that are alone on their level, down to the one that holds the parts or classes."""
        while len(folders := self._folders(folder)) == 1 and self._folders(folders[0]):
            folder = folders[0]
        return folder

    def _has_parts(self, names: set[str]) -> bool:
        """Whether there are train/ and test/. Raises DataError for a layout that could mean two things."""
        if {"train", "test"} <= names:
            if unknown := sorted(names - {"train", "test"} - _VALIDATION):
                raise DataError(
                    f"{self._source} has train/ and test/ and beside them {_listed(unknown)}: are these classes or "
                    "parts? Leave only train/ and test/ (and val/), or only directories of classes."
                )
            return True
        if names and names <= {"train", "test"} | _VALIDATION:
            raise DataError(
                f"{self._source} has {_listed(sorted(names))} but not both train/ and test/. Rename the directory that "
                "should be the test part to test/, or set data.url to the directory that holds the classes: then a "
                "test part is split off."
            )
        return False

    def _by_class(self, folder: Path) -> dict[str, list[Path]]:
        self._skipped += [path for path in folder.iterdir() if not path.is_dir() and not _hidden(path.name)]
        found = {folder.name: self._images(folder) for folder in self._folders(folder)}
        if len(found) < 2:
            where = self.name_of(folder) if folder != self._top else self._source
            raise DataError(
                f"{where} has {f'only the class {next(iter(found))}' if found else 'no directories of classes'}: "
                "at least 2 classes are needed, each a directory of images."
            )
        return found

    def _images(self, folder: Path) -> list[Path]:
        """The images at any depth, sorted by path. Links are followed, but each directory is visited once."""
        images = []
        seen = set()
        for directory, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
            folders[:] = sorted(name for name in folders if not _hidden(name))
            if (real := os.path.realpath(directory)) in seen:
                folders.clear()
                continue
            seen.add(real)
            for name in files:
                path = Path(directory, name)
                if path.suffix.lower() in ENDINGS and not _hidden(name):
                    images.append(path)
                elif not _hidden(name):
                    self._skipped.append(path)
        return sorted(images, key=lambda path: path.relative_to(folder).as_posix())

    def _folders(self, folder: Path) -> list[Path]:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(path.name))

    def _labelled(self, images: dict[str, list[Path]]) -> _Labelled:
        self.classes = sorted(images)
        counts = [len(images[name]) for name in self.classes]
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        return [path for name in self.classes for path in images[name]], labels

    def _check_same_classes(self, training: set[str], test: set[str]) -> None:
        differences = [
            f"only in {part}: {_listed(sorted(names))}"
            for part, names in (("train/", training - test), ("test/", test - training))
            if names
        ]
        if differences:
            raise DataError(
                f"train/ and test/ in {self._source} must have the same classes; {'; '.join(differences)}. "
                "Add the missing directories or remove the others."
            )

    def _check_counts(self, images: dict[str, list[Path]], part: str, fewest: int) -> None:
        few = [f"{part}{name} has {len(found)}" for name, found in sorted(images.items()) if len(found) < fewest]
        if few:
            self.warn_of_skipped_files()
            raise DataError(
                f"some classes in {self._source} have too few images (at least {fewest} are needed): "
                f"{', '.join(few)}. Add images or remove these classes."
            )


def _selected(paths: list[Path], labels: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> _Labelled:
    return [paths[index] for index in np.flatnonzero(mask)], labels[mask]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FILES


def _listed(names: list[str]) -> str:
    return ", ".join(f"{name}/" for name in names)


def _raise(error: OSError) -> None:
    raise error


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)
