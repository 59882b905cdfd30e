import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as reference

from pipeline.batches import auto_augment
from pipeline.batches.auto_augment import OPERATIONS, SIGNED, strengths
from pipeline.config import Augment

COLOUR = torch.tensor([120, 60, 200], dtype=torch.uint8)
FILL = COLOUR.tolist()


def policy(auto: str, operations: int = 2, magnitude: int = 9) -> Augment:
    return Augment(
        policy="none",
        flip="random",
        padding=0.125,
        padding_mode="constant",
        cutout=0.5,
        auto=auto,  # type: ignore[arg-type]
        operations=operations,
        magnitude=magnitude,
        erasing=0.0,
        mixup=0.0,
        small_side=1.0,
        small_until=0.5,
        cutmix=0.0,
    )


def smooth(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    """uint8 [height, width, channels] with edges and slopes, of few dark and few bright values, as a photo is."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 5, 4, generator=random)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    noise = torch.rand(1, channels, height, width, generator=random) * 0.1
    return ((0.05 + 0.8 * fine + noise) * 255).to(torch.uint8)[0].permute(1, 2, 0).contiguous()


def changed(images: Tensor, name: str, strength: float, colour: Tensor = COLOUR) -> Tensor:
    """All of `images` [B, H, W, C] through one operation."""
    shape = (len(images), 1)
    kind = torch.full(shape, OPERATIONS.index(name))
    return auto_augment.apply(images, kind, torch.full(shape, strength), colour)


def sheared(across: float, down: float) -> Callable[[Tensor], Tensor]:
    shear = [math.degrees(math.atan(across)), math.degrees(math.atan(down))]
    return lambda one: reference.affine(one, 0.0, [0, 0], 1.0, shear, fill=FILL, center=[0, 0])


def moved(right: int, down: int) -> Callable[[Tensor], Tensor]:
    return lambda one: reference.affine(one, 0.0, [right, down], 1.0, [0.0, 0.0], fill=FILL)


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("identity", 0.7, lambda one: one),
        ("shear_x", 0.33, sheared(0.33, 0)),
        ("shear_x", -0.61, sheared(-0.61, 0)),
        ("shear_y", 0.27, sheared(0, 0.27)),
        ("shear_y", -0.99, sheared(0, -0.99)),
        ("translate_x", 7.0, moved(7, 0)),
        ("translate_x", -30.0, moved(-30, 0)),
        ("translate_y", 5.0, moved(0, 5)),
        ("translate_y", -9.0, moved(0, -9)),
        ("rotate", 27.0, lambda one: reference.rotate(one, 27.0, fill=FILL)),
        ("rotate", -123.0, lambda one: reference.rotate(one, -123.0, fill=FILL)),
        ("brightness", 0.6, lambda one: reference.adjust_brightness(one, 1.6)),
        ("brightness", -0.6, lambda one: reference.adjust_brightness(one, 0.4)),
        ("contrast", 0.9, lambda one: reference.adjust_contrast(one, 1.9)),
        ("contrast", -0.5, lambda one: reference.adjust_contrast(one, 0.5)),
        ("colour", 0.9, lambda one: reference.adjust_saturation(one, 1.9)),
        ("colour", -0.9, lambda one: reference.adjust_saturation(one, 0.1)),
        ("sharpness", 0.9, lambda one: reference.adjust_sharpness(one, 1.9)),
        ("sharpness", -0.9, lambda one: reference.adjust_sharpness(one, 0.1)),
        ("posterize", 3.0, lambda one: reference.posterize(one, 3)),
        ("solarize", 100.3, lambda one: reference.solarize(one, 100.3)),
        ("autocontrast", 0.0, reference.autocontrast),
        ("equalize", 0.0, reference.equalize),
    ],
)
@pytest.mark.parametrize("size", [(32, 32), (27, 40)])
def test_an_operation_does_what_that_of_torchvision_does(
    name: str, strength: float, expected: Callable[[Tensor], Tensor], size: tuple[int, int]
) -> None:
    image = smooth(*size)
    ours = changed(image[None], name, strength)[0].int()
    theirs = expected(image.permute(2, 0, 1)).permute(1, 2, 0).int()
    away = (ours - theirs).abs()
    # One pixel in a hundred may differ where it lies between two, and values by one where a fraction is cut off.
    allowed = 0 if name in ("shear_x", "shear_y", "rotate") else 2 if name in ("contrast", "colour") else 1
    assert (away > allowed).float().mean() <= 0.01
    assert name == "identity" or not torch.equal(ours, image.int())


def test_a_single_channel_goes_through_every_operation() -> None:
    image = smooth(16, 12, channels=1)
    grey = image.permute(2, 0, 1)
    ours = {name: changed(image[None], name, 0.5, COLOUR[:1])[0].permute(2, 0, 1) for name in OPERATIONS}
    assert all(one.shape == grey.shape and one.dtype == torch.uint8 for one in ours.values())
    assert torch.equal(ours["colour"], grey), "there is no colour to change"
    for name, theirs in (
        ("equalize", reference.equalize(grey)),
        ("contrast", reference.adjust_contrast(grey, 1.5)),
        ("sharpness", reference.adjust_sharpness(grey, 1.5)),
    ):
        assert (ours[name].int() - theirs.int()).abs().max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 2, 3), (2, 9, 1), (5, 3, 4)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_smallest_images_and_any_channels_survive_every_operation(name: str, shape: tuple[int, ...]) -> None:
    image = torch.randint(256, (2, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = changed(image, name, 0.4, torch.zeros(shape[2], dtype=torch.uint8))
    assert out.shape == image.shape
    assert out.dtype == torch.uint8


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("name", ["contrast", "autocontrast", "equalize", "colour", "sharpness"])
def test_an_image_of_one_value_has_nothing_to_stretch(name: str, value: int) -> None:
    flat = torch.full((1, 8, 8, 3), value, dtype=torch.uint8)
    assert torch.equal(changed(flat, name, 0.9), flat)


@pytest.mark.parametrize("name", OPERATIONS)
def test_at_no_strength_a_signed_operation_changes_nothing(name: str) -> None:
    image = smooth(16, 16)[None]
    if name in SIGNED:
        assert torch.equal(changed(image, name, 0.0), image)


def test_what_comes_in_from_outside_is_of_the_colour() -> None:
    image = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    out = changed(image, "translate_x", 3.0)
    assert torch.equal(out[0, :, :3], COLOUR.expand(8, 3, 3))
    assert not out[0, :, 3:].any()


def test_each_image_of_a_batch_goes_through_its_own_operations_in_their_order() -> None:
    images = torch.stack([smooth(16, 16, seed=number) for number in range(64)])
    kinds, strength = auto_augment.draw(policy("rand", operations=3), 64, (16, 16), torch.Generator().manual_seed(0))
    whole = auto_augment.apply(images, kinds, strength, COLOUR)
    for place in range(64):
        alone = images[place : place + 1]
        for kind, signed in zip(kinds[place], strength[place], strict=True):
            alone = changed(alone, OPERATIONS[kind], signed.item())
        assert torch.equal(whole[place], alone[0])


def test_applying_leaves_the_images_that_it_was_given() -> None:
    images = torch.stack([smooth(8, 8)] * 14)
    before = images.clone()
    auto_augment.apply(images, torch.arange(14)[:, None], torch.full((14, 1), 0.5), COLOUR)
    assert torch.equal(images, before)


def test_trivial_draws_one_operation_and_one_of_31_strengths_evenly() -> None:
    kinds, strength = auto_augment.draw(policy("trivial"), 28_000, (32, 32), torch.Generator().manual_seed(0))
    assert kinds.shape == strength.shape == (28_000, 1)
    counts = kinds.flatten().bincount(minlength=14)
    assert counts.min() > 1_800
    assert counts.max() < 2_200
    rotated = strength[kinds == OPERATIONS.index("rotate")]
    torch.testing.assert_close(rotated.abs().unique(), torch.linspace(0, 135, 31))
    assert 0.4 < (rotated < 0).float().mean() < 0.55
    assert (strength[kinds == OPERATIONS.index("solarize")] >= 0).all()


def test_rand_draws_as_many_operations_as_asked_all_of_the_magnitude() -> None:
    random = torch.Generator().manual_seed(0)
    kinds, strength = auto_augment.draw(policy("rand", operations=3, magnitude=15), 1_000, (32, 32), random)
    assert kinds.shape == (1_000, 3)
    expected = strengths("rand", (32, 32))[:, 15][kinds]
    assert torch.equal(strength.abs(), expected)
    assert (strength < 0).any()


def test_the_strengths_are_those_of_the_papers() -> None:
    wide, rand = (strengths(auto, (32, 64)) for auto in ("trivial", "rand"))
    highest = {name: (wide[kind, 30].item(), rand[kind, 30].item()) for kind, name in enumerate(OPERATIONS)}
    expected = {
        **dict.fromkeys(("identity", "autocontrast", "equalize"), (0.0, 0.0)),
        **dict.fromkeys(("shear_x", "shear_y"), (0.99, 0.3)),
        **dict.fromkeys(("brightness", "contrast", "colour", "sharpness"), (0.99, 0.9)),
        "translate_x": (32, 29),
        "translate_y": (32, 14),
        "rotate": (135, 30),
        "posterize": (2, 4),
        "solarize": (0, 0),
    }
    assert highest == {name: pytest.approx(values) for name, values in expected.items()}
    assert wide[OPERATIONS.index("posterize"), 0] == 8
    assert strengths("trivial", (8, 8))[OPERATIONS.index("translate_y"), 30] == 8, "no further than out of sight"
