import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline import data
from pipeline.config import Augment
from pipeline.data import OrderedBatches, Pictures, TrainingBatches
from pipeline.errors import DataError
from pipeline.meta import Meta, load_meta

CPU = torch.device("cpu")


def save(folder: Path, pictures: Pictures, meta: Meta) -> None:
    np.save(folder / "images.npy", pictures.images)
    np.save(folder / "labels.npy", pictures.labels)
    (folder / "meta.json").write_text(json.dumps(asdict(meta)))


def batches(
    pictures: Pictures, positions: npt.NDArray[np.int64], policy: str = "none", seed: int = 0
) -> TrainingBatches:
    how = Augment(policy=policy, padding=0.125, cutout=0.5)  # type: ignore[arg-type]
    return TrainingBatches(pictures, positions, batch_size=8, policy=how, fill=(0.5,) * 3, seed=seed, device=CPU)


def test_what_was_written_comes_back_memory_mapped(tmp_path: Path, pictures: Pictures, meta: Meta) -> None:
    save(tmp_path, pictures, meta)
    loaded = data.load_pictures(tmp_path, load_meta(tmp_path / "meta.json"))
    assert isinstance(loaded.images, np.memmap)
    assert np.array_equal(loaded.images, pictures.images)
    assert np.array_equal(loaded.labels, pictures.labels)
    assert load_meta(tmp_path / "meta.json") == meta


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_without("meta.json"), "meta.json is missing: run `dvc repro`"),
        (_without("images.npy"), "images.npy is missing: run `dvc repro`"),
        (_without("labels.npy"), "labels.npy is missing: run `dvc repro`"),
        (lambda folder: (folder / "meta.json").write_text("{}"), "meta.json can't be read"),
        (lambda folder: (folder / "images.npy").write_bytes(b"no array"), "can't be read"),
        (lambda folder: np.save(folder / "labels.npy", np.zeros(3, np.int64)), "promise uint8"),
    ],
)
def test_missing_and_damaged_files_are_told_with_what_to_do(
    tmp_path: Path, pictures: Pictures, meta: Meta, damage: Callable[[Path], object], sentence: str
) -> None:
    save(tmp_path, pictures, meta)
    damage(tmp_path)
    with pytest.raises(DataError, match=sentence):
        data.load_pictures(tmp_path, load_meta(tmp_path / "meta.json"))


def test_a_split_takes_its_share_of_each_class_and_every_picture_once() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    training, validation = data.split(labels, 0.2, seed=0)
    assert np.bincount(labels[validation]).tolist() == [20, 10, 2]
    assert sorted([*training, *validation]) == list(range(160))


def test_a_split_depends_on_its_seed_alone() -> None:
    labels = np.arange(100) % 3
    assert np.array_equal(data.split(labels, 0.2, 1)[1], data.split(labels, 0.2, 1)[1])
    assert not np.array_equal(data.split(labels, 0.2, 1)[1], data.split(labels, 0.2, 2)[1])


def test_every_class_is_in_both_parts_of_a_split_however_small() -> None:
    labels = np.array([0] * 100 + [1] * 2)
    for share in (0.01, 0.5):
        training, validation = data.split(labels, share, 0)
        assert set(labels[training]) == set(labels[validation]) == {0, 1}
    with pytest.raises(DataError, match="Class 1 has a single training picture"):
        data.split(np.array([0, 0, 1]), 0.1, 0)


def test_an_epoch_holds_each_picture_of_the_part_once_in_an_order_of_its_own(pictures: Pictures) -> None:
    positions = np.arange(0, 64, 2)
    part = batches(pictures, positions)
    epochs = [torch.cat([batch.images for batch in part.epoch(number)]) for number in (1, 2)]
    wanted = {pictures.images[position].transpose(2, 0, 1).tobytes() for position in positions}
    for epoch in epochs:
        assert {one.contiguous().numpy().tobytes() for one in epoch} == wanted
    assert not torch.equal(*epochs)


def test_labels_stay_with_their_pictures(pictures: Pictures) -> None:
    for batch in batches(pictures, np.arange(64), "flip").epoch(1):
        brighter = batch.images[:, :, 4:].float().mean(dim=(1, 2, 3)) > 125
        assert torch.equal(brighter.long(), batch.labels)


def test_an_epoch_is_the_same_whatever_came_before_it(pictures: Pictures) -> None:
    def third(skip: int) -> torch.Tensor:
        part = batches(pictures, np.arange(64), "crop_flip_cutout")
        for number in range(1, skip + 1):
            list(part.epoch(number))
        return torch.cat([batch.images for batch in part.epoch(3)])

    assert torch.equal(third(0), third(2))


def test_seeds_that_are_neighbours_share_no_epoch(pictures: Pictures) -> None:
    one = torch.cat([batch.images for batch in batches(pictures, np.arange(64), seed=0).epoch(2)])
    other = torch.cat([batch.images for batch in batches(pictures, np.arange(64), seed=1).epoch(1)])
    assert not torch.equal(one, other)


def test_an_incomplete_last_batch_is_left_out_and_counted_so(pictures: Pictures) -> None:
    part = batches(pictures, np.arange(30))
    assert (part.steps, len(part), part.pictures) == (3, 24, 30)
    assert [len(batch.labels) for batch in part.epoch(1)] == [8, 8, 8]


def test_a_part_smaller_than_a_batch_is_one_batch(pictures: Pictures) -> None:
    assert [len(batch.labels) for batch in batches(pictures, np.arange(5)).epoch(1)] == [5]


def test_ordered_batches_hold_all_pictures_in_order(pictures: Pictures) -> None:
    part = OrderedBatches(pictures, np.arange(3, 50), batch_size=20, device=CPU)
    taken = list(part.epoch())
    assert [len(batch.labels) for batch in taken] == [20, 20, 7]
    assert (len(part), part.steps) == (47, 3)
    images = torch.cat([batch.images for batch in taken]).numpy()
    assert np.array_equal(images, pictures.images[3:50].transpose(0, 3, 1, 2))


def test_no_write_to_a_batch_reaches_the_file(tmp_path: Path, pictures: Pictures, meta: Meta) -> None:
    save(tmp_path, pictures, meta)
    loaded = data.load_pictures(tmp_path, meta)
    part = OrderedBatches(loaded, np.arange(64), batch_size=64, device=CPU)
    part._images.zero_()
    assert np.array_equal(np.load(tmp_path / "images.npy"), pictures.images)
