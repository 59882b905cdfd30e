"""The stage download as a whole: what it writes, and that it leaves nothing else."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from places import REPOSITORY

from pipeline.download import download
from pipeline.errors import ConfigError, DataError
from pipeline.files import Project

ARRAYS = {"train/images.npy", "train/labels.npy", "test/images.npy", "test/labels.npy"}


def run(project: Project, code: str = "from pipeline.download import main; raise SystemExit(main())") -> Any:
    """The stage in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=project.root, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder_project(
    make_project: Callable[..., Project], make_images: Callable[..., Path], tmp_path: Path
) -> Iterator[Project]:
    make_images(tmp_path / "images", {"cat": 6, "dog": 5})
    yield make_project(name="folder", url=str(tmp_path / "images"), image_size=8, test_share=0.3)


def test_digits_are_written_as_arrays_that_can_be_memory_mapped(make_project):
    project = make_project(name="digits")
    download(project)
    for folder, count in ((project.training_data, 1438), (project.test_data, 359)):
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npy", mmap_mode="r")
        assert isinstance(images, np.memmap)
        assert (images.dtype, images.shape, images.flags.c_contiguous) == (np.uint8, (count, 8, 8, 1), True)
        assert (labels.dtype, labels.shape) == (np.int64, (count,))
        assert (images.min(), images.max()) == (0, 255)


def test_meta_has_classes_shape_statistics_counts_and_digest(make_project):
    project = make_project(name="digits")
    download(project)
    meta = json.loads(project.meta.read_text(encoding="utf-8"))
    arrays = {
        name: [np.load(folder / f"{kind}.npy") for kind in ("images", "labels")]
        for name, folder in (("train", project.training_data), ("test", project.test_data))
    }
    training = arrays["train"][0] / 255
    assert meta["mean"] == pytest.approx(training.mean(axis=(0, 1, 2)), rel=1e-12)
    assert meta["std"] == pytest.approx(training.std(axis=(0, 1, 2)), rel=1e-12)
    assert meta["per_class"] == {name: np.bincount(labels).tolist() for name, (_, labels) in arrays.items()}
    digest = hashlib.sha256()
    for name, (images, labels) in arrays.items():
        digest.update(f"{name}/images uint8 {list(images.shape)}\n".encode() + images.tobytes())
        digest.update(f"{name}/labels int64 {list(labels.shape)}\n".encode() + labels.tobytes())
    digest.update(json.dumps(meta["classes"]).encode())
    del meta["mean"], meta["std"], meta["per_class"]
    assert meta == {
        "name": "digits",
        "classes": list("0123456789"),
        "shape": [1, 8, 8],
        "counts": {"train": 1438, "test": 359},
        "digest": f"sha256:{digest.hexdigest()}",
        "source": "scikit-learn",
        "archive_sha256": None,
        "fingerprint": None,
        "duplicates": {
            **dict.fromkeys(("training", "validation", "test", "leaked", "leaked_into_validation", "conflicting"), 0),
            "examples": {"leaked": [], "leaked_into_validation": [], "conflicting": [], "copies": []},
        },
        "near_duplicates": None,
        "highest_float": None,
    }


def test_the_same_input_gives_the_same_bytes(folder_project, contents):
    download(folder_project)
    first = contents(folder_project.data)
    shutil.rmtree(folder_project.data)
    download(folder_project)
    assert contents(folder_project.data) == first
    assert set(first) == {*ARRAYS, "meta.json"}


def test_the_stage_prints_what_it_wrote(folder_project, capsys):
    download(folder_project)
    digest = json.loads(folder_project.meta.read_text(encoding="utf-8"))["digest"]
    printed = capsys.readouterr().out
    assert "folder: 7 training and 4 test images of 2 classes, 3x8x8" in printed
    assert digest in printed


def test_a_failed_run_leaves_neither_its_own_arrays_nor_those_of_an_earlier_run(folder_project, tmp_path, contents):
    download(folder_project)
    (tmp_path / "images" / "dog" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"dog/broken\.png"):
        download(folder_project)
    assert contents(folder_project.data) == {}


def test_invalid_parameters_are_reported_before_anything_is_removed(folder_project, make_project, contents):
    download(folder_project)
    before = contents(folder_project.data)
    make_project(name="folder", url="images", image_size=None)
    with pytest.raises(ConfigError, match=r"data\.image_size must be given"):
        download(folder_project)
    assert contents(folder_project.data) == before


