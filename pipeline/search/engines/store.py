"""Files of trials at an address that owner and workers reach: `tune.checkpoints`, an fsspec URL such as s3://bucket/hpo.

    hpo/main-1f0c/trials/0003/attempt                    names the attempt that the trial's files count of
    hpo/main-1f0c/trials/0003/ATTEMPT/checkpoint.pt      and what else that attempt has stored

An attempt writes into a folder of its own. A worker that lives on behind a cut link can change nothing that a later
attempt resumes from. Credentials come from the environment, as fsspec and its libraries read them.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from pipeline.errors import PipelineError
from pipeline.files import atomic_write

T = TypeVar("T")

PATIENCE_S = 600.0
"""Seconds that are waited for a store that does not answer, where nothing can go on without it."""
PAUSES = wait_exponential(min=0.5, max=30)
"""Between two tries. A try has failed when the store's library has tried several times itself."""
_WRITES_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"}
"""Protocols by which a file is there as a whole or not at all. Elsewhere it is written aside and moved."""
_ATTEMPT = "attempt"
CHECKPOINT = "checkpoint"
"""How the names of checkpoints begin."""
MODEL = "model.safetensors"


class StoreError(PipelineError):
    """The store can't be used, or does not answer."""


@dataclass(frozen=True)
class Store:
    """A folder of a store: of a study, of its phase, or of a trial. All methods raise StoreError."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "Store":
        return Store(f"{self.url.rstrip('/')}/{name}")

    def check(self) -> None:
        """Raises StoreError, which says why, if files can't be written, read and deleted here."""
        probe = self / f"probe-{uuid.uuid4().hex}"
        with _named(self.url):
            probe._write(b"probe")
            try:
                if probe.read() != b"probe":
                    raise StoreError(f"tune.checkpoints: {self} gives back something else than was written.")
            finally:
                probe._fs.rm_file(probe._path)

    def write(self, content: bytes) -> None:
        """Writes this file as a whole."""
        with _named(self.url):
            self._write(content)

    def read(self) -> bytes | None:
        """This file's content; None if there is none."""
        with _named(self.url):
            self._fs.invalidate_cache()
            try:
                content: bytes = self._fs.cat_file(self._path)
            except FileNotFoundError:
                return None
            return content

    def attempt(self) -> str | None:
        """The attempt that this trial's files count of."""
        content = (self / _ATTEMPT).read()
        return content.decode() if content else None

    def claim(self, attempt: str, folder: Path) -> None:
        """Makes this trial's files those of `attempt`, and puts its checkpoints into `folder`."""
        before = self.attempt()
        if before and before != attempt:
            with _named(self.url):
                for path in self._files((self / before)._path):
                    name = path.rpartition("/")[2]
                    if name.startswith(CHECKPOINT):
                        self._fs.get_file(path, str(folder / name))
                        self._copy(path, (self / attempt / name)._path)
        (self / _ATTEMPT).write(attempt.encode())
        with _named(self.url):
            self._remove(path for path in self._files(self._path) if not self._is_of(path, attempt))

    def put(self, attempt: str, files: Mapping[str, Path]) -> bool:
        """Stores files of this trial, each as a whole; False, and nothing, if they count of another attempt by now."""
        if self.attempt() != attempt:
            return False
        with _named(self.url):
            for name, path in files.items():
                target = self / attempt / name
                target._through(lambda there, path=path: self._fs.put_file(str(path), there))  # type: ignore[misc]
        return True

    def fetch(self, name: str, target: Path) -> bool:
        """Puts a file of this trial at `target`, as a whole; False if there is none."""
        attempt = self.attempt()
        with _named(self.url):
            try:
                with atomic_write(target) as aside:
                    self._fs.get_file((self / (attempt or _ATTEMPT) / name)._path, str(aside))
            except FileNotFoundError:
                return False
        return True

    def sizes(self) -> dict[str, int]:
        """Bytes of all checkpoints of each trial in this folder of trials."""
        with _named(self.url):
            self._fs.invalidate_cache()
            found: dict[str, int] = {}
            for path, about in self._fs.find(self._path, detail=True).items():
                trial, *rest = path.removeprefix(self._path).strip("/").split("/")
                if rest and rest[-1].startswith(CHECKPOINT):
                    found[trial] = found.get(trial, 0) + int(about["size"])
            return found

    def clear(self) -> None:
        """Deletes all of this trial but its model."""
        with _named(self.url):
            files = self._files(self._path)
            models = [path for path in files if path.endswith(f"/{MODEL}")]
            kept = {*models, (self / _ATTEMPT)._path} if models else set()
            self._remove(path for path in files if path not in kept)

    def delete(self) -> None:
        """Deletes this folder."""
        with _named(self.url):
            self._remove(self._files(self._path))
            with suppress(FileNotFoundError, NotImplementedError):  # object stores have no folders
                self._fs.rm(self._path, recursive=True)

    @cached_property
    def _where(self) -> tuple[Any, str]:
        import fsspec

        fs, path = fsspec.core.url_to_fs(self.url)
        return fs, path

    @property
    def _fs(self) -> Any:
        return self._where[0]

    @property
    def _path(self) -> str:
        return self._where[1]

    def _write(self, content: bytes) -> None:
        self._through(lambda there: self._fs.pipe_file(there, content))

    def _through(self, write: Callable[[str], object]) -> None:
        """Lets `write` write this file, so that it is there as a whole or not at all."""
        if self.url.partition(":")[0] in _WRITES_WHOLE:
            write(self._path)
            return
        folder, _, name = self._path.rpartition("/")
        aside = f"{folder}/.{name}.{uuid.uuid4().hex}"
        self._fs.makedirs(folder, exist_ok=True)
        write(aside)
        self._fs.mv(aside, self._path)

    def _copy(self, source: str, target: str) -> None:
        if self.url.partition(":")[0] not in _WRITES_WHOLE:
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._fs.copy(source, target)

    def _files(self, path: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            found: list[str] = self._fs.find(path)
        except FileNotFoundError:
            return []
        return found

    def _is_of(self, path: str, attempt: str) -> bool:
        inside = path.removeprefix(self._path).strip("/")
        return inside == _ATTEMPT or inside.startswith(f"{attempt}/")

    def _remove(self, paths: Iterable[str]) -> None:
        for path in list(paths):
            with suppress(FileNotFoundError):  # another attempt has deleted it
                self._fs.rm_file(path)


def patiently(work: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """What `work` returns, as soon as the store answers. Raises StoreError after `patience_s`."""
    retrying = Retrying(
        wait=PAUSES, stop=stop_after_delay(patience_s), retry=retry_if_exception_type(StoreError), reraise=True
    )
    return retrying(work)


@contextmanager
def _named(url: str) -> Iterator[None]:
    """A context in which any error becomes a StoreError: what a store's library raises has no common kind."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".") or type(error).__name__
        raise StoreError(f"tune.checkpoints: {url} can't be used: {reason}.") from error
