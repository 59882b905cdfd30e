import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

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


def test_no_array_can_be_written_to(tmp_path: Path, images: Images, meta: Meta) -> None:
    save(tmp_path, images, meta)
    with pytest.raises(ValueError, match="read-only"):
        load_images(tmp_path, meta).pixels[0] = 0


def test_gathered_images_are_copies_in_the_order_asked_for(tmp_path: Path, images: Images, meta: Meta) -> None:
    save(tmp_path, images, meta)
    loaded, positions = load_images(tmp_path, meta), np.array([40, 3, 3, 63])
    for one in (loaded, images):
        gathered = one.gather(positions)
        assert type(gathered) is np.ndarray
        assert gathered.flags.writeable
        assert np.array_equal(gathered, images.pixels[positions])
    out = np.zeros_like(gathered)
    assert loaded.gather(positions, out) is out
    assert np.array_equal(out, gathered)
    assert loaded.gather(positions[:0]).shape == (0, 8, 8, 3)
    for stranger in (-1, 64):
        with pytest.raises(IndexError, match="positions must be 0 to 63"):
            loaded.gather(np.array([0, stranger]))