def test_other_files_in_the_data_folder_stay(folder_project, contents):
    folder_project.training_data.mkdir(parents=True)
    (folder_project.training_data / "notes.txt").write_text("mine", encoding="utf-8")
    download(folder_project)
    assert contents(folder_project.data)["train/notes.txt"] == b"mine"


@pytest.mark.parametrize("move", [1, 2, 3, 4, 5])
def test_after_a_kill_at_any_rename_the_next_run_completes(folder_project, contents, move):
    download(folder_project)
    whole = contents(folder_project.data)
    code = (
        "import os, pathlib, signal\n"
        "from pipeline.download import main\n"
        "replace, moves = pathlib.Path.replace, []\n"
        "def kill(self, target):\n"
        "    moves.append(target)\n"
        f"    if len(moves) == {move}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return replace(self, target)\n"
        "pathlib.Path.replace = kill\n"
        "main()\n"
    )
    assert run(folder_project, code).returncode == -signal.SIGKILL
    left = contents(folder_project.data)
    assert "meta.json" not in left
    assert any(name.endswith(".part") for name in left)
    download(folder_project)
    assert contents(folder_project.data) == whole


def test_after_a_kill_while_images_are_decoded_the_next_run_completes(folder_project, make_project, tmp_path, contents):
    download(folder_project)
    arrays = {name: data for name, data in contents(folder_project.data).items() if name != "meta.json"}
    shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "images")
    project = make_project(name="folder", url=str(tmp_path / "images.zip"), image_size=8, test_share=0.3)
    code = (
        "import os, signal\n"
        "from pipeline.datasets import images\n"
        "from pipeline.download import main\n"
        "images.rgb = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main()\n"
    )
    assert run(project, code).returncode == -signal.SIGKILL
    left = contents(project.data)
    assert any(name.startswith(".unpacked-") for name in left)
    assert not set(left) & {*ARRAYS, "meta.json"}
    download(project)
    after = contents(project.data)
    assert {name: data for name, data in after.items() if name != "meta.json"} == arrays


def test_a_full_disk_is_reported_before_anything_is_written(folder_project, monkeypatch, contents):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(
        DataError, match=r"no space left for the arrays: 2\.2 kB are needed in .*data, 1\.0 kB are free"
    ):
        download(folder_project)
    assert contents(folder_project.data) == {}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left while writing the arrays in .*data: 2.2 kB are needed, .* are free"),
        (errno.EACCES, "writing the arrays failed: .* can't be accessed"),
        (errno.EIO, "writing the arrays failed at .*Input/output error"),
    ],
)
def test_a_disk_error_while_writing_is_reported_and_everything_is_removed(
    folder_project, monkeypatch, contents, number, words
):
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 5:  # each file has two (itself and its folder), so this is in the third file
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DataError, match=words):
        download(folder_project)
    assert contents(folder_project.data) == {}


def test_the_command_ends_with_1_and_one_sentence(make_project):
    project = make_project(name="folder", url="nowhere", image_size=8)
    done = run(project)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "nowhere, which data.url names, does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_ends_with_0(folder_project):
    done = run(folder_project)
    assert (done.returncode, done.stderr) == (0, "")
    assert folder_project.meta.is_file()


def test_a_stopped_download_ends_in_order_and_keeps_what_was_received(make_project, server, answer, contents):
    server.files["c.tar.gz"] = bytes(1_000_000)
    server.answers = [answer(stall_after=600_000)]
    project = make_project(url=server.url("c.tar.gz"))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.download"],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    part = project.downloads / "cifar-10-python.tar.gz.part"
    try:
        while not (part.exists() and part.stat().st_size > 500_000):
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (130, "\nstopped\n")
    assert part.stat().st_size > 500_000
    assert contents(project.data) == {}


def test_help_is_quick_because_nothing_heavy_is_imported(tmp_path):
    heavy = {"torch", "mlflow", "sklearn", "requests", "PIL", "numpy"}
    code = f"import sys, pipeline.download; print({heavy!r} & set(sys.modules))"
    assert run(Project(tmp_path, tmp_path), code).stdout == "set()\n"
