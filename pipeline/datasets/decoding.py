"""A data set of image files, which are decoded on all granted cores when its images are first iterated.

Threads suffice: of the 3 ms or more that an image takes, Python's lock is held for 0.2 ms.
"""

import inspect
import json
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL

from pipeline.datasets import arrays, disk, images, progress, wide
from pipeline.datasets.class_names import readable
from pipeline.datasets.dataset import DataSet, Files, Labelled, Part
from pipeline.datasets.decoded import Store
from pipeline.datasets.images import Decoded, decode, floats, strict_warnings
from pipeline.datasets.listing import warn
from pipeline.datasets.wide import Scale
from pipeline.errors import DataError
from pipeline.files import Project, atomic_write
from pipeline.machine import granted_cores

_MOST_LISTED = 20
_MOST_IN_CHUNK = 16  # images that are decoded in one go
_AHEAD = 4  # chunks per core that wait to be written
_READ_BYTES = 4 << 20


class Decoder:
    """Decodes the images of a folder once, and keeps them on the disk until the data set is written (decoded.py)."""

    def __init__(self, side: int, top: Path, source: str, project: Project, identity: str | None) -> None:
        """`side` is that of the results, in pixels. `top` is the folder that the names of images start in, `source` its
        name in messages. `identity` has the checksums of what was unpacked there; None for a folder of the user's.
        """
        self._side, self._top, self._source, self._project, self._identity = side, top, source, project, identity
        self._scale = Scale()
        self._place: dict[Path, int] = {}
        """Of each image in the store."""

    @classmethod
    @contextmanager
    def open(cls, side: int, top: Path, source: str, project: Project, identity: str | None) -> Iterator["Decoder"]:
        """A decoder for the block. At its end it warns of images whose values fill a small part of their range."""
        project.unreadable_images.unlink(missing_ok=True)
        decoder = cls(side, top, source, project, identity)
        try:
            yield decoder
        finally:  # a small range may also be the reason of an error, since it makes images equal
            for sentence in decoder._scale.warnings():
                warn(f"{source}: {sentence}")

    def dataset(
        self, files: Files, name: str, *, archive_sha256: str | None, fingerprint: str | None = None
    ) -> DataSet:
        """The data set `name` of these files."""
        labelled = [files.training, *([files.validation] if files.validation else []), files.test]
        paths = sorted(path for inside, _ in labelled for path in inside)
        self._place = {path: place for place, path in enumerate(paths)}
        parts = [self._part(each) for each in labelled]

        def split_again(training: Sequence[bytes], test: Sequence[bytes]) -> DataSet:
            again = files.split_again(training, test)
            return self.dataset(again, name, archive_sha256=archive_sha256, fingerprint=fingerprint)

        return DataSet(
            name=name,
            classes=files.classes,
            shape=(3, self._side, self._side),
            training=parts[0],
            validation=parts[1] if files.validation else None,
            test=parts[-1],
            source=self._source,
            archive_sha256=archive_sha256,
            fingerprint=fingerprint,
            split_again=split_again if files.split else None,
            scale=self._scale,
        )

    def _part(self, labelled: Labelled) -> Part:
        paths, labels = labelled
        return Part(labels, self._chunks([self._place[path] for path in paths]), [self._name(path) for path in paths])

    def _chunks(self, places: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        size = max(1, _READ_BYTES // (3 * self._side**2))
        for start in range(0, len(places), size):
            yield self._decoded[places[start : start + size]]

    @cached_property
    def _decoded(self) -> npt.NDArray[np.uint8]:
        """All images in the order of `_place`. Raises DataError with the names of all images that can't be read."""
        paths = list(self._place)
        with Store(self._project, self._key(), self._side, self._scale) as store:
            if store.count:
                print(f"{store.count:,} of {len(paths):,} images are decoded already", flush=True)
            disk.require(
                (2 * len(paths) - store.count) * 3 * self._side**2, self._project.data, "the images and arrays"
            )
            rest = paths[store.count :]
            problems: dict[Path, str] = {}
            with (
                progress.image_bar("decoding", len(paths), store.count) as advance,
                strict_warnings(),
                ThreadPoolExecutor(granted_cores()) as threads,
            ):
                try:
                    for chunk, decoded in self._in_order(rest, threads):
                        problems |= decoded.problems
                        if not problems:
                            store.append(decoded.images)
                        advance(len(chunk))
                finally:
                    threads.shutdown(cancel_futures=True)
            if problems:
                raise self._unreadable(problems)
        return store.images()

    def _in_order(self, paths: Sequence[Path], threads: ThreadPoolExecutor) -> Iterator[tuple[Sequence[Path], Decoded]]:
        """Chunks of images with what they were decoded to. A few of them are decoded ahead."""
        most = _AHEAD * granted_cores()
        size = max(1, min(_MOST_IN_CHUNK, len(paths) // most))
        starts = iter(range(0, len(paths), size))
        waiting: deque[tuple[Sequence[Path], Future[Decoded]]] = deque()
        while True:
            for start in islice(starts, most - len(waiting)):
                chunk = paths[start : start + size]
                waiting.append((chunk, threads.submit(decode, chunk, self._side, self._scale.highest_float)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            yield chunk, self._scaled(chunk, future.result())

    def _scaled(self, chunk: Sequence[Path], decoded: Decoded) -> Decoded:
        """What a chunk was decoded to, again if its scale was not decided before."""
        if decoded.scale_missing:
            if self._scale.highest_float is None:
                self._decide_scale()
            decoded = decode(chunk, self._side, self._scale.highest_float)
        self._scale.add(decoded.seen)
        return decoded

    def _decide_scale(self) -> None:
        """Raises DataError if the floating-point images among all images of the data set have two scales."""
        with ThreadPoolExecutor(granted_cores()) as threads:
            found = zip(self._place, threads.map(floats, self._place), strict=True)
            self._scale.decide([(path, values) for path, values in found if values is not None], self._name_of)

    def _unreadable(self, found: Mapping[Path, str]) -> DataError:
        problems = [f"  {self._name_of(path)}: {reason}" for path, reason in found.items()]
        count = "one image" if len(problems) == 1 else "some images"
        if len(problems) > _MOST_LISTED:
            file = self._project.unreadable_images
            with atomic_write(file) as aside:
                aside.write_text("\n".join(problem.strip() for problem in problems) + "\n", encoding="utf-8")
            more = f"  and {len(problems) - _MOST_LISTED:,} more; {file} has all {len(problems):,}"
            problems[_MOST_LISTED:] = [more]
        listed = "\n".join(problems)
        return DataError(f"{count} can't be read; repair or remove what is named here and run again:\n{listed}")

    def _key(self) -> str:
        """A hash of what decides the decoded images: the files, their order, their new size, and the code."""
        digest = blake2b(digest_size=16)
        code = [inspect.getsource(module) for module in (images, wide)]
        digest.update(json.dumps([self._side, PIL.__version__, self._identity, *code]).encode())
        for path in self._place:
            digest.update(f"{self._name(path)}\0".encode())
            if self._identity is None:
                with suppress(OSError):  # of a broken link, which the decoder names
                    status = path.stat()
                    digest.update(f"{status.st_size} {status.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def _name(self, path: Path) -> str:
        return readable(path.relative_to(self._top).as_posix())

    def _name_of(self, path: Path) -> str:
        return f"{self._source}: {self._name(path)}"


@contextmanager
def unpacked_folder(project: Project) -> Iterator[Path]:
    """An empty folder for unpacked files, which is removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix=arrays.UNPACKED, dir=project.data) as name:
        yield Path(name)
