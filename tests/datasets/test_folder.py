"""Folders of images: layouts, skipped files, and folders that can't be used."""

import errno
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DataError


@pytest.fixture
def images(tmp_path: Path, make_images: Callable[..., Path]) -> Path:
    return make_images(tmp_path / "images", {"dog": 5, "cat": 10})


@pytest.fixture
def parts(tmp_path: Path, make_images: Callable[..., Path]) -> Path:
    make_images(tmp_path / "images" / "train", {"dog": 5, "cat": 3})
    make_images(tmp_path / "images" / "test", {"dog": 2, "cat": 1})
    return tmp_path / "images"


# Layouts.


def test_classes_are_sorted_by_name_and_each_gives_its_share_to_the_test_part(run, images):
    meta = run()
    assert meta["classes"] == ["cat", "dog"]
    assert meta["per_class"] == {"train": [6, 3], "test": [4, 2]}
    assert meta["shape"] == [3, 8, 8]
    assert (meta["source"], meta["archive_sha256"]) == (str(images), None)


def test_train_and_test_directories_are_used_as_they_are(run, parts):
    meta = run(test_share=0.9)
    assert meta["per_class"] == {"train": [3, 5], "test": [1, 2]}


@pytest.mark.parametrize("name", ["val", "Valid", "validation"])
def test_images_of_a_validation_directory_follow_the_training_images_and_are_marked(run, parts, tmp_path, name):
    plain = run()
    (parts / name / "dog").mkdir(parents=True)
    (parts / name / "cat").mkdir(parents=True)
    for number, path in enumerate(("dog/a.png", "dog/b.png", "cat/c.png")):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(parts / name / path)
    meta = run()
    assert meta["counts"] == {"train": 8, "validation": 3, "test": 3}
    assert meta["per_class"]["validation"] == [1, 2]
    assert (meta["mean"], meta["std"]) == (plain["mean"], plain["std"])
    assert meta["digest"] != plain["digest"]
    folder = tmp_path / "project" / "data" / "train"
    assert np.load(folder / "validation.npy").tolist() == [False] * 8 + [True] * 3
    assert np.load(folder / "images.npy")[8:, 0, 0, 0].tolist() == [2, 0, 1]  # in the order of the classes
    assert np.load(folder / "labels.npy")[8:].tolist() == [0, 1, 1]
    shutil.rmtree(parts / name)
    assert run()["digest"] == plain["digest"]
    assert not (folder / "validation.npy").exists()


def test_without_a_test_directory_a_share_of_the_training_images_is_split_off(run, parts, capsys):
    shutil.rmtree(parts / "test")
    make = Image.new("RGB", (9, 9))
    for name in ("dog", "cat"):
        (parts / "valid" / name).mkdir(parents=True)
        make.save(parts / "valid" / name / "1.png")
    meta = run(test_share=0.4)
    assert meta["per_class"] == {"train": [2, 3], "validation": [1, 1], "test": [1, 2]}
    assert "has no test part: a share of 0.4 of train/ becomes it" in capsys.readouterr().out


def test_a_validation_directory_must_have_the_classes_of_the_training_directory(run, parts, make_images):
    make_images(parts / "val", {"dog": 2})
    with pytest.raises(DataError, match="at least 2 classes"):
        run()
    make_images(parts / "val", {"bee": 2})
    with pytest.raises(
        DataError, match=r"train/ and val/ in .* must have the same classes; only in train/: cat/; only in val/: bee/"
    ):
        run()


@pytest.mark.parametrize("layout", ["images", "parts"])
def test_a_single_directory_around_it_is_entered(run, request, tmp_path, layout):
    folder = request.getfixturevalue(layout)
    digest = run()["digest"]
    (tmp_path / "wrapped" / "deeper").mkdir(parents=True)
    (tmp_path / "wrapped" / "README.md").write_text("images", encoding="utf-8")
    folder.rename(tmp_path / "wrapped" / "deeper" / "images")
    assert run(url=str(tmp_path / "wrapped"))["digest"] == digest


