import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.batches import splits
from pipeline.batches.batches import Batch, OrderedBatches, TrainingBatches
from pipeline.batches.images import Images, load_images
from pipeline.config import Augment
from pipeline.errors import DataError
from pipeline.records import Meta, load_meta

CPU = torch.device("cpu")


def save(folder: Path, images: Images, meta: Meta) -> None:
    np.save(folder / "images.npy", images.pixels)
    np.save(folder / "labels.npy", images.labels)
    (folder / "meta.json").write_text(json.dumps(asdict(meta)))


def batches(
    images: Images, positions: npt.NDArray[np.int64], policy: str = "none", seed: int = 0, **others: float | str
) -> TrainingBatches:
    plain = {
        "flip": "random",
        "padding": 0.125,
        "padding_mode": "constant",
        "cutout": 0.5,
        "auto": "none",
        "operations": 2,
        "magnitude": 9,
    }
    plain |= {"erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}
    how = Augment.model_validate({"policy": policy, "small_side": 1.0, "small_until": 0.5} | plain | others)
    return TrainingBatches(images, positions, batch_size=8, policy=how, fill=(0.5,) * 3, seed=seed, device=CPU)


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
        (lambda folder: (folder / "meta.json").write_text("{}"), "meta.json can't be read"),
        (lambda folder: (folder / "images.npy").write_bytes(b"no array"), "can't be read"),
        (lambda folder: np.save(folder / "labels.npy", np.zeros(3, np.int64)), "promise uint8"),
    ],
)
def test_missing_and_damaged_files_are_told_with_what_to_do(
    tmp_path: Path, images: Images, meta: Meta, damage: Callable[[Path], object], sentence: str
) -> None:
    save(tmp_path, images, meta)
    damage(tmp_path)
    with pytest.raises(DataError, match=sentence):
        load_images(tmp_path, load_meta(tmp_path / "meta.json"))


def test_a_split_takes_its_share_of_each_class_and_every_image_once() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    training, validation = splits.split(labels, 0.2, seed=0)
    assert np.bincount(labels[validation]).tolist() == [20, 10, 2]
    assert sorted([*training, *validation]) == list(range(160))


def test_a_split_depends_on_its_seed_alone() -> None:
    labels = np.arange(100) % 3
    assert np.array_equal(splits.split(labels, 0.2, 1)[1], splits.split(labels, 0.2, 1)[1])
    assert not np.array_equal(splits.split(labels, 0.2, 1)[1], splits.split(labels, 0.2, 2)[1])


def test_every_class_is_in_both_parts_of_a_split_however_small() -> None:
    labels = np.array([0] * 100 + [1] * 2)
    for share in (0.01, 0.5):
        training, validation = splits.split(labels, share, 0)
        assert set(labels[training]) == set(labels[validation]) == {0, 1}
    with pytest.raises(DataError, match="Class 1 has a single training image"):
        splits.split(np.array([0, 0, 1]), 0.1, 0)


