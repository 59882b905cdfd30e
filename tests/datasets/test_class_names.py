"""Names of directories in any encoding as names of classes."""

import io
import os
import struct
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.datasets.class_names import class_name, natural_key
from pipeline.errors import DataError

Run = Callable[..., dict[str, Any]]
MakeImages = Callable[[Path, dict[str, int]], Path]

COMPOSED = unicodedata.normalize("NFC", "caffè")
DECOMPOSED = unicodedata.normalize("NFD", "caffè")

any_bytes = pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are text")


def test_numbers_in_names_count_by_their_value() -> None:
    names = ["10", "2", "1", "01", "b10", "b9", "a", "B", "b9c2", "b9c10"]
    expected = ["01", "1", "2", "10", "B", "a", "b9", "b9c2", "b9c10", "b10"]
    assert sorted(names, key=natural_key) == expected


def test_classes_are_in_natural_order(run: Run, tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "images", {"10": 3, "9": 4, "1": 5})
    meta = run(test_share=0.1)
    assert meta["classes"] == ["1", "9", "10"]
    assert meta["per_class"]["train"] == [4, 3, 2]


def test_composed_and_decomposed_accents_are_one_class(run: Run, tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "images" / "train", {COMPOSED: 3, "tè": 3})
    make_images(tmp_path / "images" / "test", {DECOMPOSED: 1, "tè": 1})
    assert run()["classes"] == [COMPOSED, "tè"]


def test_directories_of_one_name_in_two_encodings_are_one_class_and_a_warning_says_so(
    run: Run, tmp_path: Path, make_images: MakeImages, capsys: pytest.CaptureFixture[str]
) -> None:
    make_images(tmp_path / "images", {COMPOSED: 3, DECOMPOSED: 2, "tè": 4})
    meta = run()
    assert meta["classes"] == [COMPOSED, "tè"]
    assert meta["per_class"] == {"train": [3, 2], "test": [2, 2]}
    assert f"has 2 directories named {COMPOSED}, whose accents" in capsys.readouterr().err


@any_bytes
def test_latin_1_names_are_decoded_with_a_warning(
    run: Run, tmp_path: Path, make_images: MakeImages, capsys: pytest.CaptureFixture[str]
) -> None:
    make_images(tmp_path / "images", {os.fsdecode("caffè".encode("latin-1")): 3, "dog": 3})
    image = next((tmp_path / "images" / "dog").iterdir())
    image.rename(image.with_name(os.fsdecode(b"\xff.png")))
    assert run()["classes"] == [COMPOSED, "dog"]
    warning = capsys.readouterr().err
    assert r"caff\xe8 in" in warning
    assert "read as Latin-1, as the class caffè" in warning


@any_bytes
def test_names_that_can_not_be_decoded_are_refused_by_name(run: Run, tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "images", {os.fsdecode(b"b\x81d"): 3, "dog": 3})
    with pytest.raises(DataError, match=r"directory b\\x81d is neither UTF-8 nor Latin-1.*Rename"):
        run()


@any_bytes
def test_unreadable_images_with_undecodable_names_are_named(run: Run, tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "images", {"cat": 3, "dog": 3})
    Path(os.fsdecode(os.fsencode(tmp_path / "images" / "cat") + b"/\xe9.png")).write_bytes(b"")
    with pytest.raises(DataError) as error:
        run()
    str(error.value).encode()
    assert r"cat/\xe9.png: it is empty" in str(error.value)


def test_a_name_of_this_system_is_composed() -> None:
    assert class_name(DECOMPOSED) == COMPOSED


def zipped(path: Path, names: dict[bytes, int], system: int) -> Path:
    """A zip with images in directories named by bytes, without the flag for UTF-8."""
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "png")
    stand_ins = {}
    with zipfile.ZipFile(path, "w") as file:
        for name, count in names.items():
            for index in range(count):
                entry = zipfile.ZipInfo(f"{'x' * (len(name) - 1)}{len(stand_ins)}/{index}.png")
                stand_ins[entry.filename.partition("/")[0].encode()] = name
                entry.create_system = system
                image = Image.new("RGB", (8, 8), (len(stand_ins) * 9, index * 9, 50))
                content = io.BytesIO()
                image.save(content, "png")
                file.writestr(entry, content.getvalue())
    raw = path.read_bytes()
    for stand_in, name in stand_ins.items():
        raw = raw.replace(stand_in + b"/", name + b"/")
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("name", "system", "expected", "warns"),
    [
        ("caffè".encode(), 3, "caffè", ""),
        (DECOMPOSED.encode(), 3, "caffè", ""),
        ("猫猫".encode(), 0, "猫猫", ""),
        ("caffè".encode("latin-1"), 3, "caffè", "were read as cp1252, such as caffè/"),
        ("caffè".encode("cp437"), 0, "caffè", "were read as cp437, such as caffè/"),
    ],
)
def test_names_in_a_zip_without_the_flag_for_utf_8_are_decoded(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: bytes, system: int, expected: str, warns: str
) -> None:
    meta = run(url=str(zipped(tmp_path / "a.zip", {name: 3, b"dog": 3}, system)))
    assert set(meta["classes"]) == {expected, "dog"}
    errors = capsys.readouterr().err
    assert warns in errors
    assert bool(errors) == bool(warns)


def test_a_name_in_a_zip_that_can_not_be_decoded_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"an entry whose name can't be decoded, b'b\\x81d.*in UTF-8"):
        run(url=str(zipped(tmp_path / "a.zip", {b"b\x81d": 3, b"dog": 3}, 3)))


def test_the_unicode_name_beside_a_name_in_a_zip_is_used(run: Run, tmp_path: Path) -> None:
    raw = "caffè".encode("cp850")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for index in range(6):
            content = io.BytesIO()
            Image.new("RGB", (8, 8), (index * 9, 0, 50)).save(content, "png")
            name = f"xxxxx/{index}.png" if index < 3 else f"dog/{index}.png"
            entry = zipfile.ZipInfo(name)
            if index < 3:
                there = raw + f"/{index}.png".encode()
                unicode_name = f"猫/{index}.png".encode()
                field = struct.pack("<BL", 1, zlib.crc32(there)) + unicode_name
                entry.extra = struct.pack("<HH", 0x7075, len(field)) + field
            file.writestr(entry, content.getvalue())
    packed = (tmp_path / "a.zip").read_bytes().replace(b"xxxxx/", raw + b"/")
    (tmp_path / "a.zip").write_bytes(packed)
    assert run(url=str(tmp_path / "a.zip"))["classes"] == ["dog", "猫"]


@any_bytes
def test_latin_1_names_in_a_tar_are_decoded(
    run: Run, tmp_path: Path, make_images: MakeImages, capsys: pytest.CaptureFixture[str]
) -> None:
    make_images(tmp_path / "images", {os.fsdecode("caffè".encode("latin-1")): 3, "dog": 3})
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "images", "images")
    assert run(url=str(tmp_path / "a.tar"))["classes"] == [COMPOSED, "dog"]
    assert "read as Latin-1" in capsys.readouterr().err
