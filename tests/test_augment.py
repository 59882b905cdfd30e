import pytest
import torch
from torch import Tensor

from pipeline import augment
from pipeline.config import Augment

FILL = (0.5, 0.25, 1.0)


def policy(name: str, padding: float = 0.25, cutout: float = 0.5) -> Augment:
    return Augment(policy=name, padding=padding, cutout=cutout)  # type: ignore[arg-type]


@pytest.fixture
def images() -> Tensor:
    """One picture of 8 x 8 pixels, all different in the first channel, 64 times."""
    picture = torch.stack([torch.arange(64).view(8, 8) * 3, torch.full((8, 8), 7), torch.full((8, 8), 9)], dim=-1)
    return picture.to(torch.uint8).expand(64, 8, 8, 3).contiguous()


def changed(images: Tensor, name: str, seed: int = 0, **shares: float) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    draws = augment.draw(policy(name, **shares), len(images), (8, 8), random)
    return augment.apply(images, draws, FILL)


def test_none_leaves_pictures_as_they_are(images: Tensor) -> None:
    assert torch.equal(changed(images, "none"), images.permute(0, 3, 1, 2))


def test_flip_mirrors_about_half_of_the_pictures_and_changes_nothing_else(images: Tensor) -> None:
    plain = images.permute(0, 3, 1, 2)
    mirrored = [torch.equal(one, plain[0].flip(2)) for one in changed(images, "flip")]
    same = [torch.equal(one, plain[0]) for one in changed(images, "flip")]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 20 <= sum(mirrored) <= 44


@pytest.mark.parametrize("name", ["crop_flip", "crop_flip_cutout"])
def test_each_picture_of_a_batch_gets_a_draw_of_its_own(images: Tensor, name: str) -> None:
    # 25 places of the crop, mirrored or not: 64 draws of 50 give about 36 different ones.
    assert len({one.numpy().tobytes() for one in changed(images, name)}) > 20


def test_a_crop_is_the_picture_moved_by_up_to_the_padding_with_the_fill_colour_around(images: Tensor) -> None:
    border = (torch.tensor(FILL) * 255).round().to(torch.uint8)
    padded = border.expand(12, 12, 3).clone()
    padded[2:10, 2:10] = images[0]
    crops = [padded[top : top + 8, left : left + 8] for top in range(5) for left in range(5)]
    allowed = {one.permute(2, 0, 1).contiguous().numpy().tobytes() for crop in crops for one in (crop, crop.flip(1))}
    assert all(one.contiguous().numpy().tobytes() in allowed for one in changed(images, "crop_flip"))


def test_cutout_blanks_one_square_of_its_side_or_less_at_the_border(images: Tensor) -> None:
    border = (torch.tensor(FILL) * 255).round().to(torch.uint8)[:, None, None]
    # The least padding: a crop of 0 pixels leaves the cutout alone to see.
    blank = (changed(images, "crop_flip_cutout", padding=0.01) == border).all(dim=1)
    assert {int(one) for one in blank.sum(dim=(1, 2))} <= {a * b for a in range(2, 5) for b in range(2, 5)}
    assert int(blank.sum(dim=(1, 2)).max()) == 16
    for one in blank:
        rows, columns = one.any(dim=1), one.any(dim=0)
        assert torch.equal(one, rows[:, None] & columns[None, :])


def test_equal_seeds_change_pictures_alike(images: Tensor) -> None:
    assert torch.equal(changed(images, "crop_flip_cutout", 3), changed(images, "crop_flip_cutout", 3))
    assert not torch.equal(changed(images, "crop_flip_cutout", 3), changed(images, "crop_flip_cutout", 4))


def test_a_part_of_the_draws_belongs_to_that_part_of_the_pictures(images: Tensor) -> None:
    draws = augment.draw(policy("crop_flip_cutout"), 64, (8, 8), torch.Generator().manual_seed(0))
    whole = augment.apply(images, draws, FILL)
    assert torch.equal(augment.apply(images[16:32], draws[16:32], FILL), whole[16:32])


def test_batches_are_channels_last_in_memory(images: Tensor) -> None:
    for name in ("none", "flip", "crop_flip", "crop_flip_cutout"):
        assert changed(images, name).is_contiguous(memory_format=torch.channels_last)