def test_folds_validate_each_image_once_with_classes_as_even_as_can_be() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [103, 51, 7]))
    parts = splits.folds(labels, 5, seed=0)
    assert len(parts) == 5
    assert sorted(np.concatenate([validation for _, validation in parts])) == list(range(161))
    for training, validation in parts:
        assert sorted([*training, *validation]) == list(range(161))
        assert len(validation) in (32, 33)
        for label, count in enumerate(np.bincount(labels)):
            assert np.sum(labels[validation] == label) in (count // 5, count // 5 + 1)
        assert (training.dtype, validation.dtype) == (np.int64, np.int64)


def test_folds_depend_on_their_seed_alone() -> None:
    labels = np.arange(100) % 3
    one, same, other = (splits.folds(labels, 4, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0][1], other[0][1])


def test_a_class_with_fewer_images_than_folds_is_told() -> None:
    labels = np.array([0] * 20 + [7] * 3)
    assert all(np.sum(labels[validation] == 7) == 1 for _, validation in splits.folds(labels, 3, 0))
    with pytest.raises(DataError, match=r"Class 7 has too few training images \(3\) for 4 folds.*lower train\.folds"):
        splits.folds(labels, 4, 0)


def test_an_epoch_holds_each_image_of_the_part_once_in_an_order_of_its_own(images: Images) -> None:
    positions = np.arange(0, 64, 2)
    part = batches(images, positions)
    epochs = [torch.cat([batch.images for batch in part.epoch(number)]) for number in (1, 2)]
    wanted = {images.pixels[position].transpose(2, 0, 1).tobytes() for position in positions}
    for epoch in epochs:
        assert {one.contiguous().numpy().tobytes() for one in epoch} == wanted
    assert not torch.equal(*epochs)


def test_labels_stay_with_their_images(images: Images) -> None:
    for batch in batches(images, np.arange(64), "flip").epoch(1):
        brighter = batch.images[:, :, 4:].float().mean(dim=(1, 2, 3)) > 125
        assert torch.equal(brighter.long(), batch.labels)


EVERYTHING = {"flip": "alternating", "auto": "trivial", "erasing": 0.5, "mixup": 0.4, "cutmix": 1.0}


@pytest.mark.parametrize("others", [{}, EVERYTHING])
def test_an_epoch_is_the_same_whatever_came_before_it(images: Images, others: dict[str, float | str]) -> None:
    def third(skip: int) -> list[Batch]:
        part = batches(images, np.arange(64), "crop_flip_cutout", **others)
        for number in range(1, skip + 1):
            list(part.epoch(number))
        return list(part.epoch(3))

    for one, other in zip(third(0), third(2), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        if one.mix is None or other.mix is None:
            assert one.mix is other.mix is None
            assert not others
        else:
            assert torch.equal(one.mix.labels, other.mix.labels)
            assert torch.equal(one.mix.share, other.mix.share)


def flips(images: Images, positions: npt.NDArray[np.int64], number: int, seed: int = 0) -> dict[int, bool]:
    """Whether each image of the part is mirrored in an epoch, by its position in the data."""
    found = {}
    plain = images.pixels.transpose(0, 3, 1, 2)
    either = {plain[position].tobytes(): (int(position), False) for position in positions}
    either |= {plain[position][..., ::-1].tobytes(): (int(position), True) for position in positions}
    for batch in batches(images, positions, "flip", seed, flip="alternating").epoch(number):
        for one in batch.images:
            position, mirrored = either[one.contiguous().numpy().tobytes()]
            found[position] = mirrored
    return found


def test_alternating_flips_are_by_chance_at_first_and_then_every_other_epoch(images: Images) -> None:
    everything = np.arange(64)
    first = flips(images, everything, 1)
    assert len(first) == 64
    assert 20 <= sum(first.values()) <= 44
    for number in (2, 3, 4, 9):
        other = flips(images, everything, number)
        assert all(other[position] == (first[position] ^ (number % 2 == 0)) for position in first)
    assert flips(images, everything, 1, seed=1) != first


def test_alternating_flips_belong_to_an_image_not_to_its_place_in_a_part(images: Images) -> None:
    whole = flips(images, np.arange(64), 1)
    part = flips(images, np.arange(1, 64, 2)[:24], 1)
    assert len(part) == 24
    assert all(whole[position] == mirrored for position, mirrored in part.items())


def test_the_policy_none_does_not_flip_alternately_either(images: Images) -> None:
    plain = {one.transpose(2, 0, 1).tobytes() for one in images.pixels}
    for number in (1, 2):
        for batch in batches(images, np.arange(64), "none", flip="alternating").epoch(number):
            assert {one.contiguous().numpy().tobytes() for one in batch.images} <= plain


def test_a_batch_that_is_not_mixed_says_so(images: Images) -> None:
    assert all(batch.mix is None for batch in batches(images, np.arange(64), "crop_flip").epoch(1))


@pytest.mark.parametrize("alphas", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_a_mixed_batch_says_what_is_in_each_image(alphas: dict[str, float]) -> None:
    # Each image is of one value, its class, so that what is mixed in can be read from the pixels.
    labels = np.arange(40) * 6
    one_value = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (40, 6, 6, 3)).copy()
    for batch in batches(Images(one_value, labels), np.arange(40), **alphas).epoch(1):
        assert batch.mix is not None
        assert (batch.mix.labels.dtype, batch.mix.share.dtype) == (torch.int64, torch.float32)
        assert sorted(batch.mix.labels.tolist()) == sorted(batch.labels.tolist())
        assert not (batch.mix.labels == batch.labels).any(), "another image"
        wanted = batch.mix.share * batch.labels + (1 - batch.mix.share) * batch.mix.labels
        assert (batch.images.float().mean(dim=(1, 2, 3)) - wanted).abs().max() < 0.51


def test_mixing_changes_neither_the_order_nor_the_rest_of_the_augmentation(images: Images) -> None:
    plain = batches(images, np.arange(64), "crop_flip").epoch(2)
    for one, other in zip(plain, batches(images, np.arange(64), "crop_flip", mixup=0.2).epoch(2), strict=True):
        assert torch.equal(one.labels, other.labels)
        assert other.mix is not None
        own = other.mix.share > 0.999
        assert torch.equal(one.images[own], other.images[own])


def test_seeds_that_are_neighbours_share_no_epoch(images: Images) -> None:
    one = torch.cat([batch.images for batch in batches(images, np.arange(64), seed=0).epoch(2)])
    other = torch.cat([batch.images for batch in batches(images, np.arange(64), seed=1).epoch(1)])
    assert not torch.equal(one, other)


def test_an_incomplete_last_batch_is_left_out_and_counted_so(images: Images) -> None:
    part = batches(images, np.arange(30))
    assert (part.steps, len(part), part.total) == (3, 24, 30)
    assert [len(batch.labels) for batch in part.epoch(1)] == [8, 8, 8]


def test_a_part_smaller_than_a_batch_is_one_batch(images: Images) -> None:
    assert [len(batch.labels) for batch in batches(images, np.arange(5)).epoch(1)] == [5]


def test_ordered_batches_hold_all_images_in_order(images: Images) -> None:
    part = OrderedBatches(images, np.arange(3, 50), batch_size=20, device=CPU)
    taken = list(part.epoch())
    assert [len(batch.labels) for batch in taken] == [20, 20, 7]
    assert (len(part), part.steps) == (47, 3)
    pixels = torch.cat([batch.images for batch in taken]).numpy()
    assert np.array_equal(pixels, images.pixels[3:50].transpose(0, 3, 1, 2))


def test_no_write_to_a_batch_reaches_the_file(tmp_path: Path, images: Images, meta: Meta) -> None:
    save(tmp_path, images, meta)
    loaded = load_images(tmp_path, meta)
    part = OrderedBatches(loaded, np.arange(64), batch_size=64, device=CPU)
    part._images.zero_()
    assert np.array_equal(np.load(tmp_path / "images.npy"), images.pixels)
