"""A folder of images in the ImageFolder layout, one directory a class; as a directory, .zip, .tar or compressed tar.

Either `train/` and `test/` hold the classes (a `val/` or `valid/` beside them is not used: validation is split from the
training part), or the classes lie at the top and a test part is split off. A single directory around all that is looked
through. Images may lie deeper inside the directory of their class. Hidden files and what is no image by its ending
are passed over; an image that can't be read is an error.
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

_VALIDATION = {"val", "valid", "validation"}
_PASSED_OVER = {"__MACOSX", "Thumbs.db", "desktop.ini"}


@contextmanager
def opened(data: Data, project: Project) -> Iterator[DataSet]:
    """The folder at data.url; its images are decoded while the block reads them. Raises DataError, DownloadError."""
    assert data.url is not None and data.image_size is not None  # config has checked that
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
        listing.tell_what_is_passed_over()
        bar = progress.counted_images("decoding", len(training[0]) + len(test[0]))
        reader = ImageReader(
            side=data.image_size,
            pool=stack.enter_context(ThreadPoolExecutor(os.cpu_count())),
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
    """The images of a folder by class, in an order that does not depend on the file system's."""

    def __init__(self, top: Path, source: str) -> None:
        self._top, self._source = top, source
        self._others: list[Path] = []
        self.classes: list[str] = []

    def parts(self, test_share: float, test_seed: int) -> tuple[_Labelled, _Labelled]:
        """Training and test part: images and labels. Raises DataError for what can't be trained on."""
        top = self._within_wrapping(self._top)
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
        return _chosen(paths, labels, ~in_test), _chosen(paths, labels, in_test)

    def name_of(self, path: Path) -> str:
        return f"{self._source}: {path.relative_to(self._top).as_posix()}"

    def tell_what_is_passed_over(self) -> None:
        if self._others:
            endings = Counter(path.suffix.lower() or "no ending" for path in self._others)
            listed = ", ".join(f"{ending} ({count})" for ending, count in sorted(endings.items()))
            example = self.name_of(min(self._others))
            _warn(f"passed over {len(self._others)} files that are no images of a class: {listed}, such as {example}")

    def _within_wrapping(self, folder: Path) -> Path:
        while len(folders := self._folders(folder)) == 1 and self._folders(folders[0]):
            folder = folders[0]
        return folder

    def _has_parts(self, names: set[str]) -> bool:
        """Whether the folder has train/ and test/; layouts that could mean two things are errors."""
        if {"train", "test"} <= names:
            if unknown := sorted(names - {"train", "test"} - _VALIDATION):
                raise DataError(
                    f"{self._source} has train/ and test/ and beside them {_listed(unknown)}: are these classes or "
                    "parts? Leave only train/ and test/ (and val/), or only directories of classes."
                )
            return True
        if names and names <= {"train", "test"} | _VALIDATION:
            raise DataError(
                f"{self._source} has {_listed(sorted(names))} but not both train/ and test/. Rename the one that shall "
                "be the test part to test/, or set data.url to the directory that holds the classes, to split a test "
                "part off."
            )
        return False

    def _by_class(self, folder: Path) -> dict[str, list[Path]]:
        self._others += [path for path in folder.iterdir() if not path.is_dir() and not _hidden(path.name)]
        found = {folder.name: self._images(folder) for folder in self._folders(folder)}
        if len(found) < 2:
            where = self.name_of(folder) if folder != self._top else self._source
            raise DataError(
                f"{where} has {f'only the class {next(iter(found))}' if found else 'no directories of classes'}: "
                "at least 2 classes are needed, each a directory of images."
            )
        return found

    def _images(self, folder: Path) -> list[Path]:
        """The images at any depth, sorted by their path; links are followed, each directory once."""
        images = []
        seen = set()
        for place, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
            folders[:] = sorted(name for name in folders if not _hidden(name))
            if (real := os.path.realpath(place)) in seen:
                folders.clear()
                continue
            seen.add(real)
            for name in files:
                path = Path(place, name)
                if path.suffix.lower() in ENDINGS and not _hidden(name):
                    images.append(path)
                elif not _hidden(name):
                    self._others.append(path)
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
            self.tell_what_is_passed_over()
            raise DataError(
                f"some classes in {self._source} have too few images (at least {fewest} are needed): "
                f"{', '.join(few)}. Add images or remove these classes."
            )


def _chosen(paths: list[Path], labels: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> _Labelled:
    return [paths[position] for position in np.flatnonzero(mask)], labels[mask]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _PASSED_OVER


def _listed(names: list[str]) -> str:
    return ", ".join(f"{name}/" for name in names)


def _raise(error: OSError) -> None:
    raise error


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)
