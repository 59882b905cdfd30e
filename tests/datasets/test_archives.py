"""Valid archives, and every way in which an archive can be invalid."""

import io
import random
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.datasets import archives
from pipeline.datasets.fetch import Archive
from pipeline.errors import DataError

FILES = {
    f"top/{name}/{index}.png": random.Random(index).randbytes(700) for name in ("cat", "dog") for index in range(3)
}
TAR_MODES = {".tar": "w:", ".tar.gz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def packed(ending: str, entries: dict[str, bytes] = FILES) -> bytes:
    if ending != ".zip":
        return tar_of(*((entry(name, size=len(data)), data) for name, data in entries.items()), mode=TAR_MODES[ending])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def entry(name: str, **properties: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in properties.items():
        setattr(info, key, value)
    return info


@pytest.fixture
def unpacked(tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]) -> Callable[[bytes], dict[str, bytes]]:
    """`unpacked(data)`: the files of an unpacked archive. Checks that none is written elsewhere."""

    def unpack(data: bytes, fetched: bool = False) -> dict[str, bytes]:
        outside = tmp_path / "place" / "deeper"
        into = outside / "into"
        shutil.rmtree(outside, ignore_errors=True)
        into.mkdir(parents=True)
        path = tmp_path / "archive"
        path.write_bytes(data)
        try:
            archives.unpack(Archive(path, "", fetched), into)
        finally:
            shutil.move(into, tmp_path / "into")
            try:
                assert contents(tmp_path / "place") == {}
                found = contents(tmp_path / "into")
            finally:
                shutil.rmtree(tmp_path / "into")
        return found

    return unpack


@pytest.mark.parametrize("ending", [".zip", *TAR_MODES])
def test_formats_are_recognised_by_their_content(unpacked, ending):
    assert unpacked(packed(ending)) == FILES


@pytest.mark.parametrize("ending", [".zip", *TAR_MODES])
def test_an_archive_cut_at_any_place_is_refused(unpacked, ending):
    data = packed(ending)
    # The padding after the end of a tar may be cut. tarfile itself accepts a cut at the end of an entry.
    end = len(FILES) * (512 + 1024) if ending == ".tar" else len(data) - 1
    for cut in {*range(0, end, end // 9), *range(0, end + 1, 512), 1, end}:
        with pytest.raises(DataError, match=r"archive (is|has) "):
            unpacked(data[:cut])


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_damaged_archive_is_refused(unpacked, ending):
    data = bytearray(packed(ending))
    middle = len(data) // 2
    data[middle : middle + 4] = bytes(255 - value for value in data[middle : middle + 4])
    with pytest.raises(DataError, match="archive is truncated or damaged"):
        unpacked(bytes(data))


def test_a_tar_with_rubbish_between_its_entries_is_refused(unpacked):
    data = bytearray(packed(".tar"))
    header = data.index(b"top/dog/0.png")
    data[header : header + 512] = 512 * b"x"
    with pytest.raises(DataError, match="where an entry or the end marker should be"):
        unpacked(bytes(data))


@pytest.mark.parametrize("name", ["../evil.png", "top/../../evil.png", "/tmp/evil.png", "..\\evil.png", "C:\\evil.png"])
@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_names_that_point_outside_are_refused(unpacked, ending, name):
    with pytest.raises(DataError, match=r"has an entry that points outside of the archive, .*evil"):
        unpacked(packed(ending, {**FILES, name: b"evil"}))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("a.png", type=tarfile.SYMTYPE, linkname="../../secret")], "points outside of the archive, 'a.png'"),
        ([entry("a.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "points outside of the archive, 'a.png'"),
        ([entry("a.png", type=tarfile.LNKTYPE, linkname="../../secret")], "points outside of the archive, 'a.png'"),
        ([entry("a.png", type=tarfile.LNKTYPE, linkname="missing")], "is truncated or damaged .*missing"),
        ([entry("a.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5)], "is a device, 'a.png'"),
        ([entry("a.png", type=tarfile.FIFOTYPE)], "is a device, 'a.png'"),
        (
            [entry("link", type=tarfile.SYMTYPE, linkname="."), entry("link/a.png")],
            "has an entry that is written through a link, 'link/a.png'",
        ),
        (
            [  # points inside until `deep` becomes a link to the top
                entry("a/b/far", type=tarfile.SYMTYPE, linkname="deep/../../x"),
                entry("a/b/deep", type=tarfile.SYMTYPE, linkname="../.."),
            ],
            "points outside of the archive, 'a/b/far'",
        ),
    ],
)
def test_links_and_devices_that_lead_outside_are_refused(unpacked, entries, words):
    with pytest.raises(DataError, match=words):
        unpacked(tar_of(*((info, b"") for info in entries)))


def test_links_inside_a_tar_are_followed(unpacked):
    data = tar_of(
        (entry("cat/a.png", size=4), b"meow"),
        (entry("cat/b.png", type=tarfile.LNKTYPE, linkname="cat/a.png"), b""),
        (entry("cat/c.png", type=tarfile.SYMTYPE, linkname="a.png"), b""),
    )
    assert unpacked(data) == {f"cat/{name}.png": b"meow" for name in "abc"}


def test_a_hard_link_to_a_symbolic_link_becomes_one_to_the_file(unpacked):
    data = tar_of(
        (entry("cat/more/a.png", size=4), b"meow"),
        (entry("cat/more/b.png", type=tarfile.SYMTYPE, linkname="../more/a.png"), b""),
        # As a relative link this would point outside from here.
        (entry("c.png", type=tarfile.LNKTYPE, linkname="cat/more/b.png"), b""),
    )
    assert unpacked(data) == {"cat/more/a.png": b"meow", "cat/more/b.png": b"meow", "c.png": b"meow"}


def test_the_last_entry_of_a_name_counts(unpacked):
    data = tar_of(
        (entry("a.png", size=4), b"meow"),
        (entry("b.png", type=tarfile.LNKTYPE, linkname="a.png"), b""),
        (entry("c.png", type=tarfile.SYMTYPE, linkname="a.png"), b""),
        (entry("a.png", size=4), b"woof"),
        (entry("c.png", size=4), b"woof"),
    )
    assert unpacked(data) == {"a.png": b"woof", "b.png": b"meow", "c.png": b"woof"}


def test_a_link_in_a_zip_is_refused(unpacked):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("a.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match=r"has a link as an entry, 'a\.png'"):
        unpacked(file.getvalue())


def test_a_zip_with_a_password_is_refused(unpacked):
    data = bytearray(packed(".zip", {"a.png": b"a"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    with pytest.raises(DataError, match="encrypted"):
        unpacked(bytes(data))


@pytest.mark.parametrize("ending", [".zip", ".tar.xz"])
def test_an_archive_that_would_fill_the_disk_is_refused(unpacked, monkeypatch, ending):
    bomb = packed(ending, {"bomb.png": bytes(50_000_000)})
    assert len(bomb) < 100_000
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=archives._RESERVE_BYTES + 40_000_000))
    with pytest.raises(DataError, match=r"unpacks to more than the 40\.0 MB that are free for it at .*into"):
        unpacked(bomb)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><p>Please log in", "is a web page and not an archive"),
        (b"\n<html>", "is a web page and not an archive"),
        (b"Rar!\x1a\x07\x01\x00", r"is neither a \.zip nor a \.tar"),
    ],
)
def test_a_file_that_is_not_an_archive_is_refused(unpacked, data, words):
    with pytest.raises(DataError, match=words):
        unpacked(data)


def test_a_bad_downloaded_archive_is_renamed_and_one_of_the_user_is_not(unpacked, tmp_path):
    with pytest.raises(DataError, match="Put a good copy in its place"):
        unpacked(packed(".zip")[:-30])
    assert (tmp_path / "archive").exists()
    with pytest.raises(DataError, match=r"It was renamed to archive\.rejected"):
        unpacked(packed(".zip")[:-30], fetched=True)
    assert not (tmp_path / "archive").exists()
    assert (tmp_path / "archive.rejected").exists()
