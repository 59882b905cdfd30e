"""The images of a folder by part and class.

- Either train/ and test/ hold the classes (layout.py has their other names), or the classes are at the top and a test
  part is split off. A val/ beside train/ is not used, since validation images are split from the training part.
- A single directory that wraps all this is entered.
- Images may be at any depth inside the directory of their class.
- Hidden files, and files that are not images by their ending, are skipped. A file without an ending is an image if its
  first bytes say so.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.datasets import layout
from pipeline.datasets.class_names import class_name, composed, is_utf8, natural_key, readable
from pipeline.datasets.dataset import FEWEST_TEST, FEWEST_TRAINING, test_split
from pipeline.datasets.images import ENDINGS
from pipeline.datasets.layout import listed
from pipeline.datasets.signatures import READABLE, format_of
from pipeline.errors import DataError
from pipeline.grouping import Groups, groups_of

Labelled = tuple[list[Path], npt.NDArray[np.int64]]
"""Paths of images with their labels [N]."""

_SYSTEM_FILES = {"__MACOSX", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class _Split:
    """The images of a folder without parts, of which a share becomes the test part."""

    paths: list[Path]
    labels: npt.NDArray[np.int64]
    share: float
    seed: int

    def parts(self, classes: Sequence[str], groups: Groups | None = None) -> tuple[Labelled, Labelled]:
        in_test = test_split(self.labels, self.share, self.seed, groups, classes)
        return _selected(self.paths, self.labels, ~in_test), _selected(self.paths, self.labels, in_test)

    def groups(self, training: Sequence[bytes], test: Sequence[bytes]) -> Groups | None:
        """The groups of equal images, from the hashes of both parts of the split without groups."""
        in_test = test_split(self.labels, self.share, self.seed)
        parts = {False: iter(training), True: iter(test)}
        return groups_of([next(parts[is_test]) for is_test in in_test.tolist()])


class Listing:
    """The images of a folder by class, in an order that does not depend on the file system."""

    def __init__(self, top: Path, source: str) -> None:
        self._top, self._source = top, source
        self._skipped: list[Path] = []
        self._split: _Split | None = None
        self.classes: list[str] = []

    def parts(self, test_share: float, test_seed: int) -> tuple[Labelled, Labelled]:
        """Paths and labels of the training and of the test part. Raises DataError if they can't be trained on."""
        top = self._unwrapped(self._top)
        folders = {folder.name: folder for folder in self._folders(top)}
        if parts := layout.find_parts(folders, self._source):
            self._skip_files_of(top)
            training, test = (self._by_class(self._unwrapped(folders[name])) for name in (parts.train, parts.test))
            if parts.unused:
                unused = ", ".join(parts.unused)
                warn(f"{unused}/ in {self._source} is not used: validation is split from {parts.train}/")
            self._check_same_classes({parts.train: set(training), parts.test: set(test)})
            self._check_counts(training, f"{parts.train}/", FEWEST_TRAINING)
            self._check_counts(test, f"{parts.test}/", FEWEST_TEST)
            return self._labelled(training), self._labelled(test)
        images = self._by_class(top)
        self._check_counts(images, "", FEWEST_TRAINING + FEWEST_TEST)
        self._split = _Split(*self._labelled(images), test_share, test_seed)
        return self._split.parts(self.classes)

    @property
    def is_split(self) -> bool:
        """Whether the test part was split off by `parts`, and did not come with the data."""
        return self._split is not None

    def split_again(self, training: Sequence[bytes], test: Sequence[bytes]) -> tuple[Labelled, Labelled]:
        """Likewise, with equal images in one part, from the hashes of the images that `parts` returned.

        Raises DataError if a class has too few different images.
        """
        assert self._split is not None
        return self._split.parts(self.classes, self._split.groups(training, test))

    def names(self, images: Labelled) -> list[str]:
        """The images' paths in the folder."""
        return [readable(path.relative_to(self._top).as_posix()) for path in images[0]]

    def name_of(self, path: Path) -> str:
        return f"{self._source}: {readable(path.relative_to(self._top).as_posix())}"

    def warn_of_skipped_files(self) -> None:
        if len(self._skipped) == 1:
            warn(f"skipped a file that is not an image of a class: {self.name_of(self._skipped[0])}")
        elif self._skipped:
            example = self.name_of(min(self._skipped))
            warn(
                f"skipped {len(self._skipped)} files that are not images of a class: {_endings(self._skipped)}, "
                f"such as {example}"
            )

    def _unwrapped(self, folder: Path) -> Path:
        """Follows directories that are alone on their level, down to the one that holds the parts or classes."""
        while len(folders := self._folders(folder)) == 1 and self._folders(folders[0]):
            self._skip_files_of(folder)
            folder = folders[0]
        return folder

    def _skip_files_of(self, folder: Path) -> None:
        self._skipped += [path for path in folder.iterdir() if not path.is_dir() and not is_hidden(path.name)]

    def _by_class(self, folder: Path) -> dict[str, list[Path]]:
        """The images of each class in `folder`. Raises DataError if its directories may not be classes."""
        where = self.name_of(folder) if folder != self._top else self._source
        self._skip_files_of(folder)
        folders = self._folders(folder)
        self._check_nesting(folders, where)
        directories: dict[str, list[Path]] = {}
        for directory in folders:
            directories.setdefault(class_name(directory.name), []).append(directory)
        self._warn_of_decoded_names(directories, where)
        found = {name: self._images(same) for name, same in directories.items()}
        if len(found) < 2:
            raise DataError(
                f"{where} has {f'only the class {next(iter(found))}' if found else 'no directories of classes'}: "
                "at least 2 classes are needed, each a directory of images."
            )
        return found

    def _check_nesting(self, folders: Iterable[Path], where: str) -> None:
        inner = {}
        holding = False  # images of their own
        for folder in folders:
            levels = [folder]
            # The seen levels end a circle of links.
            while len(below := self._folders(levels[-1])) == 1 and below[0].resolve() not in map(Path.resolve, levels):
                levels.append(below[0])
            holding = holding or any(map(_holds_images, levels if below else levels[:1]))
            inner[folder.name] = {path.name for path in below}
        layout.refuse_parts_inside(inner, where)
        if not holding:
            layout.refuse_two_readings(inner, where)

    def _warn_of_decoded_names(self, directories: Mapping[str, list[Path]], where: str) -> None:
        for name, same in directories.items():
            for directory in same:
                if not is_utf8(directory.name):
                    warn(
                        f"the name of the directory {readable(directory.name)} in {where} is not UTF-8. It was read as "
                        f"Latin-1, as the class {name}. If that is wrong, rename the directory."
                    )
            if len(same) > 1:
                warn(
                    f"{where} has {len(same)} directories named {name}, whose accents are encoded in different ways. "
                    "They are one class."
                )

    def _images(self, folders: Iterable[Path]) -> list[Path]:
        """The images at any depth, sorted by path."""
        images: list[tuple[str, Path]] = []
        seen: set[str] = set()
        for folder in folders:
            for path in files_below(folder, seen):
                if is_image(path):
                    images.append((composed(path.relative_to(folder).as_posix()), path))
                else:
                    self._skipped.append(path)
        return [path for _, path in sorted(images)]

    def _folders(self, folder: Path) -> list[Path]:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))

    def _labelled(self, images: dict[str, list[Path]]) -> Labelled:
        self.classes = sorted(images, key=natural_key)
        counts = [len(images[name]) for name in self.classes]
        labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        return [path for name in self.classes for path in images[name]], labels

    def _check_same_classes(self, classes: dict[str, set[str]]) -> None:
        (train, training), (test, testing) = classes.items()
        differences = [
            f"only in {part}/: {listed(sorted(names))}"
            for part, names in ((train, training - testing), (test, testing - training))
            if names
        ]
        if differences:
            raise DataError(
                f"{train}/ and {test}/ in {self._source} must have the same classes; {'; '.join(differences)}. "
                "Add the missing directories or remove the others."
            )

    def _check_counts(self, images: dict[str, list[Path]], part: str, fewest: int) -> None:
        few = [
            f"{part}{name} has {len(images[name])}{self._others(f'{part}{name}')}"
            for name in sorted(images, key=natural_key)
            if len(images[name]) < fewest
        ]
        if few:
            self.warn_of_skipped_files()
            raise DataError(
                f"some classes in {self._source} have too few images (at least {fewest} are needed): "
                f"{', '.join(few)}. Add images or remove these classes."
            )

    def _others(self, part_and_class: str) -> str:
        """For a message: what the skipped files of a class are, if they are images in spite of their endings."""
        wanted = tuple(part_and_class.split("/"))
        for path in sorted(self._skipped):
            above = tuple(composed(readable(name)) for name in path.relative_to(self._top).parts[:-1])
            if wanted == above[-len(wanted) :] and (form := format_of(path)):
                advice = f"end its name with .{form.lower()}" if form in READABLE else "convert it to JPEG or PNG"
                return f" (but {readable(path.name)} is {form}: {advice})"
        return ""


