"""Equal images of a data set: how many, of which kinds, examples, and warnings. Compared are decoded images."""

import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.datasets.dataset import Part
from pipeline.records import Duplicates

_MOST_EXAMPLES = 5


def hashes(images: npt.NDArray[np.uint8]) -> list[bytes]:
    """A hash of the pixels of each image [n, H, W, C]."""
    return [blake2b(image, digest_size=16).digest() for image in np.ascontiguousarray(images)]


class _Image(NamedTuple):
    part: str
    label: int
    name: str


def find(parts: Mapping[str, Part], hashes: Mapping[str, Sequence[bytes]]) -> Duplicates:
    """Counts of equal images, with examples. Both go by part: train, test, and validation if the data has one."""
    keys = ("training", "test", "leaked", "conflicting", "validation", "leaked_into_validation")
    counts = dict.fromkeys(keys, 0)
    examples: dict[str, list[str]] = {
        kind: [] for kind in ("leaked", "leaked_into_validation", "conflicting", "copies")
    }
    if len(set().union(*hashes.values())) == sum(map(len, hashes.values())):
        return Duplicates(**counts, examples=examples)
    equal: dict[bytes, list[tuple[str, int]]] = {}
    for part, found in hashes.items():
        for place, hash_ in enumerate(found):
            equal.setdefault(hash_, []).append((part, place))

    def example(kind: str, one: _Image, other: _Image) -> None:
        if len(examples[kind]) < _MOST_EXAMPLES:
            examples[kind].append(f"{one.name} = {other.name}")

    for places in equal.values():
        if len(places) < 2:
            continue
        images = [_image(part, parts[part], place) for part, place in places]
        in_training, in_validation, in_test = (
            [image for image in images if image.part == part] for part in ("train", "validation", "test")
        )
        for key, same in (("training", in_training), ("validation", in_validation), ("test", in_test)):
            counts[key] += max(len(same) - 1, 0)
            if len(same) > 1:
                example("copies", same[0], same[1])
        if in_training and in_validation:
            counts["leaked_into_validation"] += len(in_validation)
            example("leaked_into_validation", in_training[0], in_validation[0])
        if (learned := [*in_training, *in_validation]) and in_test:
            counts["leaked"] += len(in_test)
            example("leaked", learned[0], in_test[0])
        if other := next((image for image in images if image.label != images[0].label), None):
            counts["conflicting"] += len(images)
            example("conflicting", images[0], other)
    return Duplicates(**counts, examples=examples)


def warn(found: Duplicates, counts: dict[str, int]) -> None:
    """Prints a warning for each kind of equal images. `counts` are those of all images of the parts."""
    again = "then run `dvc repro -f download`"
    if found.leaked:
        _warn(
            f"{found.leaked:,} of {counts['test']:,} test images are also in the training set, which makes the test "
            f"accuracy look better than it is. Remove them from one part, {again}",
            found.examples["leaked"],
        )
    if found.leaked_into_validation:
        _warn(
            f"{found.leaked_into_validation:,} of {counts['validation']:,} validation images are also among the "
            f"training images, which makes the validation accuracy look better than it is. Remove them from one part, "
            f"{again}",
            found.examples["leaked_into_validation"],
        )
    if found.conflicting:
        _warn(
            f"{found.conflicting:,} images are equal to an image of another class, so at least one label is wrong. "
            f"Keep each in the class that is right, {again}",
            found.examples["conflicting"],
        )
    if copies := found.copies:
        _warn(
            f"{copies:,} images are copies of another one in the same part. Copies stay on one side of every split, "
            "and weigh as much as other images",
            found.examples["copies"],
        )


def _image(name: str, part: Part, place: int) -> _Image:
    return _Image(name, int(part.labels[place]), part.name(name, place))


def _warn(sentence: str, examples: Sequence[str]) -> None:
    print(f"warning: {sentence}. Such as {'; '.join(examples)}", file=sys.stderr)
