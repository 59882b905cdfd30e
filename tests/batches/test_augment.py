import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.batches import augment
from pipeline.batches.augment import Mixing
from pipeline.config import Augment

FILL = (0.5, 0.25, 1.0)
CPU = torch.device("cpu")
COLOUR = augment.colour_of(FILL, CPU)


def policy(name: str, **others: float | str) -> Augment:
    plain = {
        "flip": "random",
        "padding": 0.25,
        "padding_mode": "constant",
        "cutout": 0.5,
        "auto": "none",
        "operations": 2,
        "magnitude": 9,
    }
    off = {"small_side": 1.0, "small_until": 0.5, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}
    return Augment.model_validate({"policy": name, **plain, **off, **others})


@pytest.fixture
def images() -> Tensor:
    """One image of 8 x 8 pixels, all different in the first channel, 64 times."""
    image = torch.stack([torch.arange(64).view(8, 8) * 3, torch.full((8, 8), 7), torch.full((8, 8), 9)], dim=-1)
    return image.to(torch.uint8).expand(64, 8, 8, 3).contiguous()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(images: Tensor, name: str, seed: int = 0, **others: float | str) -> Tensor:
    draws = augment.draw(policy(name, **others), len(images), (8, 8), seeded(seed))
    return augment.apply(images, draws, COLOUR)


def border() -> Tensor:
    """uint8 [3, 1, 1]"""
    return (torch.tensor(FILL) * 255).round().to(torch.uint8)[:, None, None]


def test_none_leaves_images_as_they_are(images: Tensor) -> None:
    assert torch.equal(changed(images, "none"), images.permute(0, 3, 1, 2))


def test_flip_mirrors_about_half_of_the_images_and_changes_nothing_else(images: Tensor) -> None:
    plain = images.permute(0, 3, 1, 2)
    mirrored = [torch.equal(one, plain[0].flip(2)) for one in changed(images, "flip")]
    same = [torch.equal(one, plain[0]) for one in changed(images, "flip")]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 20 <= sum(mirrored) <= 44


@pytest.mark.parametrize("name", ["crop_flip", "crop_flip_cutout"])
def test_each_image_of_a_batch_gets_a_draw_of_its_own(images: Tensor, name: str) -> None:
    # 25 positions of the crop, mirrored or not: 64 draws from these 50 give about 36 different ones.
    assert len({one.numpy().tobytes() for one in changed(images, name)}) > 20


def test_a_crop_is_the_image_moved_by_up_to_the_padding_with_the_fill_colour_around(images: Tensor) -> None:
    padded = border()[:, 0, 0].expand(12, 12, 3).clone()
    padded[2:10, 2:10] = images[0]
    crops = [padded[top : top + 8, left : left + 8] for top in range(5) for left in range(5)]
    allowed = {one.permute(2, 0, 1).contiguous().numpy().tobytes() for crop in crops for one in (crop, crop.flip(1))}
    assert all(one.contiguous().numpy().tobytes() in allowed for one in changed(images, "crop_flip"))


def test_a_padding_that_reflects_shows_the_image_mirrored_at_its_border(images: Tensor) -> None:
    padded = F.pad(images[:1].permute(0, 3, 1, 2).float(), (2, 2, 2, 2), mode="reflect")[0].to(torch.uint8)
    crops = [padded[:, top : top + 8, left : left + 8] for top in range(5) for left in range(5)]
    allowed = {one.contiguous().numpy().tobytes() for crop in crops for one in (crop, crop.flip(2))}
    made = {one.contiguous().numpy().tobytes() for one in changed(images, "crop_flip", padding_mode="reflect")}
    assert made <= allowed
    assert len(made) > 20


def test_cutout_blanks_one_square_of_its_side_or_less_at_the_border(images: Tensor) -> None:
    # With the smallest padding the crop moves by 0 pixels, and only the cutout shows.
    blank = (changed(images, "crop_flip_cutout", padding=0.01) == border()).all(dim=1)
    assert {int(one) for one in blank.sum(dim=(1, 2))} <= {a * b for a in range(2, 5) for b in range(2, 5)}
    assert int(blank.sum(dim=(1, 2)).max()) == 16
    for one in blank:
        rows, columns = one.any(dim=1), one.any(dim=0)
        assert torch.equal(one, rows[:, None] & columns[None, :])


ALL = {"auto": "rand", "erasing": 0.5}


def test_equal_seeds_change_images_alike(images: Tensor) -> None:
    assert torch.equal(changed(images, "crop_flip_cutout", 3, **ALL), changed(images, "crop_flip_cutout", 3, **ALL))
    assert not torch.equal(changed(images, "crop_flip_cutout", 3), changed(images, "crop_flip_cutout", 4))