def test_images_deeper_inside_their_class_are_found_and_links_are_followed_once(run, images):
    digest = run()["digest"]
    (images / "cat" / "more").mkdir()
    (images / "cat" / "009.png").rename(images / "cat" / "more" / "009.png")
    assert run()["per_class"]["train"] == [6, 3]
    (images / "cat" / "more" / "around").symlink_to(images / "cat")
    elsewhere = images.parent / "elsewhere"
    (images / "cat" / "more").rename(elsewhere)
    (images / "cat" / "z").symlink_to(elsewhere)
    assert run()["digest"] == digest


class Listed:
    """The result of os.scandir in a chosen order."""

    def __init__(self, entries: list[Any]) -> None:
        self.entries = iter(entries)

    def __iter__(self) -> Any:
        return self.entries

    def __next__(self) -> Any:
        return next(self.entries)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def test_the_order_of_the_listing_changes_nothing(run, images, make_images, monkeypatch, contents, tmp_path):
    twice = make_images(tmp_path / "elsewhere", {"more": 2}) / "more"
    for name in ("a", "z"):  # only one link is followed; which one decides whether its images come before m.png
        (images / "cat" / name).symlink_to(twice)
    (images / "cat" / "009.png").rename(images / "cat" / "m.png")
    listdir, scandir = os.listdir, os.scandir
    seen, written = [], []
    for backwards in (False, True):

        def scanned(path: Any, backwards: bool = backwards) -> Listed:
            with scandir(path) as entries:
                return Listed(sorted(entries, key=lambda entry: entry.name, reverse=backwards))

        def listed(path: Any = ".", backwards: bool = backwards) -> list[str]:
            return sorted(listdir(path), reverse=backwards)

        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", listed)
            patch.setattr(os, "scandir", scanned)
            seen.append(([path.name for path in images.iterdir()], next(os.walk(images / "cat"))[1]))
            run()
        written.append(contents(tmp_path / "project" / "data"))
    assert seen == [(["cat", "dog"], ["a", "z"]), (["dog", "cat"], ["z", "a"])]
    assert written[0] == written[1]


def test_the_split_follows_its_seed(run, images):
    digests = {run(test_seed=seed)["digest"] for seed in (0, 1, 0)}
    assert len(digests) == 2


# Forms.


def archived(folder: Path, form: str) -> Path:
    return Path(shutil.make_archive(str(folder), form, folder.parent, folder.name))


@pytest.mark.parametrize("form", ["zip", "tar", "gztar", "xztar"])
def test_an_archive_gives_the_same_arrays_as_the_directory(run, images, form):
    digest = run()["digest"]
    archive = archived(images, form)
    shutil.rmtree(images)
    meta = run(url=str(archive))
    assert meta["digest"] == digest
    assert len(meta["archive_sha256"]) == 64


def test_an_archive_is_fetched_from_a_server_once(run, images, server, tmp_path):
    server.files["cats.zip"] = archived(images, "zip").read_bytes()
    meta = run(url=server.url("cats.zip?token=hush"))
    assert run(url=server.url("cats.zip?token=hush")) == meta
    assert len(server.requests) == 1
    assert meta["source"] == server.url("cats.zip?...")
    assert (tmp_path / "project" / "downloads" / "cats.zip").is_file()


def test_a_relative_path_is_relative_to_the_project(run, images, tmp_path):
    (tmp_path / "project").mkdir()
    shutil.move(images, tmp_path / "project" / "mine")
    meta = run(url="mine")
    assert meta["counts"] == {"train": 9, "test": 6}
    assert meta["source"] == "mine"


