"""A cheap fingerprint of the folder or archive that a data set was made from, which shows when that has changed since.

It covers the names, sizes and contents of the images; of large sources a sample of the contents. It does not depend on
times or the machine.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

from pipeline.datasets.address import Address
from pipeline.datasets.class_names import composed
from pipeline.datasets.listing import files_below, is_image
from pipeline.errors import DataError
from pipeline.files import Project
from pipeline.machine import granted_cores
from pipeline.records import Meta

_WHOLE_BYTES = 64 << 20  # of all files; more than that is sampled
_SAMPLES_OF_AN_ARCHIVE = 256
_SAMPLES_OF_AN_IMAGE = 3
_SAMPLE_BYTES = 16 << 10


def fingerprint(address: Address, project: Project) -> str | None:
    """The fingerprint of a local folder or archive; None for a remote address. Raises DataError, OSError."""
    if address.remote:
        return None
    source = address.path(project)
    if source.is_dir():
        files = sorted((composed(path.relative_to(source).as_posix()), path) for path in _images(source))
        samples = _SAMPLES_OF_AN_IMAGE
    else:
        files, samples = [("", source)], _SAMPLES_OF_AN_ARCHIVE
    sizes = [path.stat().st_size for _, path in files]
    if sum(sizes) <= _WHOLE_BYTES:
        samples = 0
    digest = blake2b(digest_size=16)
    with ThreadPoolExecutor(2 * granted_cores()) as pool:
        contents = pool.map(lambda of: _content(*of), [(path, samples) for _, path in files])
        for (name, _), size, content in zip(files, sizes, contents, strict=True):
            digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape") + content)
    return digest.hexdigest()


def change(project: Project, meta: Meta) -> str | None:
    """A sentence with the command to run if the source of the data has changed since the download; None otherwise.

    A source that is not there any more counts as unchanged: the arrays do not need it.
    """
    if meta.fingerprint is None:
        return None
    try:
        found = fingerprint(Address.parse(meta.source), project)
    except (DataError, OSError):
        return None
    if found in (None, meta.fingerprint):
        return None
    return (
        f"{meta.source} has changed since it was read, and {project.data.name}/ holds what it was before. "
        "Run `dvc repro -f download` to read it again."
    )


def warn_of_change(project: Project, meta: Meta) -> None:
    """Prints the sentence of `change` on standard error."""
    if sentence := change(project, meta):
        print(f"warning: {sentence}", file=sys.stderr)


def _images(folder: Path) -> Iterator[Path]:
    return (path for path in files_below(folder, set()) if path.is_file() and is_image(path))


def _content(path: Path, samples: int) -> bytes:
    """A hash of a file: of all of it, or of so many blocks from its beginning to its end."""
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not samples or size <= samples * _SAMPLE_BYTES:
            while block := file.read(1 << 20):
                digest.update(block)
        else:
            for number in range(samples):
                file.seek(number * (size - _SAMPLE_BYTES) // (samples - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.digest()