@pytest.mark.parametrize("others", [{}, ALL])
def test_a_part_of_the_draws_belongs_to_that_part_of_the_images(images: Tensor, others: dict[str, str]) -> None:
    draws = augment.draw(policy("crop_flip_cutout", **others), 64, (8, 8), seeded())
    whole = augment.apply(images, draws, COLOUR)
    assert torch.equal(augment.apply(images[16:32], draws[16:32], COLOUR), whole[16:32])


def test_batches_are_channels_last_in_memory(images: Tensor) -> None:
    for name in ("none", "flip", "crop_flip", "crop_flip_cutout"):
        assert changed(images, name).is_contiguous(memory_format=torch.channels_last)
    assert changed(images, "none", **ALL).is_contiguous(memory_format=torch.channels_last)
    for alphas in ({"mixup": 1.0}, {"cutmix": 1.0}):
        mixing = augment.draw_mixing(policy("none", **alphas), 64, (8, 8), seeded())
        assert mixing
        mixed = augment.mix(images.permute(0, 3, 1, 2), mixing)
        assert mixed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_any_channels_and_sides_go_through_all_of_it(channels: int) -> None:
    images = torch.randint(256, (32, 9, 14, channels), dtype=torch.uint8, generator=seeded())
    draws = augment.draw(policy("crop_flip_cutout", auto="trivial", erasing=0.5), 32, (9, 14), seeded())
    out = augment.apply(images, draws, augment.colour_of((0.5,) * channels, CPU))
    assert (out.shape, out.dtype) == ((32, channels, 9, 14), torch.uint8)


def test_alternating_flips_are_used_as_given_except_by_the_policy_none(images: Tensor) -> None:
    mirrored = torch.arange(64) % 3 == 0
    for name in ("flip", "crop_flip", "crop_flip_cutout"):
        assert augment.draw(policy(name), 64, (8, 8), seeded(), mirrored).flipped is mirrored
    assert augment.draw(policy("none"), 64, (8, 8), seeded(), mirrored).flipped is None


def blanked(images: Tensor, probability: float) -> Tensor:
    """bool [N, 8, 8]: where random erasing, without other changes, has put the fill colour."""
    return (changed(images, "none", erasing=probability) == border()).all(dim=1)


def test_erasing_blanks_a_rectangle_of_the_papers_area_and_aspect_somewhere_in_the_image() -> None:
    boxes = augment.draw(policy("none", erasing=1.0), 4_000, (64, 64), seeded()).erased
    assert boxes is not None
    top, bottom, left, right = boxes.unbind(1)
    assert boxes.min() == 0
    assert boxes.max() == 64
    rows, columns = (bottom - top).double(), (right - left).double()
    area, aspect = rows * columns / 64**2, rows / columns
    assert 0.018 < area.min() < 0.03
    assert 0.31 < area.max() < 0.34
    assert 0.165 < area.mean() < 0.185
    assert 0.26 < aspect.min() < 0.33
    assert 3.1 < aspect.max() < 3.8
    assert 0.47 < (aspect > 1).double().mean() < 0.53, "as many tall as wide"
    middle = (top + bottom).double().mean() / 2
    assert 31 < middle < 33


def test_erasing_is_a_draw_for_each_image_with_its_probability(images: Tensor) -> None:
    for one in blanked(images, 1.0):
        assert one.any()
        assert torch.equal(one, one.any(dim=1)[:, None] & one.any(dim=0)[None])
    hit = blanked(images, 0.25).any(dim=(1, 2))
    assert 8 <= int(hit.sum()) <= 24
    assert len({one.numpy().tobytes() for one in blanked(images, 1.0)}) > 20


def test_erasing_comes_after_the_operations(images: Tensor) -> None:
    # No operation changes what was blanked.
    draws = augment.draw(policy("none", auto="trivial", erasing=1.0), 64, (8, 8), seeded())
    assert draws.erased is not None
    for one, (top, bottom, left, right) in zip(
        augment.apply(images, draws, COLOUR), draws.erased.tolist(), strict=True
    ):
        assert (one[:, top:bottom, left:right] == border()).all()


def mixing(count: int, size: tuple[int, int] = (8, 8), seed: int = 0, **alphas: float) -> Mixing:
    drawn = augment.draw_mixing(policy("none", **alphas), count, size, seeded(seed))
    assert drawn
    return drawn


