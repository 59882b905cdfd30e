"""Decoding that is killed, and goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from places import REPOSITORY

from pipeline.datasets import images
from pipeline.datasets.decoded import Store
from pipeline.datasets.wide import Scale
from pipeline.download import download
from pipeline.files import Project

PER_CLASS = 100

SLOWLY = """
import time
from pipeline.datasets import decoded
from pipeline.download import main
decoded.SAVE_EVERY_S = 0
append = decoded.Store.append
def slowly(store, images):
    append(store, images)
    time.sleep(0.3)
decoded.Store.append = slowly
raise SystemExit(main())
"""


@pytest.fixture
def folder(make_images: Callable[[Path, dict[str, int]], Path], tmp_path: Path) -> Path:
    return make_images(tmp_path / "images", {"cat": PER_CLASS, "dog": PER_CLASS})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images that this process decodes."""
    rgb, found = images.rgb, []

    def counting(path: Path, *arguments: Any) -> Any:
        found.append(path)
        return rgb(path, *arguments)

    monkeypatch.setattr(images, "rgb", counting)
    return found


def stop(project: Project, how: signal.Signals) -> int:
    """Runs the stage and stops it when some images are decoded. Returns how many are kept."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    progress = project.data / ".decoded" / "progress.json"
    try:
        while not progress.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(how)
        assert process.wait(60) in (-how, 130)
    finally:
        process.kill()
        process.wait()
    kept = json.loads(progress.read_text(encoding="utf-8"))["count"]
    assert not project.meta.exists()
    return int(kept)


def test_what_was_seen_of_wide_images_is_kept_with_the_images(project: Project) -> None:
    project.data.mkdir()
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    scale = Scale(highest_float=255)
    scale.add({65535: (3.0, 4000.0, 7)})
    with pytest.raises(KeyboardInterrupt), Store(project, "these", 8, scale) as store:
        store.append([pixels, pixels[::-1].copy()])
        raise KeyboardInterrupt
    found = Scale()
    again = Store(project, "these", 8, found)
    assert (again.count, found.highest_float, found.seen) == (2, 255, {65535: (3.0, 4000.0, 7)})
    assert np.array_equal(again.images()[1], pixels[::-1])
    (project.data / ".decoded" / "images.bin").write_bytes(b"cut")
    assert Store(project, "these", 8, Scale()).count == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_download_goes_on_and_gives_the_same_bytes(
    make_project: Callable[..., Project],
    folder: Path,
    calls: list[Path],
    contents: Callable[[Path], dict[str, bytes]],
    capsys: pytest.CaptureFixture[str],
    how: signal.Signals,
) -> None:
    project = make_project(name="folder", url=str(folder), image_size=8)
    download(project)
    whole = contents(project.data)
    assert len(calls) == 2 * PER_CLASS
    calls.clear()
    kept = stop(project, how)
    assert 0 < kept < 2 * PER_CLASS
    download(project)
    assert len(calls) == 2 * PER_CLASS - kept
    assert f"{kept} of {2 * PER_CLASS} images are decoded already" in capsys.readouterr().out
    assert contents(project.data) == whole


@pytest.mark.slow
def test_images_that_have_changed_since_the_kill_are_decoded_again(
    make_project: Callable[..., Project], folder: Path, calls: list[Path]
) -> None:
    project = make_project(name="folder", url=str(folder), image_size=8)
    stop(project, signal.SIGKILL)
    Image.new("RGB", (9, 9), "red").save(folder / "cat" / "000.png")
    download(project)
    assert len(calls) == 2 * PER_CLASS
    stop(project, signal.SIGKILL)
    make_project(name="digits")
    download(project)
    assert not (project.data / ".decoded").exists()