def files_below(folder: Path, seen: set[str]) -> Iterator[Path]:
    """The files at any depth, without hidden ones. Links are followed, but each directory is visited once: `seen` holds
    those that were. Raises OSError for a directory that can't be read."""
    for directory, inner, files in os.walk(folder, followlinks=True, onerror=_raise):
        inner[:] = sorted(name for name in inner if not is_hidden(name))
        if (real := os.path.realpath(directory)) in seen:
            inner.clear()
            continue
        seen.add(real)
        yield from (Path(directory, name) for name in files if not is_hidden(name))


def is_image(path: Path) -> bool:
    """Whether a file is taken for an image: by its ending, or by its first bytes if it has none."""
    ending = path.suffix.lower()
    if ending in ENDINGS:
        return True
    if ending.strip(".0123456789") or not path.is_file():
        return False
    return format_of(path) in READABLE | {"HEIC"}


def _holds_images(folder: Path) -> bool:
    return any(not is_hidden(path.name) and not path.is_dir() and is_image(path) for path in folder.iterdir())


def _endings(paths: Iterable[Path]) -> str:
    """How many files have which ending: ".csv (1), no ending (2)"."""
    counts = Counter(readable(path.suffix.lower()) or "no ending" for path in paths)
    return ", ".join(f"{ending} ({count})" for ending, count in sorted(counts.items()))


def _selected(paths: list[Path], labels: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> Labelled:
    return [paths[index] for index in np.flatnonzero(mask)], labels[mask]


def is_hidden(name: str) -> bool:
    """Whether a file or directory is skipped without a word: hidden, or made by an operating system."""
    return name.startswith(".") or name in _SYSTEM_FILES


def _raise(error: OSError) -> None:
    raise error


def warn(sentence: str) -> None:
    """Prints a warning on standard error."""
    print(f"warning: {sentence}", file=sys.stderr)
