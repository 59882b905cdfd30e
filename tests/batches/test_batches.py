import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.batches.batches import Batch, OrderedBatches, TrainingBatches
from pipeline.batches.images import Images
from pipeline.batches.loaders import Resident, Streamed
from pipeline.config import Augment

CPU = torch.device("cpu")


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
    loader = Streamed(images, CPU)
    return TrainingBatches(loader, positions, batch_size=8, policy=how, fill=(0.5,) * 3, seed=seed)


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
    # All pixels of an image have its class as value, which shows what was mixed in.
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


def test_an_incomplete_last_batch_is_left_out_and_not_counted(images: Images) -> None:
    part = batches(images, np.arange(30))
    assert (part.steps, len(part), part.total) == (3, 24, 30)
    assert [len(batch.labels) for batch in part.epoch(1)] == [8, 8, 8]


def test_a_part_smaller_than_a_batch_is_one_batch(images: Images) -> None:
    assert [len(batch.labels) for batch in batches(images, np.arange(5)).epoch(1)] == [5]


def test_ordered_batches_hold_all_images_in_order(images: Images) -> None:
    part = OrderedBatches(Streamed(images, CPU), np.arange(3, 50), batch_size=20)
    taken = list(part.epoch())
    assert [len(batch.labels) for batch in taken] == [20, 20, 7]
    assert (len(part), part.steps) == (47, 3)
    pixels = torch.cat([batch.images for batch in taken]).numpy()
    assert np.array_equal(pixels, images.pixels[3:50].transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "values",
    [
        {"policy": "crop_flip_cutout", "auto": "rand", "erasing": 0.3},
        {"policy": "flip", "auto": "trivial", "small_side": 0.75, "padding_mode": "reflect"},
        {"policy": "crop_flip", "mixup": 0.3, "cutmix": 1.0, "small_side": 0.75},
    ],
)
@pytest.mark.parametrize("together", [2, 3, 100])
def test_batches_that_are_augmented_together_are_those_augmented_one_by_one_to_the_bit(
    images: Images, values: dict[str, str | float], together: int
) -> None:
    """On a GPU; this is what it does, on a CPU."""
    loader, how = Resident(images, CPU), Augment.model_validate(values)
    made = []
    for at_once_bytes in (0, together * 8 * images.pixels[0].nbytes):
        loader.at_once_bytes = at_once_bytes
        batches = TrainingBatches(
            loader, np.arange(5, 64), batch_size=8, policy=how, fill=(0.5,) * 3, seed=0, small_epochs=1
        )
        made.append([batch for number in (1, 2) for batch in batches.epoch(number)])
    assert len(made[0]) == len(made[1]) == 14
    for one, other in zip(*made, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.images.is_contiguous(memory_format=torch.channels_last)
        assert other.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(one.labels, other.labels)
        assert (one.mix is None) == (other.mix is None)
        if one.mix and other.mix:
            assert torch.equal(one.mix.share, other.mix.share)
            assert torch.equal(one.mix.labels, other.mix.labels)
