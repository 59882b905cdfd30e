"""Equal images of a data set: how many, of which kinds, examples, and warnings. Compared are decoded images."""

import sys
from collections.abc import Sequence
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


def find(training: Part, test: Part, hashes: tuple[Sequence[bytes], Sequence[bytes]]) -> Duplicates:
    """Counts of equal images, with examples. `hashes` are those of the training and of the test images."""
    counts = dict.fromkeys(("training", "test", "leaked", "conflicting"), 0)
    examples: dict[str, list[str]] = {"leaked": [], "conflicting": [], "copies": []}
    if len({*hashes[0], *hashes[1]}) == len(hashes[0]) + len(hashes[1]):
        return Duplicates(**counts, examples=examples)
    equal: dict[bytes, list[tuple[str, int]]] = {}
    for part, found in zip(("train", "test"), hashes, strict=True):
        for place, hash_ in enumerate(found):
            equal.setdefault(hash_, []).append((part, place))

    def example(kind: str, one: _Image, other: _Image) -> None:
        if len(examples[kind]) < _MOST_EXAMPLES:
            examples[kind].append(f"{one.name} = {other.name}")

    parts = {"train": training, "test": test}
    for places in equal.values():
        if len(places) < 2:
            continue
        images = [_image(part, parts[part], place) for part, place in places]
        in_training = [image for image in images if image.part == "train"]
        in_test = [image for image in images if image.part == "test"]
        for key, same in (("training", in_training), ("test", in_test)):
            counts[key] += max(len(same) - 1, 0)
            if len(same) > 1:
                example("copies", same[0], same[1])
        if in_training and in_test:
            counts["leaked"] += len(in_test)
            example("leaked", in_training[0], in_test[0])
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
    if found.conflicting:
        _warn(
            f"{found.conflicting:,} images are equal to an image of another class, so at least one label is wrong. "
            f"Keep each in the class that is right, {again}",
            found.examples["conflicting"],
        )
    if copies := found.training + found.test:
        _warn(
            f"{copies:,} images are copies of another one in the same part. Copies stay on one side of every split, "
            "and weigh as much as other images",
            found.examples["copies"],
        )


def _image(name: str, part: Part, place: int) -> _Image:
    shown = f"{name} image {place}" if part.names is None else part.names[place]
    return _Image(name, int(part.labels[place]), shown)


def _warn(sentence: str, examples: Sequence[str]) -> None:
    print(f"warning: {sentence}. Such as {'; '.join(examples)}", file=sys.stderr)
