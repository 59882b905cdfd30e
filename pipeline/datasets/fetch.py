"""Fetches an address as an `Archive`: a local file whose checksum is compared before anything reads its content.

A remote file NAME is stored in downloads/. Further files belong to it:

    NAME.part        the beginning of the file, while it is downloaded
    NAME.part.json   which file that is the beginning of
    NAME.json        that this program downloaded NAME, and from where
    NAME.rejected    a downloaded file with the wrong content; only for a person to look at
    NAME.lock        held by the process that downloads
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pipeline.datasets import disk, progress
from pipeline.datasets.address import Address
from pipeline.datasets.transfer import Transfer
from pipeline.errors import DataError, DownloadError
from pipeline.files import Project, atomic_write


@dataclass(frozen=True)
class Checksum:
    algorithm: Literal["md5", "sha256"]
    value: str
    """Lower-case hexadecimal digits."""
    replaceable: bool = True
    """Whether data.sha256 may name another one in its place."""

    def __str__(self) -> str:
        return f"{'MD5' if self.algorithm == 'md5' else 'SHA-256'} {self.value}"


@dataclass(frozen=True)
class Archive:
    """A local file with the checksum that was asked for, if there was one."""

    path: Path
    sha256: str
    fetched: bool
    """Whether this program downloaded it, and so may also rename it."""

    def unusable(self, problem: str) -> DataError:
        """The error to raise if the content is bad. A downloaded archive is renamed, so that no later run uses it."""
        if not self.fetched:
            return DataError(f"{self.path} {problem}. Put a good copy in its place, or set data.url to another one.")
        rejected = _set_aside(self.path)
        return DataError(
            f"{self.path} {problem}. It was renamed to {rejected.name}, so that the next run fetches it again; "
            "if that fails in the same way, set data.url to another copy."
        )


def fetch(address: Address, project: Project, expected: Checksum | None, name: str) -> Archive:
    """The file at `address`. A remote one is stored as `name` in downloads/, which may name a folder too.

    Raises DataError for a missing file, a wrong checksum or a full disk, DownloadError if it can't be fetched.
    """
    if not address.remote:
        path = address.path(project)
        if path.is_dir():
            raise DataError(f"data.url names {path}, which is a directory where an archive is needed.")
        return _users_own(path, expected, _checksums(path, expected))
    path = project.downloads / name
    with disk.disk_errors("fetching the archive", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f"{path.name}.lock"))
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process that fetches {name}", flush=True)
            held = lock.acquire()
        with held:
            return _present(address, path, expected) or _download(address, path, expected)


def _present(address: Address, path: Path, expected: Checksum | None) -> Archive | None:
    """The file in downloads/, if it is the one that is asked for."""
    if not path.is_file():
        return None
    found = _checksums(path, expected)
    record = _record(path)
    if record.get("sha256") != found["sha256"]:
        print(f"using {path}, which was put there by hand", flush=True)
        return _users_own(path, expected, found)
    if _matches(found, expected) if expected else record.get("identity") == address.identity:
        return Archive(path, found["sha256"], fetched=True)
    print(f"{path} was fetched before, but is not the file that params.yaml asks for", flush=True)
    return None


def _users_own(path: Path, expected: Checksum | None, found: dict[str, str]) -> Archive:
    """A file that belongs to the user. A wrong one is an error, and is left where it is."""
    if expected and not _matches(found, expected):
        raise DataError(
            f"{path} has the wrong checksum: expected {expected}, found {found[expected.algorithm]}. It was not "
            "unpacked and was left where it is. Put the right file in its place (or delete it)"
            f"{_accept(expected, found)}."
        )
    return Archive(path, found["sha256"], fetched=False)


def _download(address: Address, path: Path, expected: Checksum | None) -> Archive:
    """Downloads the file to `path`. It gets that name only if its checksum is right."""
    transfer = Transfer(address, path.with_name(f"{path.name}.part"), checked=expected is not None)
    print(f"fetching {address} to {path}", flush=True)
    try:
        transfer.run()
        found = _checksums(transfer.part, expected)
        if expected and transfer.resumed and not _matches(found, expected):
            print(f"the first part of {path.name} came from another file; fetching all of it", flush=True)
            transfer.discard()
            transfer.run()
            found = _checksums(transfer.part, expected)
    except DownloadError as error:
        raise DownloadError(f"{error}\n{_ways_out(path, expected)}") from None
    if expected and not _matches(found, expected):
        rejected = _rejected_file(path)
        transfer.part.replace(rejected)
        transfer.discard()
        raise DataError(
            f"the file from {address} has the wrong checksum: expected {expected}, found {found[expected.algorithm]}. "
            f"It was not unpacked and was moved to {rejected}. The next run fetches it again. If the checksum stays "
            f"wrong, set data.url to another copy{_accept(expected, found)}."
        )
    # The order matters, since a file without a matching record counts as the user's own.
    path.unlink(missing_ok=True)
    with atomic_write(_record_file(path)) as aside:
        record = {"address": str(address), "identity": address.identity, "sha256": found["sha256"]}
        aside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    transfer.part.replace(path)
    transfer.discard()
    return Archive(path, found["sha256"], fetched=True)


def _accept(expected: Checksum, found: dict[str, str]) -> str:
    """The last way out of a wrong checksum, for a message; empty where there is none."""
    if not expected.replaceable:
        return ""
    return f", or, if this is the one you want, set data.sha256 in params.yaml to {found['sha256']}"


def _ways_out(path: Path, expected: Checksum | None) -> str:
    wanted = f" (its {expected.algorithm.upper()} is {expected.value})" if expected else ""
    what = "local file" if expected is None or expected.replaceable else "folder that holds the files"
    return (
        "Three ways out:\n"
        f"  a mirror: set data.url in params.yaml to another address or to a {what};\n"
        f"  by hand: put the file at {path}{wanted} and run again;\n"
        "  no download: set data.name to digits, which ship with scikit-learn, or to folder with your own images."
    )


def _checksums(path: Path, expected: Checksum | None) -> dict[str, str]:
    """Digests of a file by algorithm: SHA-256 and that of `expected`. The file is read once."""
    algorithms = {"sha256", expected.algorithm} if expected else {"sha256"}
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with progress.open_with_bar(path, f"checking {path.name}") as file:
        while block := file.read(1 << 20):
            for hash_ in hashes.values():
                hash_.update(block)
    return {name: hash_.hexdigest() for name, hash_ in hashes.items()}


def _matches(found: dict[str, str], expected: Checksum) -> bool:
    return found[expected.algorithm] == expected.value


def _set_aside(path: Path) -> Path:
    rejected = _rejected_file(path)
    path.replace(rejected)
    _record_file(path).unlink(missing_ok=True)
    return rejected


def _rejected_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.rejected")


def _record_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(_record_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
