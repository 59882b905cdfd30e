"""Folders whose directories are parts, classes, or could be either."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.layout import Parts, find_parts
from pipeline.errors import DataError

Run = Callable[..., dict[str, Any]]
MakeImages = Callable[[Path, dict[str, int]], Path]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAIN", "test"),
        ("Training", "Testing"),
        ("train", "eval"),
        ("train", "evaluation"),
        ("train_set", "test_set"),
        ("training_set", "test_set"),
        ("trainset", "testset"),
        ("train-data", "test-data"),
        ("Train Images", "Test Images"),
        ("imagesTrain", "imagesTest"),
        ("seg_train", "seg_test"),
        ("train_flowers", "test_flowers"),
        ("flowers-Train-images", "flowers-Test-images"),
        ("train2017", "test2017"),
        ("01_train", "02_test"),
    ],
)
def test_the_usual_names_of_parts_are_recognised(train: str, test: str) -> None:
    assert find_parts([train, test], "here") == Parts(train, test)


def test_eval_is_the_validation_part_beside_a_test_part() -> None:
    assert find_parts(["train", "eval", "test"], "here") == Parts("train", "test", "eval")


@pytest.mark.parametrize("names", [["train", "val"], ["Train", "VALID"], ["training", "validation_set"]])
def test_a_test_part_may_be_missing_beside_a_validation_part(names: list[str]) -> None:
    assert find_parts(names, "here") == Parts(names[0], None, names[1])


@pytest.mark.parametrize(
    "names",
    [
        ["train", "bus"],
        ["contest", "retrain"],
        ["bus_test", "dog_train"],
        ["train station", "test card"],
        ["latest", "trainer"],
        ["data", "set"],
        ["test 1", "test 2"],
    ],
)
def test_names_that_only_resemble_parts_are_classes(names: list[str]) -> None:
    assert find_parts(names, "here") is None


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["Train", "train", "test"], "Train/, train/, each of which may be the train part"),
        (["test", "Val"], "has Val/, test/ but not both train/ and test/"),
        (["train", "eval", "test", "dev"], "dev/, eval/, each of which may be the val part"),
        (["Training", "Testing", "bee"], "has Training/ and Testing/ and beside them bee/: are these classes or parts"),
        (["seg_train", "seg_test", "seg_pred"], "beside them seg_pred/"),
        (["cat_train", "cat_test", "dog_train", "dog_test"], "several directories are named like a training part"),
        (["train_cat", "test_cat", "train_dog", "test_dog"], "several directories are named like a training part"),
        (["train", "val", "bee"], "has train/ and val/ and beside them bee/: are these classes or parts"),
    ],
)
def test_names_that_could_mean_two_things_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        find_parts(names, "here")


def test_parts_of_any_usual_name_give_the_same_images(run: Run, tmp_path: Path, make_images: MakeImages) -> None:
    make_images(tmp_path / "images" / "train", {"dog": 5, "cat": 3})
    make_images(tmp_path / "images" / "test", {"dog": 2, "cat": 1})
    digest = run()["digest"]
    (tmp_path / "images" / "train").rename(tmp_path / "images" / "Training_Set")
    (tmp_path / "images" / "test").rename(tmp_path / "images" / "EVAL")
    meta = run()
    assert (meta["digest"], meta["classes"]) == (digest, ["cat", "dog"])


def test_a_directory_that_wraps_the_classes_of_a_part_is_entered(
    run: Run, tmp_path: Path, make_images: MakeImages
) -> None:
    make_images(tmp_path / "images" / "seg_train" / "seg_train", {"dog": 5, "cat": 3})
    make_images(tmp_path / "images" / "seg_test" / "seg_test", {"dog": 2, "cat": 1})
    assert run()["per_class"] == {"train": [3, 5], "test": [1, 2]}


@pytest.mark.parametrize("below", ["", "all"])
def test_directories_with_the_same_directories_in_them_are_refused(
    run: Run, tmp_path: Path, make_images: MakeImages, below: str
) -> None:
    make_images(tmp_path / "images" / "images" / below, {"cat": 5, "dog": 5, "bee": 5})
    make_images(tmp_path / "images" / "thumbs" / below, {"Cat": 5, "dog": 5})
    with pytest.raises(DataError) as error:
        run()
    assert "images/, thumbs/ all have the same directories cat/, dog/ in them" in str(error.value)
    assert "If the classes are cat, dog: set data.url to one of images/, thumbs/" in str(error.value)
    assert "If the classes are images, thumbs: move the images" in str(error.value)


def test_the_same_directories_in_both_parts_are_refused_too(run: Run, tmp_path: Path, make_images: MakeImages) -> None:
    for part in ("train", "test"):
        for version in ("images", "thumbs"):
            make_images(tmp_path / "images" / part / version, {"cat": 3, "dog": 3})
    with pytest.raises(DataError, match="train can be read in two ways"):
        run()


@pytest.mark.parametrize("parts", [("train", "test"), ("Training", "Validation"), ("train", "test", "val")])
def test_parts_inside_of_classes_are_refused(
    run: Run, tmp_path: Path, make_images: MakeImages, parts: tuple[str, ...]
) -> None:
    make_images(tmp_path / "images" / "cat", dict.fromkeys(parts, 3))
    make_images(tmp_path / "images", {"dog": 5})
    with pytest.raises(DataError, match=rf"cat/ with {'/, '.join(sorted(parts))}/ in it.*put the parts outside"):
        run()


def test_directories_inside_of_classes_that_hold_images_are_part_of_them(
    run: Run, tmp_path: Path, make_images: MakeImages
) -> None:
    images = make_images(tmp_path / "images", {"cat": 5, "dog": 5})
    for name in ("cat", "dog"):
        make_images(images / name, {"day": 2, "night": 2})
    assert run()["counts"] == {"train": 10, "test": 8}


def test_loose_files_beside_a_wrapping_directory_and_beside_parts_are_counted(
    run: Run, tmp_path: Path, make_images: MakeImages, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "test"):
        make_images(tmp_path / "images" / "all" / part, {"cat": 3, "dog": 3})
    shutil.copy(next((tmp_path / "images").rglob("*.png")), tmp_path / "images" / "loose.png")
    assert run()["counts"] == {"train": 6, "test": 6}
    expected = f"warning: skipped a file that is not an image of a class: {tmp_path / 'images'}: loose.png\n"
    assert expected in capsys.readouterr().err
    (tmp_path / "images" / "all" / "labels.csv").write_text("", encoding="utf-8")
    run()
    assert "skipped 2 files that are not images of a class: .csv (1), .png (1)" in capsys.readouterr().err
