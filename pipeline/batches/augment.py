"""Augmentation of whole batches on the device, with a draw per image.

`draw` makes the random numbers of many images at once, and `apply` changes a batch by its part of them. (A random
transform of torchvision has one draw for a whole batch.) `draw_mixing` and `mix` do the same for mixup and cutmix,
which combine two images of a batch.

The order is that of torchvision's reference recipes: crop and flip, the operations of `augment.auto`, cutout and random
erasing, then mixing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.batches import auto_augment
from pipeline.batches.auto_augment import pixels_at
from pipeline.config import Augment

ERASED_AREA = (0.02, 0.33)
"""Share of the image that random erasing blanks: least and most (Zhong et al. 2017, with torchvision's values)."""
ERASED_ASPECT = (0.3, 3.3)
"""Height divided by width of that box: least and most."""


@dataclass(frozen=True)
class Draws:
    """How each of N images is changed. None: the policy has no such change."""

    padding: int
    """Pixels on each side before the crop."""
    reflects: bool
    """Whether the padding shows the image mirrored at its border; otherwise it has the colour `fill`."""
    flipped: Tensor | None
    """bool [N]"""
    offset: Tensor | None
    """int64 [N, 2]: top and left of the crop in the padded image, 0 to 2 * padding"""
    operation: Tensor | None
    """int64 [N, rounds]: positions in auto_augment.OPERATIONS; always on the CPU, as they decide what runs"""
    strength: Tensor | None
    """float32 [N, rounds]: strengths of those operations"""
    order: Tensor | None
    """int64 [N, rounds, 2]: of auto_augment.orders; None: not sorted yet"""
    cut: Tensor | None
    """int64 [N, 4]: the square that cutout blanks, as a box; it may reach beyond the image"""
    erased: Tensor | None
    """int64 [N, 4]: the box that random erasing blanks; empty for images that are not erased"""

    def __getitem__(self, part: slice) -> "Draws":
        return self._each(lambda tensor: tensor[part])

    def to(self, device: torch.device, together: int) -> "Draws":
        """On the device, to be taken in parts of `together` images, as many as `apply` is given at a time."""
        order = None if self.operation is None else auto_augment.orders(self.operation, together)
        moved = replace(self, order=order)._each(lambda tensor: tensor.to(device))
        return replace(moved, operation=self.operation)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Draws":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)


@dataclass(frozen=True)
class Mixing:
    """How each of the B images of a batch is mixed with the one before it, and the first with the last.

    The order of a training batch is random, so the partner is a random image. It is the image itself only if B is 1.
    """

    share: Tensor
    """float32 [B], 0..1: share of the image itself"""
    box: Tensor | None
    """int64 [B, 4]: for cutmix, where the other image shows; None: mixup, which mixes all pixels"""


def draw(
    policy: Augment,
    count: int,
    size: tuple[int, int] | torch.Size,
    random: torch.Generator,
    alternating: Tensor | None = None,
) -> Draws:
    """Draws for `count` images of `size` (height, width).

    `alternating`, bool [count], says which images are mirrored; None: that is drawn.
    """
    height, width = size
    padding = round(policy.padding * min(height, width))
    flipped = offset = operation = strength = cut = erased = None
    if policy.policy != "none":
        flipped = torch.randint(2, (count,), generator=random).bool() if alternating is None else alternating
    if policy.policy in ("crop_flip", "crop_flip_cutout"):
        offset = torch.randint(2 * padding + 1, (count, 2), generator=random)
    if policy.policy == "crop_flip_cutout":
        side = max(1, round(policy.cutout * min(height, width)))
        top = torch.randint(height, (count,), generator=random) - side // 2
        left = torch.randint(width, (count,), generator=random) - side // 2
        cut = torch.stack([top, top + side, left, left + side], dim=1)
    if policy.auto != "none":
        operation, strength = auto_augment.draw(policy, count, size, random)
    if policy.erasing > 0:
        erased = _draw_erased(policy.erasing, count, size, random)
    return Draws(padding, policy.padding_mode == "reflect", flipped, offset, operation, strength, None, cut, erased)


def colour_of(fill: tuple[float, ...], device: torch.device) -> Tensor:
    """A colour, with a value per channel, 0..1, as uint8 [C] on the device."""
    return (torch.tensor(fill) * 255).round().to(torch.uint8).to(device)


def apply(images: Tensor, draws: Draws, colour: Tensor) -> Tensor:
    """Changes images uint8 [B, H, W, C] by their draws, into uint8 [B, C, H, W] that is channels-last in memory.

    All that is blanked or padded gets the `colour`, the mean of the data, which a network that normalises its images
    sees as 0. For random erasing Zhong et al. try random colours too; a single colour needs no draw per pixel.
    """
    if draws.flipped is not None or draws.offset is not None:
        images = _cropped_and_flipped(images, draws, colour)
    if draws.operation is not None and draws.strength is not None:
        images = auto_augment.apply(images, draws.operation, draws.strength, colour, draws.order)
    for box in (draws.cut, draws.erased):
        if box is not None:
            images = _within(box, colour.expand(images.shape[2:]), images)
    return images.permute(0, 3, 1, 2)


def draw_mixing(
    policy: Augment, count: int, size: tuple[int, int] | torch.Size, random: torch.Generator
) -> Mixing | None:
    """How a batch of `count` images of `size` (height, width) is mixed; None if the policy mixes nothing.

    The share of each image is drawn from Beta(alpha, alpha). The box of cutmix is centred on a random pixel, and its
    share of the area is that of the other image (Yun et al. 2019, section 3.1). It is cut off at the border, and the
    share is then corrected.
    """
    if not policy.mixup and not policy.cutmix:
        return None
    cuts = policy.cutmix > 0 and (not policy.mixup or torch.rand((), generator=random).item() < 0.5)
    alpha = policy.cutmix if cuts else policy.mixup
    # PyTorch's Beta takes no generator.
    beta = np.random.default_rng(int(torch.randint(2**62, (), generator=random)))
    share = torch.from_numpy(beta.beta(alpha, alpha, count)).float()
    if not cuts:
        return Mixing(share, None)
    ends = []
    for side in size:
        middle = torch.randint(side, (count,), generator=random)
        half = (side * (1 - share).sqrt() / 2).floor().long()
        ends += [(middle - half).clamp(min=0), (middle + half).clamp(max=side)]
    top, bottom, left, right = ends
    return Mixing(1 - (bottom - top) * (right - left) / math.prod(size), torch.stack(ends, dim=1))


def draw_mixings(
    policy: Augment,
    batches: int,
    count: int,
    size: tuple[int, int] | torch.Size,
    random: torch.Generator,
    device: torch.device,
) -> list[Mixing | None]:
    """`draw_mixing` for so many batches, on the device: in two transfers, since each one may wait for the device."""
    drawn = [draw_mixing(policy, count, size, random) for _ in range(batches)]
    mixings = [mixing for mixing in drawn if mixing is not None]
    if not mixings:
        return drawn
    shares = torch.stack([mixing.share for mixing in mixings]).to(device).unbind()
    boxes = [mixing.box for mixing in mixings if mixing.box is not None]
    moved = iter(torch.stack(boxes).to(device).unbind() if boxes else ())
    return [
        Mixing(share, None if mixing.box is None else next(moved))
        for share, mixing in zip(shares, mixings, strict=True)
    ]


def mix(images: Tensor, mixing: Mixing) -> Tensor:
    """Mixes images uint8 [B, C, H, W], channels-last in memory. The result is the same; mixup rounds its values."""
    pixels = images.permute(0, 2, 3, 1)
    if mixing.box is not None:
        mixed = _within(mixing.box, partners(pixels), pixels)
    else:
        own = pixels.reshape(len(pixels), -1).float()
        mixed = torch.lerp(partners(own), own, mixing.share[:, None]).add_(0.5).to(torch.uint8).view(pixels.shape)
    return mixed.permute(0, 3, 1, 2)


def partners(batch: Tensor) -> Tensor:
    """The partner of each image, or its label: from images [B, ...] or labels [B] those before."""
    return batch.roll(1, dims=0)


def _draw_erased(probability: float, count: int, size: tuple[int, int] | torch.Size, random: torch.Generator) -> Tensor:
    """Boxes int64 [count, 4] at random positions. The area is uniform in its range, so is the logarithm of the aspect.

    A box that is higher or wider than the image is cut to it, where the paper would draw again. That is rare, and the
    difference is small.
    """
    height, width = size
    chance, area, aspect, down, right = torch.rand((5, count), generator=random)
    pixels = height * width * (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * area)
    lowest, highest = (math.log(aspect) for aspect in ERASED_ASPECT)
    ratio = (lowest + (highest - lowest) * aspect).exp()
    rows = (pixels * ratio).sqrt().round().clamp(1, height)
    columns = (pixels / ratio).sqrt().round().clamp(1, width)
    top, left = (down * (height - rows + 1)).floor(), (right * (width - columns + 1)).floor()
    bottom = torch.where(chance < probability, top + rows, top)
    return torch.stack([top, bottom, left, left + columns], dim=1).long()


def _cropped_and_flipped(images: Tensor, draws: Draws, colour: Tensor) -> Tensor:
    _, height, width, _ = images.shape
    rows = torch.arange(height, dtype=torch.int32, device=images.device)[None]
    columns = torch.arange(width, dtype=torch.int32, device=images.device)[None]
    if draws.flipped is not None:
        columns = torch.where(draws.flipped[:, None], width - 1 - columns, columns)
    if draws.offset is not None:
        moved = draws.offset.int() - draws.padding
        rows, columns = rows + moved[:, :1], columns + moved[:, 1:]
    if draws.reflects:
        rows, columns = _reflected(rows, height), _reflected(columns, width)
    return pixels_at(images, rows[:, :, None], columns[:, None, :], colour)


def _reflected(positions: Tensor, length: int) -> Tensor:
    """Positions mirrored into 0..`length` - 1 at both ends; they may lie up to `length` - 1 outside."""
    last = length - 1
    return last - (last - positions.abs()).abs()


def _within(box: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """uint8 [B, H, W, C]: `inside` ([B, H, W, C] or [W, C]) in an image's box, `outside` elsewhere.

    A box, int64 [B, 4], is its first row and the row after its last, then likewise for columns. Bytes are selected by
    bit operations on rows of W * C bytes, which is several times as fast as torch.where per pixel.
    """
    _, height, width, channels = outside.shape
    rows = torch.arange(height, device=box.device)
    columns = torch.arange(width, device=box.device).repeat_interleave(channels)
    in_rows = ((rows >= box[:, :1]) & (rows < box[:, 1:2])).to(torch.uint8) * 255
    in_columns = ((columns >= box[:, 2:3]) & (columns < box[:, 3:])).to(torch.uint8) * 255
    lines = outside.flatten(2)
    differ = (lines ^ inside.flatten(-2)) & in_rows[:, :, None] & in_columns[:, None, :]
    return (lines ^ differ).view(outside.shape)


def resized(images: Tensor, side: float) -> Tensor:
    """Images uint8 [B, C, H, W] with each side multiplied by `side`, bilinear with antialiasing.

    Early epochs learn coarse features, which costs less on small images (progressive resizing: Howard 2018, "Training
    Imagenet in 3 hours for USD 25").
    """
    size = [max(1, round(side * length)) for length in images.shape[2:]]
    if images.device.type == "cpu":
        return F.interpolate(images, size, mode="bilinear", antialias=True)
    # Other devices have it for floats only.
    made = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return made.round().clamp(0, 255).to(torch.uint8)
