"""A folder or archive that has changed since it was read is noticed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.datasets import fingerprint
from pipeline.files import Project
from pipeline.records import load_meta

Run = Callable[..., dict[str, Any]]
MakeImages = Callable[[Path, dict[str, int]], Path]


@pytest.fixture
def images(tmp_path: Path, make_images: MakeImages) -> Path:
    return make_images(tmp_path / "images", {"dog": 5, "cat": 6})


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[], str | None]:
    def changed() -> str | None:
        project = Project(tmp_path / "project", tmp_path / "project")
        return fingerprint.change(project, load_meta(project.meta))

    return changed


def other_pixels(path: Path) -> None:
    size = path.stat().st_size
    with Image.open(path) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:size] + bytes(max(size - len(data), 0)))  # of the same size


def swapped(folder: Path) -> None:
    one, other, aside = folder / "cat" / "000.png", folder / "dog" / "000.png", folder / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


CHANGES: dict[str, Callable[[Path], object]] = {
    "an image more": lambda folder: shutil.copy(folder / "cat" / "000.png", folder / "cat" / "x.png"),
    "an image less": lambda folder: (folder / "cat" / "000.png").unlink(),
    "a new name": lambda folder: (folder / "cat" / "000.png").rename(folder / "cat" / "x.png"),
    "a new class": lambda folder: (folder / "cat" / "000.png").rename(folder / "dog" / "x.png"),
    "a renamed class": lambda folder: (folder / "cat").rename(folder / "bee"),
    "other pixels": lambda folder: other_pixels(folder / "cat" / "000.png"),
    "two swapped": swapped,
}


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_change_of_a_folder_is_noticed(
    run: Run,
    images: Path,
    changed: Callable[[], str | None],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
    sampled: bool,
) -> None:
    if sampled:
        monkeypatch.setattr(fingerprint, "_WHOLE_BYTES", 0)
    run()
    assert changed() is None
    change(images)
    sentence = changed()
    assert sentence is not None
    assert f"{images} has changed since it was read" in sentence
    assert "`dvc repro -f download`" in sentence
    run(test_share=0.3)
    assert changed() is None


def test_what_is_no_image_and_times_change_nothing(run: Run, images: Path, changed: Callable[[], str | None]) -> None:
    run()
    (images / "notes.txt").write_text("two more tomorrow", encoding="utf-8")
    (images / "cat" / ".DS_Store").write_bytes(b"?")
    os.utime(images / "cat" / "000.png", (0, 0))
    shutil.move(images, images.with_name("aside"))
    shutil.copytree(images.with_name("aside"), images)
    assert changed() is None
    shutil.rmtree(images)
    assert changed() is None


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
def test_a_changed_archive_is_noticed(
    run: Run, images: Path, changed: Callable[[], str | None], tmp_path: Path, form: str
) -> None:
    archive = Path(shutil.make_archive(str(images), form, images.parent, images.name))
    run(url=archive.as_uri())
    assert changed() is None
    other_pixels(images / "cat" / "000.png")
    shutil.make_archive(str(images), form, images.parent, images.name)
    assert changed() is not None


def test_a_fetched_archive_has_no_fingerprint(
    run: Run, images: Path, changed: Callable[[], str | None], server: Any
) -> None:
    archive = Path(shutil.make_archive(str(images), "zip", images.parent, images.name))
    server.files["cats.zip"] = archive.read_bytes()
    assert run(url=server.url("cats.zip"))["fingerprint"] is None
    assert changed() is None


def test_large_files_are_sampled_from_beginning_to_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    size = 40 * fingerprint._SAMPLE_BYTES
    seen = set()
    for position in (None, 0, size // 2, size - 1):
        data = bytearray(size)
        if position is not None:
            data[position] = 1
        path.write_bytes(data)
        seen.add(fingerprint._content(path, 3))
    assert len(seen) == 4
