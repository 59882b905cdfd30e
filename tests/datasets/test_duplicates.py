"""Equal images: counted, named, and kept in one part."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.batches.images import load_images
from pipeline.datasets import duplicates
from pipeline.errors import DataError
from pipeline.files import Project
from pipeline.records import load_meta

Run = Callable[..., dict[str, Any]]
MakeImages = Callable[[Path, dict[str, int]], Path]


@pytest.fixture
def images(tmp_path: Path, make_images: MakeImages) -> Path:
    return make_images(tmp_path / "images", {"dog": 5, "cat": 10})


@pytest.fixture
def parts(tmp_path: Path, make_images: MakeImages) -> Path:
    make_images(tmp_path / "images" / "train", {"dog": 5, "cat": 5})
    make_images(tmp_path / "images" / "test", {"doge": 2, "cats": 3})
    for name, right in (("doge", "dog"), ("cats", "cat")):
        (tmp_path / "images" / "test" / name).rename(tmp_path / "images" / "test" / right)
    return tmp_path / "images"


@pytest.fixture
def written(tmp_path: Path) -> Project:
    return Project(tmp_path / "project", tmp_path / "project")


def test_a_data_set_without_equal_images_has_none_and_no_groups(
    run: Run, images: Path, written: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run()["duplicates"]
    assert [found[key] for key in ("training", "test", "leaked", "conflicting")] == [0, 0, 0, 0]
    assert not (written.training_data / "groups.npy").exists()
    assert capsys.readouterr().err == ""


def test_test_images_that_are_in_the_training_set_are_counted_and_named(
    run: Run, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(parts / "train" / "cat" / "001.png") as image:  # another file, the same pixels
        image.save(parts / "test" / "cat" / "other.bmp")
    shutil.copy(parts / "train" / "dog" / "000.png", parts / "test" / "dog" / "again.png")
    found = run()["duplicates"]
    assert (found["leaked"], found["training"], found["test"], found["conflicting"]) == (2, 0, 0, 0)
    assert found["examples"]["leaked"] == [
        "train/cat/001.png = test/cat/other.bmp",
        "train/dog/000.png = test/dog/again.png",
    ]
    (line,) = capsys.readouterr().err.splitlines()
    assert "2 of 7 test images are also in the training set" in line
    assert "train/cat/001.png = test/cat/other.bmp" in line
    assert "`dvc repro -f download`" in line


def test_leaks_into_and_out_of_a_validation_part_are_counted_apart(
    run: Run, parts: Path, make_images: MakeImages, capsys: pytest.CaptureFixture[str]
) -> None:
    make_images(parts / "val", {"wasps": 2, "ants": 2})
    for name, right in (("wasps", "dog"), ("ants", "cat")):
        (parts / "val" / name).rename(parts / "val" / right)
    shutil.copy(parts / "train" / "dog" / "000.png", parts / "val" / "dog" / "again.png")
    shutil.copy(parts / "val" / "cat" / "001.png", parts / "test" / "cat" / "again.png")
    found = run()["duplicates"]
    assert {key: found[key] for key in ("training", "validation", "test", "leaked", "leaked_into_validation")} == {
        "training": 0,
        "validation": 0,
        "test": 0,
        "leaked": 1,
        "leaked_into_validation": 1,
    }
    assert found["examples"]["leaked"] == ["val/cat/001.png = test/cat/again.png"]
    assert found["examples"]["leaked_into_validation"] == ["train/dog/000.png = val/dog/again.png"]
    assert "1 of 5 validation images are also among the training images" in capsys.readouterr().err


def test_an_image_under_two_classes_is_counted_and_named(
    run: Run, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(images / "cat" / "003.png", images / "dog" / "x.png")
    found = run()["duplicates"]
    assert found["conflicting"] == 2
    assert found["examples"]["conflicting"] == ["cat/003.png = dog/x.png"]
    assert "2 images are equal to an image of another class" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(3))
def test_copies_are_in_one_part_of_a_split_off_test_part(
    run: Run, images: Path, written: Project, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(images.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    found = run(test_seed=seed)
    assert found["duplicates"]["leaked"] == 0
    assert found["duplicates"]["training"] == found["counts"]["train"] // 2
    assert found["counts"]["train"] + found["counts"]["test"] == 30
    assert found["per_class"]["test"] == [8, 4]
    both = [np.load(folder / "images.npy") for folder in (written.training_data, written.test_data)]
    hashes = [set(duplicates.hashes(pixels)) for pixels in both]
    assert hashes[0].isdisjoint(hashes[1])
    assert "15 images are copies of another one in the same part" in capsys.readouterr().err


def test_groups_are_those_of_the_training_images(run: Run, images: Path, written: Project) -> None:
    shutil.copy(images / "cat" / "003.png", images / "cat" / "x.png")
    shutil.copy(images / "cat" / "004.png", images / "cat" / "y.png")
    plain = run()["digest"]
    pixels, labels, groups, _ = load_images(written.training_data, load_meta(written.meta))
    if groups is None:  # both pairs are in the test part
        assert len(set(duplicates.hashes(pixels))) == len(labels)
    else:
        for position, first in enumerate(groups):
            assert np.array_equal(pixels[position], pixels[first])
        assert len(set(groups.tolist())) == len(set(duplicates.hashes(pixels)))
    for name in ("x.png", "y.png"):
        (images / "cat" / name).unlink()
    assert run()["digest"] != plain
    assert not (written.training_data / "groups.npy").exists()


def test_a_class_of_which_all_images_are_equal_is_an_error_with_its_name(run: Run, images: Path) -> None:
    for path in (images / "dog").iterdir():
        shutil.copy(images / "cat" / "000.png", path)
    for path in (images / "cat").iterdir():
        shutil.copy(images / "cat" / "000.png", path) if path.name != "000.png" else None
    with pytest.raises(DataError, match="Class cat has too few different images"):
        run()


def test_hashes_tell_images_apart_by_their_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    pixels[3] = pixels[1]
    first, second, third, fourth = duplicates.hashes(pixels.transpose(0, 2, 1, 3))
    assert second == fourth
    assert len({first, second, third}) == 3
