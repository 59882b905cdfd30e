import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.batches.images import Images, load_images
from pipeline.errors import DataError
from pipeline.records import Meta, load_meta


def save(folder: Path, images: Images, meta: Meta) -> None:
    np.save(folder / "images.npy", images.pixels)
    np.save(folder / "labels.npy", images.labels)
    (folder / "meta.json").write_text(json.dumps(asdict(meta)))


def test_what_was_written_comes_back_memory_mapped(tmp_path: Path, images: Images, meta: Meta) -> None:
    save(tmp_path, images, meta)
    loaded = load_images(tmp_path, load_meta(tmp_path / "meta.json"))
    assert isinstance(loaded.pixels, np.memmap)
    assert np.array_equal(loaded.pixels, images.pixels)
    assert np.array_equal(loaded.labels, images.labels)
    assert load_meta(tmp_path / "meta.json") == meta


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_without("meta.json"), "meta.json is missing: run `dvc repro`"),
        (_without("images.npy"), "images.npy is missing: run `dvc repro`"),
        (_without("labels.npy"), "labels.npy is missing: run `dvc repro`"),
        (lambda folder: (folder / "meta.json").write_text("{}"), "meta.json has no name, another version"),
        (lambda folder: (folder / "meta.json").write_text("{"), "meta.json is damaged"),
        (lambda folder: (folder / "images.npy").write_bytes(b"no array"), "can't be read"),
        (lambda folder: np.save(folder / "labels.npy", np.zeros(3, np.int64)), "promise uint8"),
    ],
)
def test_missing_and_damaged_files_are_reported_with_what_to_do(
    tmp_path: Path, images: Images, meta: Meta, damage: Callable[[Path], object], sentence: str
) -> None:
    save(tmp_path, images, meta)
    damage(tmp_path)
    with pytest.raises(DataError, match=sentence):
        load_images(tmp_path, load_meta(tmp_path / "meta.json"))


def test_no_write_to_an_array_reaches_the_file(tmp_path: Path, images: Images, meta: Meta) -> None:
    save(tmp_path, images, meta)
    torch.from_numpy(load_images(tmp_path, meta).pixels).zero_()
    assert np.array_equal(np.load(tmp_path / "images.npy"), images.pixels)