def test_a_truncated_archive_without_checksum_is_not_used_a_second_time(run, images, server):
    whole = archived(images, "gztar").read_bytes()
    server.announce_length = False  # so that only the content shows it
    server.files["cats.tar.gz"] = whole[: len(whole) // 2]
    with pytest.raises(DataError, match=r"cats\.tar\.gz is truncated or damaged .* renamed to cats\.tar\.gz\.rejected"):
        run(url=server.url("cats.tar.gz"))
    server.files["cats.tar.gz"] = whole
    assert run(url=server.url("cats.tar.gz"))["counts"] == {"train": 9, "test": 6}


def test_an_archive_with_an_entry_outside_leaves_nothing_unpacked(run, tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        for name in ("cat/a.png", "../evil.png"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DataError, match="points outside of the archive"):
        run(url=str(tmp_path / "evil.tar"))
    assert not list(tmp_path.rglob("*.png"))


def test_a_checksum_for_a_directory_is_refused(run, images):
    with pytest.raises(DataError, match=r"data\.sha256 is for archives"):
        run(sha256=64 * "0")


def test_images_inside_the_folder_that_the_stage_writes_are_refused_and_stay(run, make_images, tmp_path, contents):
    folder = make_images(tmp_path / "project" / "data" / "train", {"cat": 3, "dog": 3})
    with pytest.raises(AssertionError):  # `run` finds the user's images, which must stay
        run(url="data")
    assert len(contents(folder)) == 6


# Skipped files.


def test_hidden_files_and_those_of_operating_systems_change_nothing(run, images, capsys):
    digest = run()["digest"]
    for name in (
        "__MACOSX/._001.png",
        ".hidden/a.png",
        "cat/.DS_Store",
        "cat/._000.png",
        "dog/Thumbs.db",
        "desktop.ini",
    ):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_bytes(b"?")
    assert run()["digest"] == digest
    assert capsys.readouterr().err == ""


def test_other_files_are_skipped_with_one_warning(run, images, capsys):
    digest = run()["digest"]
    for name in ("cat/notes.txt", "cat/boxes.csv", "dog/notes.TXT", "preview.png", "dog/LICENSE"):
        (images / name).write_bytes(b"?")
    assert run()["digest"] == digest
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"warning: skipped 5 files that are not images of a class: .csv (1), .png (1), .txt (2), no ending (1), "
        f"such as {images}: cat/boxes.csv"
    )


# Folders that can't be used.


def test_unreadable_images_of_both_parts_are_all_named(run, parts):
    (parts / "train" / "cat" / "001.png").write_bytes(b"no image")
    (parts / "train" / "dog" / "002.png").write_bytes(b"")
    whole = (parts / "test" / "dog" / "001.png").read_bytes()
    (parts / "test" / "dog" / "001.png").write_bytes(whole[: len(whole) // 2])
    (parts / "test" / "cat" / "gone.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(DataError) as error:
        run()
    assert str(error.value).splitlines() == [
        "some images can't be read; repair or remove what is named here and run again:",
        f"  {parts}: test/cat/gone.jpg: it is not a file (a broken link?)",
        f"  {parts}: test/dog/001.png: image file is truncated",
        f"  {parts}: train/cat/001.png: it is not an image of a known format",
        f"  {parts}: train/dog/002.png: it is empty",
    ]


def test_at_most_twenty_unreadable_images_are_named(run, make_images, tmp_path):
    folder = make_images(tmp_path / "images", {"cat": 30, "dog": 3})
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError) as error:
        run()
    lines = str(error.value).splitlines()
    assert len(lines) == 22
    listed = tmp_path / "project" / "results" / "download" / "unreadable_images.txt"
    assert lines[-1] == f"  and 10 more; {listed} has all 30"
    names = listed.read_text(encoding="utf-8").splitlines()
    assert sorted(names)[29] == f"{folder}: cat/029.png: it is not an image of a known format"
    assert len(set(names)) == 30
    shutil.rmtree(folder / "cat")
    make_images(folder, {"cat": 3})
    run()
    assert not listed.exists()


def test_an_image_too_large_for_the_memory_is_an_error(run, images, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    Image.new("RGB", (15, 15)).save(images / "cat" / "big.png")
    Image.new("RGB", (50, 50)).save(images / "cat" / "bigger.png")
    with pytest.raises(DataError) as error:
        run()
    assert "cat/big.png: it has more than 200 pixels" in str(error.value)
    assert "cat/bigger.png: it has more than 200 pixels" in str(error.value)


def test_classes_with_too_few_images_are_all_named_with_their_counts(run, images, make_images):
    make_images(images, {"bee": 2, "ant": 0})
    (images / "ant" / "readme.txt").write_text("no ants yet", encoding="utf-8")
    with pytest.raises(DataError, match=r"too few images \(at least 3 are needed\): ant has 0, bee has 2\. Add"):
        run()


@pytest.mark.parametrize(
    ("part", "count", "words"),
    [
        ("train", 1, r"\(at least 2 are needed\): train/bee has 1\."),
        ("test", 0, r"\(at least 1 are needed\): test/bee has 0\."),
    ],
)
def test_too_few_images_in_a_part_are_an_error(run, parts, make_images, part, count, words):
    for name in ("train", "test"):
        make_images(parts / name, {"bee": count if name == part else 2})
    with pytest.raises(DataError, match=words):
        run()


def test_different_classes_in_train_and_test_are_an_error(run, parts, make_images):
    make_images(parts / "train", {"bee": 2})
    make_images(parts / "test", {"ant": 2, "fly": 2})
    with pytest.raises(DataError, match=r"only in train/: bee/; only in test/: ant/, fly/"):
        run()


def test_one_class_is_not_enough(run, tmp_path, make_images):
    make_images(tmp_path / "images", {"cat": 5})
    with pytest.raises(DataError, match="has only the class cat: at least 2 classes are needed"):
        run()


def test_no_class_is_not_enough(run, tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="has no directories of classes"):
        run()


@pytest.mark.parametrize("names", [("test", "val"), ("test", "valid")])
def test_parts_without_a_training_or_test_part_are_not_taken_for_classes(run, tmp_path, make_images, names):
    for name in names:
        make_images(tmp_path / "images" / name, {"cat": 3, "dog": 3})
    with pytest.raises(DataError, match=f"has {'/, '.join(sorted(names))}/ but not both train/ and test/"):
        run()


def test_parts_beside_classes_are_an_error(run, parts, make_images):
    make_images(parts, {"bee": 3})
    with pytest.raises(DataError, match="has train/ and test/ and beside them bee/: are these classes or parts"):
        run()


def test_train_may_be_the_name_of_a_class(run, tmp_path, make_images):
    make_images(tmp_path / "images", {"bus": 3, "train": 3})
    assert run()["classes"] == ["bus", "train"]


def test_an_unreadable_directory_is_an_error(run, images, monkeypatch):
    scanned = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("dog"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scanned(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"listing the images failed: .*dog can't be accessed \(Permission denied\)"):
        run()


def test_files_without_an_ending_are_images_if_their_content_is(run, images):
    digest = run()["digest"]
    (images / "cat" / "001.png").rename(images / "cat" / "001")
    (images / "cat" / "LICENSE").write_text("free", encoding="utf-8")
    assert run()["digest"] == digest
    for path in (images / "dog").iterdir():
        path.rename(path.with_suffix(".glasses"))
    with pytest.raises(DataError, match=r"dog has 0 \(but 000\.glasses is PNG: end its name with \.png\)\. Add"):
        run()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC, which can't be read here: convert it to JPEG"),
        ("a.jpg", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "it is HEIC, which can't be read here: convert it to JPEG"),
        ("a", b"\0\0\0\x18ftypheix\0\0\0\0mif1heic", "it is HEIC, which can't be read here: convert it to JPEG"),
        ("a.jpg", b"\0\0\0\x0cJXL \r\n\x87\n", "it is JPEG XL"),
        ("a.png", b"%PDF-1.7", "it is PDF"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "begins like PNG, but is damaged"),
    ],
)
def test_an_image_of_a_format_that_can_not_be_read_is_an_error_with_its_name(run, images, name, content, words):
    (images / "cat" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"cat/{name}: .*{words}"):
        run()
