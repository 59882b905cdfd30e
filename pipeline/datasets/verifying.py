"""Whether the arrays on disk are those that meta.json describes: their shapes, their labels, their digest."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.datasets import arrays
from pipeline.datasets.progress import byte_bar
from pipeline.files import Project
from pipeline.records import Meta

_BLOCK_BYTES = 1 << 20
_OPTIONAL = ("train/groups", "train/validation")


@dataclass(frozen=True)
class _Header:
    """What a file of an array says of itself."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Of the values."""

    @property
    def size_bytes(self) -> int:
        return self.offset + math.prod(self.shape) * np.dtype(self.dtype).itemsize


def differences(project: Project, meta: Meta, *, quick: bool = False) -> list[str]:
    """How the arrays differ from what meta.json says, as sentences without a full stop; none if they are identical.

    Reads all of the arrays, with a progress bar on a terminal. `quick` compares sizes alone.
    """
    headers: dict[str, _Header] = {}
    wrong: list[str] = []
    for name, path in arrays.files(project).items():
        place = path.relative_to(project.root)
        if not path.exists():
            wrong += [] if name in _OPTIONAL else [f"{place} is missing"]
            continue
        try:
            headers[name] = header = _header(path)
        except (OSError, ValueError) as error:
            wrong.append(f"{place} can't be read ({error})")
            continue
        expected, size = _expected(name, meta), path.stat().st_size
        if header.shape != expected:
            wrong.append(f"{place} has the shape {list(header.shape)}, meta.json says {list(expected)}")
        elif size != header.size_bytes:
            wrong.append(f"{place} has {size:,} bytes and should have {header.size_bytes:,}")
    if wrong or quick:
        return wrong
    total = sum(header.size_bytes - header.offset for header in headers.values())
    with byte_bar("reading the arrays", total) as advance:
        found = _digest(project, headers, meta, advance)
    if found == meta.digest:
        return []
    return [
        f"the arrays have the digest {found}, meta.json has {meta.digest}",
        *(
            f"data/{part}/labels.npy has other labels"
            for part in ("train", "test")
            if _labels_differ(project, part, meta)
        ),
    ]


def _expected(name: str, meta: Meta) -> tuple[int, ...]:
    """The shape of an array."""
    channels, height, width = meta.shape
    training = meta.counts["train"] + meta.counts.get("validation", 0)
    count = meta.counts["test"] if name.startswith("test/") else training
    return (count, height, width, channels) if name.endswith("/images") else (count,)


def _labels_differ(project: Project, part: str, meta: Meta) -> bool:
    """Whether the classes have other numbers of images than meta.json says."""
    names = ("train", "validation") if part == "train" else (part,)
    counts = [meta.per_class[name] for name in names if name in meta.per_class]
    if not counts:
        return False
    labels = np.load(arrays.files(project)[f"{part}/labels"])
    return bool(np.bincount(labels.clip(0), minlength=len(meta.classes)).tolist() != np.sum(counts, axis=0).tolist())


def _header(path: Path) -> _Header:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"format {version} of NumPy")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return _Header(dtype.str, shape, file.tell())


def _digest(project: Project, headers: Mapping[str, _Header], meta: Meta, advance: Callable[[int], None]) -> str:
    """As `arrays.write` makes it."""
    digest = hashlib.sha256()
    for name, path in arrays.files(project).items():
        if (header := headers.get(name)) is None:
            continue
        digest.update(f"{name} {np.dtype(header.dtype).name} {list(header.shape)}\n".encode())
        with path.open("rb") as file:
            file.seek(header.offset)
            _update(digest, file, advance)
    digest.update(json.dumps(meta.classes).encode())
    return f"sha256:{digest.hexdigest()}"


def _update(digest: "hashlib._Hash", file: IO[bytes], advance: Callable[[int], None]) -> None:
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
        advance(len(block))
