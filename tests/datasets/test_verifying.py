"""python -m pipeline.download --check."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline import download
from pipeline.datasets.arrays import files
from pipeline.datasets.verifying import differences
from pipeline.files import Project
from pipeline.records import load_meta


@pytest.fixture
def checked(
    make_project: Callable[..., Project],
    make_images: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Project:
    """A data set with all arrays that there can be: it has a validation part, and equal images."""
    for part in ("train", "val", "test"):
        make_images(tmp_path / "images" / part, {"cat": 4, "dog": 3})
    image = (tmp_path / "images" / "train" / "cat").iterdir()
    first, second, *_ = sorted(image)
    second.write_bytes(first.read_bytes())
    project = make_project(name="folder", url=str(tmp_path / "images"), image_size=8)
    monkeypatch.chdir(project.root)
    download.download(project)
    assert all(path.exists() for path in files(project).values())
    capsys.readouterr()
    return project


def change(path: Path) -> None:
    array = np.load(path)
    array.flat[0] ^= 1
    np.save(path, array)


def test_what_was_downloaded_is_identical(checked: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files(checked).values()}
    assert download.main(["--check"]) == 0
    assert capsys.readouterr().out.startswith(
        f"identical: folder, 7 training, 7 validation, 7 test images, {load_meta(checked.meta).digest} ("
    )
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files(checked).values()} == before


@pytest.mark.parametrize("name", ["train/images", "test/images", "test/labels", "train/groups", "train/validation"])
def test_a_changed_value_is_noticed_in_every_array(
    checked: Project, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(files(checked)[name])
    assert download.main(["--check"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: data/ is not what meta.json says:\n  the arrays have the digest sha256:")
    assert "`dvc checkout --force download` restores it" in printed.err
    assert ("data/test/labels.npy has other labels" in printed.err) == (name == "test/labels")
    assert not differences(checked, load_meta(checked.meta), quick=True)


def test_arrays_that_are_missing_cut_or_of_another_shape_are_named(checked: Project) -> None:
    arrays = files(checked)
    arrays["test/labels"].unlink()
    arrays["train/groups"].write_bytes(b"hello")
    images = arrays["train/images"].read_bytes()
    arrays["train/images"].write_bytes(images[:-10])
    np.save(arrays["test/images"], np.zeros((3, 8, 8, 3), np.uint8))
    assert differences(checked, load_meta(checked.meta)) == [
        f"data/train/images.npy has {len(images) - 10:,} bytes and should have {len(images):,}",
        "data/test/images.npy has the shape [3, 8, 8, 3], meta.json says [7, 8, 8, 3]",
        "data/test/labels.npy is missing",
        "data/train/groups.npy can't be read (EOF: reading magic string, expected 8 bytes got 5)",
    ]


def test_an_array_that_only_some_data_has_counts_where_it_was(checked: Project) -> None:
    files(checked)["train/groups"].unlink()
    (sentence,) = differences(checked, load_meta(checked.meta))
    assert sentence.startswith("the arrays have the digest sha256:")


def test_missing_data_is_an_error_that_says_how_to_get_it(checked: Project, capsys: pytest.CaptureFixture[str]) -> None:
    checked.meta.unlink()
    assert download.main(["--check"]) == 1
    assert capsys.readouterr().err == (
        f"error: {checked.meta} is missing: run `dvc repro`, or `python -m pipeline.download`.\n"
    )
