"""Which directories of a folder are its parts: train/, val/ and test/ under any of their usual names.

A name is recognised whatever its case: Train, training, train_set, TrainImages, flowers-train, train2017.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.datasets.class_names import composed, readable
from pipeline.errors import DataError

Role = Literal["train", "test", "val", "eval"]

_WORDS: dict[str, Role] = {
    "training": "train",
    "train": "train",
    "testing": "test",
    "test": "test",
    "validation": "val",
    "valid": "val",
    "val": "val",
    "dev": "val",
    "evaluation": "eval",
    "eval": "eval",
}
_FILLER = r"(?:dataset|data|set|split|part|folder|dir|image|img|photo|picture|pic|sample)s?"
_NAME = re.compile(
    rf"(?P<before>.*[\W\d_]|{_FILLER})?(?P<word>{'|'.join(sorted(_WORDS, key=len, reverse=True))})"
    rf"(?P<after>(?:[\W\d_]*{_FILLER})*(?:[\W\d_].*)?)"
)


@dataclass(frozen=True)
class Parts:
    """The directories of a folder that has parts."""

    train: str
    test: str | None
    """None: there is a val, and a test part is to be split off from train."""
    val: str | None = None


def find_parts(names: Collection[str], source: str) -> Parts | None:
    """The parts among the directories `names`; None if the directories are classes.

    Raises DataError for a layout that could mean two things. `source` is the folder's name in the message.
    """
    found: dict[str, dict[Role, list[str]]] = {}
    for name in sorted(names):
        if recognised := _recognised(name):
            role, subject = recognised
            found.setdefault(subject, {}).setdefault(role, []).append(name)
    complete = [roles for roles in found.values() if "train" in roles and len(roles) > 1]
    if not complete:
        plain = found.get("", {})
        if names and len(plain) == len(names):
            raise _incomplete(source, sorted(names))
        return None
    if len(complete) > 1:
        both = sorted(name for roles in complete for same in roles.values() for name in same)
        raise DataError(
            f"{source} has {listed(both)}: several directories are named like a training part. Arrange them as train/ "
            "and test/, each with one directory per class."
        )
    roles = complete[0]
    evaluation = "val" if "test" in roles else "test"
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for role, alike in roles.items():
        parts[evaluation if role == "eval" else role] += alike
    for part, alike in parts.items():
        if len(alike) > 1:
            raise DataError(
                f"{source} has {listed(alike)}, each of which may be the {part} part. Leave or rename all but one."
            )
    known = [name for alike in parts.values() for name in alike]
    if unknown := sorted(set(names) - set(known)):
        given = " and ".join(f"{name}/" for name in known)
        raise DataError(
            f"{source} has {given} and beside them {listed(unknown)}: are these classes or parts? Leave only train/ "
            "and test/ (and val/), or only directories of classes."
        )
    return Parts(parts["train"][0], *(next(iter(parts[part]), None) for part in ("test", "val")))


def refuse_parts_inside(inner: Mapping[str, Collection[str]], where: str) -> None:
    """Raises DataError if the directory of a class holds train/ and test/. `inner` has what is in each directory."""
    for name, names in inner.items():
        recognised = {inside: found for inside in sorted(names) if (found := _recognised(inside))}
        subjects = Counter(subject for _, subject in set(recognised.values()))
        parts = [inside for inside, (_, subject) in recognised.items() if subjects[subject] > 1]
        if parts:
            raise DataError(
                f"{where} has the directory {readable(name)}/ with {listed(parts)} in it. If these are parts, their "
                "images would be mixed: put the parts outside and the classes inside (train/CLASS/, test/CLASS/). If "
                f"they are only names, move all images of the class into {readable(name)}/ itself. If it is the data "
                "set, set data.url to it."
            )


def refuse_two_readings(inner: Mapping[str, Collection[str]], where: str) -> None:
    """Raises DataError if all directories have the same two or more directories in them.

    `inner` has the directories in each directory, none of which holds images of its own.
    """
    if len(inner) < 2:
        return
    shared = set.intersection(*({composed(name).casefold() for name in names} for names in inner.values()))
    if len(shared) > 1:
        outer = sorted(inner)
        repeated = sorted(name for name in inner[outer[0]] if composed(name).casefold() in shared)
        raise DataError(
            f"{where} can be read in two ways, since {listed(outer)} all have the same directories {listed(repeated)} "
            f"in them. If the classes are {_plain(repeated)}: set data.url to one of {listed(outer)}, or name two of "
            f"them train/ and test/. If the classes are {_plain(outer)}: move the images of each class out of its "
            "inner directories."
        )


def listed(names: Collection[str], most: int = 8) -> str:
    """Names of directories for a message."""
    shown = ", ".join(f"{readable(name)}/" for name in list(names)[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _recognised(name: str) -> tuple[Role, str] | None:
    """The role of a directory, and what its name says besides: ("train", "flowers") for flowers_train."""
    match = _NAME.fullmatch(composed(name).casefold())
    if not match:
        return None
    around = f"{match['before'] or ''}{match['after']}"
    subject = re.sub(rf"\b(?:{_FILLER})+\b|\s", "", re.sub(r"[\W\d_]+", " ", around))
    return _WORDS[match["word"]], subject


def _incomplete(source: str, names: list[str]) -> DataError:
    return DataError(
        f"{source} has {listed(names)} but not both train/ and test/. Rename the directory that should be the test "
        "part to test/, or set data.url to the directory that holds the classes: then a test part is split off."
    )


def _plain(names: Collection[str]) -> str:
    return listed(names).replace("/", "")