def test_without_an_alpha_nothing_is_mixed() -> None:
    assert augment.draw_mixing(policy("crop_flip"), 64, (8, 8), seeded()) is None


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 2.0])
def test_the_share_of_mixup_is_drawn_per_image_from_the_beta_distribution(alpha: float) -> None:
    share = mixing(20_000, mixup=alpha).share.double()
    assert share.dtype == torch.float64
    assert 0 <= share.min() <= share.max() <= 1
    assert share.mean() == pytest.approx(0.5, abs=0.02)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_mixup_adds_the_image_before_and_rounds() -> None:
    images = torch.randint(256, (16, 3, 5, 7), dtype=torch.uint8, generator=seeded())
    images = images.contiguous(memory_format=torch.channels_last)
    drawn = mixing(16, mixup=1.0)
    assert drawn.box is None
    for place, share in enumerate(drawn.share.double()):
        exact = share * images[place] + (1 - share) * images[place - 1]
        # float32 may round a half the other way.
        assert (augment.mix(images, drawn)[place] - exact).abs().max() < 0.501
    assert torch.equal(augment.partners(torch.arange(16)), torch.arange(-1, 15) % 16)


def test_mixup_leaves_images_alone_that_are_all_their_own(images: Tensor) -> None:
    white = torch.full((4, 3, 8, 8), 255, dtype=torch.uint8)
    assert torch.equal(augment.mix(white, Mixing(torch.tensor([0.0, 0.3, 0.7, 1.0]), None)), white)
    plain = images.permute(0, 3, 1, 2)
    assert torch.equal(augment.mix(plain, Mixing(torch.ones(64), None)), plain)


def test_cutmix_shows_the_image_before_in_a_box_whose_area_is_its_share() -> None:
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 3, 9, 14)
    drawn = mixing(100, (9, 14), cutmix=1.0)
    mixed = augment.mix(images.contiguous(memory_format=torch.channels_last), drawn)
    for place, (one, share) in enumerate(zip(mixed, drawn.share.tolist(), strict=True)):
        own, other = one == place, one == (place - 1) % 100
        assert torch.all(own ^ other)
        assert own.double().mean().item() == pytest.approx(share)
        shown = other[0]
        assert torch.equal(shown, shown.any(dim=1)[:, None] & shown.any(dim=0)[None])
    assert len({tuple(box) for box in drawn.box.tolist()}) > 80 if drawn.box is not None else False


def test_a_box_of_cutmix_keeps_the_form_of_the_image_and_may_end_at_its_border() -> None:
    drawn = mixing(20_000, (60, 120), cutmix=1.0)
    assert drawn.box is not None
    top, bottom, left, right = drawn.box.unbind(1)
    inside = (top > 0) & (bottom < 60) & (left > 0) & (right < 120)
    assert 0.1 < inside.double().mean() < 0.9
    away = ((right - left) - 2 * (bottom - top))[inside]
    assert away.abs().max() <= 2
    assert (bottom - top).max() <= 60
    # With a uniform share (alpha 1) a box inside the border has half of the area on average.
    assert drawn.share.mean() > 0.5


def test_with_mixup_and_cutmix_a_batch_has_one_of_the_two_by_chance() -> None:
    boxes = [mixing(4, seed=seed, mixup=0.5, cutmix=1.0).box for seed in range(200)]
    assert 70 < sum(box is None for box in boxes) < 130


def test_equal_seeds_mix_alike() -> None:
    for alphas in ({"mixup": 0.4}, {"cutmix": 0.4}):
        assert torch.equal(mixing(64, **alphas).share, mixing(64, **alphas).share)
        assert not torch.equal(mixing(64, **alphas).share, mixing(64, seed=1, **alphas).share)


@pytest.mark.gpu
def test_a_gpu_changes_images_as_the_cpu_does(images: Tensor) -> None:
    device = torch.device("cuda")
    draws = augment.draw(policy("crop_flip_cutout", auto="rand", erasing=0.5), 64, (8, 8), seeded())
    there = augment.apply(images.to(device), draws.to(device, 64), COLOUR.to(device))
    here = augment.apply(images, draws, COLOUR)
    # A coordinate or a fraction may be rounded the other way.
    assert (there.cpu() != here).float().mean() < 0.01
    for drawn in (mixing(64, mixup=1.0), mixing(64, cutmix=1.0)):
        moved = augment.Mixing(drawn.share.to(device), None if drawn.box is None else drawn.box.to(device))
        away = augment.mix(there, moved).cpu().int() - augment.mix(there.cpu(), drawn).int()
        assert away.abs().max() <= 1


def test_resized_images_are_those_of_the_floating_point_path_rounded() -> None:
    images = torch.randint(0, 256, (3, 3, 20, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    small = augment.resized(images.contiguous(memory_format=torch.channels_last), 0.75)
    assert small.shape == (3, 3, 15, 24)
    assert small.dtype == torch.uint8
    exact = torch.nn.functional.interpolate(images.float(), (15, 24), mode="bilinear", antialias=True)
    assert (small.float() - exact).abs().max() <= 1
    constant = torch.full((1, 1, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(augment.resized(constant, 0.5), torch.full((1, 1, 4, 4), 77, dtype=torch.uint8))
