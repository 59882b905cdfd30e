"""Archives, unpacked without trusting them: zip, and tar, plain or compressed by gzip, bzip2 or xz.

Refused are entries that point outside of the archive, devices, archives that would not fit on the disk, and archives
that are truncated or damaged.
"""

import bz2
import gzip
import lzma
import os
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Self, cast

from rich.filesize import decimal

from pipeline.datasets import disk, progress
from pipeline.datasets.fetch import Archive
from pipeline.errors import DataError

_RESERVE_BYTES = 64 << 20  # stays free on the disk
_TAR_MAGIC_OFFSET = 257
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075
_UNIX = 3
_DAMAGE = (
    EOFError,
    KeyError,  # a hard link to a missing entry
    NotImplementedError,  # a compression unknown to Python
    RuntimeError,  # an encrypted entry
    ValueError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


class Unusable(Exception):
    """Why an archive can't be used. The text continues a sentence that begins with the path of the archive."""


def unpack(archive: Archive, into: Path) -> None:
    """Unpacks `archive` into the directory `into`. Raises DataError for an archive that is refused (see above)."""
    budget = _Budget(archive, into)
    with disk.disk_errors(f"unpacking {archive.path.name}", into), archive_errors(archive):
        if _first_block(archive).startswith(b"PK"):
            _unpack_zip(archive, into, budget)
        else:
            _unpack_tar(archive, into, budget)


@contextmanager
def open_tar(archive: Archive) -> Iterator[tarfile.TarFile]:
    """The tar file. Its entries must be read in order.

    When the block ends, the rest of the file is read too, so that damage there raises an error.
    """
    first_block = _first_block(archive)
    with progress.open_with_bar(archive.path, f"reading {archive.path.name}") as raw:
        stream = cast(IO[bytes], _decompressed(raw, first_block))
        with tarfile.open(fileobj=stream, mode="r:", tarinfo=_Entry) as tar:
            yield tar
            # The checksum of the compression is at the end of the file, after everything that tarfile reads.
            while stream.read(1 << 20):
                pass


@contextmanager
def archive_errors(archive: Archive) -> Iterator[None]:
    """Turns Unusable, and the errors of truncated or damaged archives, into a DataError.

    The archive must be opened and closed inside the block, because a bad archive is renamed.
    """
    try:
        yield
    except Unusable as error:
        raise archive.unusable(str(error)) from error
    except _DAMAGE as error:
        raise archive.unusable(f"is truncated or damaged ({error or type(error).__name__})") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise archive.unusable(f"is truncated or damaged ({error})") from error  # bz2 raises a plain OSError


def refuse_outside(name: str) -> None:
    """Raises Unusable if the name of an entry points outside of the folder that it is unpacked to."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or PureWindowsPath(name).drive:
        raise Unusable(f"has an entry that points outside of the archive, {name!r}, and was not unpacked")


class _Entry(tarfile.TarInfo):
    """A tar header, read strictly. tarfile itself accepts a tar that is cut after an entry, or ends in garbage."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # this is the end marker
            raise tarfile.ReadError(f"{error}, where an entry or the end marker should be") from error


class _Budget:
    """How many bytes may still be unpacked, so that no archive fills the disk."""

    def __init__(self, archive: Archive, into: Path) -> None:
        self._archive, self._into = archive, into
        self._free_bytes = self._left_bytes = max(disk.free_bytes(into) - _RESERVE_BYTES, 0)

    def spend(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise DataError(
                f"no space left to unpack {self._archive.path}: it unpacks to more than the "
                f"{decimal(self._free_bytes)} that are free for it at {self._into}. If this size is plausible for this "
                "archive, free some space there, or unpack it on another disk and set data.url to the directory."
            )


def _unpack_zip(archive: Archive, into: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive.path) as file:
        entries = file.infolist()
        _decode_names(entries, archive)
        for entry in entries:
            refuse_outside(entry.filename)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise Unusable(f"has a link as an entry, {entry.filename!r}, and was not unpacked")
        budget.spend(sum(entry.file_size for entry in entries))
        with progress.byte_bar(
            f"unpacking {archive.path.name}", sum(entry.compress_size for entry in entries)
        ) as advance:
            for entry in entries:
                file.extract(entry, into)
                advance(entry.compress_size)


def _decode_names(entries: Iterable[zipfile.ZipInfo], archive: Archive) -> None:
    """Corrects names that have no flag for UTF-8, which zipfile reads as code page 437. Warns where it guesses.

    An entry may have its name in Unicode beside it. macOS and others write UTF-8 without the flag. Else the names are
    in a code page that the archive does not name: that of Windows in western Europe if a Unix packed it, 437 if DOS or
    Windows did.
    """
    guessed = {}
    for entry in entries:
        if entry.flag_bits & _UTF8_FLAG or entry.orig_filename.isascii():
            continue
        raw = entry.orig_filename.encode("cp437")
        try:
            name = _unicode_name(entry.extra, raw) or raw.decode()
        except UnicodeDecodeError:
            encoding = "cp1252" if entry.create_system == _UNIX else "cp437"
            name = guessed[encoding] = raw.decode(encoding, errors="replace")
            if not name.isprintable() or "\ufffd" in name:
                raise Unusable(
                    f"has an entry whose name can't be decoded, {raw!r}, and was not unpacked. Pack it again with "
                    "names in UTF-8"
                ) from None
        # orig_filename must stay: zipfile compares it with the entry's own header.
        entry.filename = name.split("\0")[0].replace(os.sep, "/")
    for encoding, name in guessed.items():
        print(
            f"warning: {archive.path.name} has names that are not UTF-8 and does not say what they are. They were read "
            f"as {encoding}, such as {name}. If that is wrong, pack it again with names in UTF-8.",
            file=sys.stderr,
        )


def _unicode_name(extra: bytes, raw: bytes) -> str | None:
    """The name in an entry's extra field "Info-ZIP Unicode Path" (0x7075), if it belongs to the name `raw`."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(field) > 5 and struct.unpack_from("<xL", field)[0] == zlib.crc32(raw):
            return field[5:].decode()
    return None


def _unpack_tar(archive: Archive, into: Path, budget: _Budget) -> None:
    links: set[PurePosixPath] = set()
    with open_tar(archive) as tar:
        for entry in tar:
            refuse_outside(entry.name)
            path = PurePosixPath(entry.name)
            if not links.isdisjoint(path.parents):
                raise Unusable(f"has an entry that is written through a link, {entry.name!r}")
            if entry.issym():
                links.add(path)
            budget.spend(entry.size)
            _extract(tar, entry, into)
    # Each link was checked when it was created, but the links on its way may have been created later.
    for path in links:
        if not (into / path).resolve().is_relative_to(into.resolve()):
            raise Unusable(f"has a link that points outside of the archive, {str(path)!r}")


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, into: Path) -> None:
    """Writes the content of one entry. Its owner, times and permissions are ignored.

    tar.extract is not used, since it refuses paths outside of `into` only from Python 3.11.4 on.
    """
    path = into / entry.name
    if entry.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    if not (entry.isfile() or entry.issym() or entry.islnk()):
        raise Unusable(f"has an entry that is a device, {entry.name!r}, and was not unpacked")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # the last entry of a name counts
    if entry.isfile():
        with cast(IO[bytes], tar.extractfile(entry)) as source, path.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        return
    # The target of a symbolic link is relative to the link, that of a hard link to the top of the archive.
    target = ((path.parent if entry.issym() else into) / entry.linkname).resolve()
    if not target.is_relative_to(into.resolve()):
        raise Unusable(f"has an entry that points outside of the archive, {entry.name!r}, and was not unpacked")
    if entry.issym():
        path.symlink_to(entry.linkname)
    elif target.is_file():
        path.hardlink_to(target)
    else:
        raise tarfile.ReadError(f"{entry.name} is a link to {entry.linkname}, which is missing")


def _first_block(archive: Archive) -> bytes:
    with archive.path.open("rb") as file:
        first_block = file.read(tarfile.BLOCKSIZE)
    compressed = first_block.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"PK"))
    if compressed or first_block[_TAR_MAGIC_OFFSET:].startswith(b"ustar"):
        return first_block
    if not first_block:
        raise Unusable("is empty")
    if first_block.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise Unusable("is a web page and not an archive (does the URL point to the file itself?)")
    raise Unusable("is neither a .zip nor a .tar, .tar.gz, .tar.bz2 or .tar.xz archive")


def _decompressed(raw: IO[bytes], first_block: bytes) -> gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile | IO[bytes]:
    if first_block.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if first_block.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if first_block.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile(raw)
    return raw
