"""The images of a folder by part and class.

- Either train/, val/ and test/ hold the classes (layout.py has their other names), or the classes are at the top. Where
  there is no test/, a test part is split off.
- A single directory that wraps all this is entered.
- Images may be at any depth inside the directory of their class.
- Hidden files, and files that are not images by their ending, are skipped. A file without an ending is an image if its
  first bytes say so.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.datasets import layout
from pipeline.datasets.class_names import class_name, composed, is_utf8, natural_key, readable
from pipeline.datasets.dataset import FEWEST_TEST, FEWEST_TRAINING, Files, Labelled, Split
from pipeline.datasets.images import ENDINGS
from pipeline.datasets.layout import listed
from pipeline.datasets.signatures import READABLE, format_of
from pipeline.errors import DataError

_SYSTEM_FILES = {"__MACOSX", "Thumbs.db", "desktop.ini"}


class Listing:
    """The images of a folder by class, in an order that does not depend on the file system."""

    def __init__(self, top: Path, source: str) -> None:
        self._top, self._source = top, source
        self._skipped: list[Path] = []

    def files(self, test_share: float, test_seed: int) -> Files:
        """The images by part and class. Raises DataError if they can't be trained on."""
        top = self._unwrapped(self._top)
        folders = {folder.name: folder for folder in self._folders(top)}
        parts = layout.find_parts(folders, self._source)
        if parts is None:
            images = self._by_class(top)
            self._check_counts(images, "", FEWEST_TRAINING + FEWEST_TEST)
            return Files.splitting(*self._split(images, test_share, test_seed))
        self._skip_files_of(top)
        given = [name for name in (parts.train, parts.val, parts.test) if name]
        images_of = {name: self._by_class(self._unwrapped(folders[name])) for name in given}
        for name in given[1:]:
            self._check_same_classes({given[0]: set(images_of[given[0]]), name: set(images_of[name])})
        fewest = FEWEST_TRAINING + (0 if parts.test else FEWEST_TEST)
        self._check_counts(images_of[parts.train], f"{parts.train}/", fewest)
        for name in given[1:]:
            self._check_counts(images_of[name], f"{name}/", FEWEST_TEST)
        training = images_of[parts.train]
        validation = _labelled(images_of[parts.val]) if parts.val else None
        if parts.test is None:
            print(
                f"{self._source} has no test part: a share of {test_share:g} of {parts.train}/ becomes it", flush=True
            )
            return Files.splitting(*self._split(training, test_share, test_seed), validation)
        return Files(_classes(training), _labelled(training), _labelled(images_of[parts.test]), validation)

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

    def _split(self, images: dict[str, list[Path]], share: float, seed: int) -> tuple[list[str], Split]:
        return _classes(images), Split(*_labelled(images), share, seed)

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


def _classes(images: Mapping[str, list[Path]]) -> list[str]:
    return sorted(images, key=natural_key)


def _labelled(images: Mapping[str, list[Path]]) -> Labelled:
    """The images in the order of their classes."""
    ordered = [images[name] for name in _classes(images)]
    labels = np.repeat(np.arange(len(ordered), dtype=np.int64), [len(paths) for paths in ordered])
    return [path for paths in ordered for path in paths], labels


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


def is_hidden(name: str) -> bool:
    """Whether a file or directory is skipped without a word: hidden, or made by an operating system."""
    return name.startswith(".") or name in _SYSTEM_FILES


def _raise(error: OSError) -> None:
    raise error


def warn(sentence: str) -> None:
    """Prints a warning on standard error."""
    print(f"warning: {sentence}", file=sys.stderr)
