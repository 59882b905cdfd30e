"""Augmentation of whole batches on the device, with a draw of its own for each picture.

Drawing and applying are apart: `draw` makes the random numbers of many pictures at once, `apply` changes a batch by
its part of them. (A random transform of torchvision, given a batch, treats all of its pictures alike.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import Augment


@dataclass(frozen=True)
class Draws:
    """How each of N pictures is changed; None where the policy does not."""

    padding: int
    """Pixels on each side before the crop."""
    side: int
    """Pixels of the side of the cutout's square."""
    flipped: Tensor | None
    """bool [N]"""
    offset: Tensor | None
    """int64 [N, 2]: top and left of the crop in the padded picture, 0 to 2 * padding"""
    centre: Tensor | None
    """int64 [N, 2]: row and column of the middle of the square"""

    def __getitem__(self, part: slice) -> "Draws":
        return self._each(lambda tensor: tensor[part])

    def to(self, device: torch.device) -> "Draws":
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Draws":
        flipped, offset, centre = (
            None if tensor is None else change(tensor) for tensor in (self.flipped, self.offset, self.centre)
        )
        return Draws(self.padding, self.side, flipped, offset, centre)


def draw(policy: Augment, count: int, size: tuple[int, int] | torch.Size, random: torch.Generator) -> Draws:
    """Draws for `count` pictures of `size` (height, width)."""
    height, width = size
    padding = round(policy.padding * min(height, width))
    crops = policy.policy in ("crop_flip", "crop_flip_cutout")
    cuts = policy.policy == "crop_flip_cutout"
    return Draws(
        padding=padding,
        side=max(1, round(policy.cutout * min(height, width))),
        flipped=None if policy.policy == "none" else torch.randint(2, (count,), generator=random).bool(),
        offset=torch.randint(2 * padding + 1, (count, 2), generator=random) if crops else None,
        centre=torch.stack(
            [torch.randint(height, (count,), generator=random), torch.randint(width, (count,), generator=random)], dim=1
        )
        if cuts
        else None,
    )


def apply(images: Tensor, draws: Draws, fill: tuple[float, ...]) -> Tensor:
    """Changes uint8 pictures [B, H, W, C] by their draws, into uint8 [B, C, H, W] that is channels-last in memory.

    Padding and cutout take the colour `fill` (per channel, 0..1), the mean of the data: it is what a network that
    normalises its input sees as nothing.
    """
    count, height, width, _ = images.shape
    device = images.device
    colour = (torch.tensor(fill, device=device) * 255).round().to(torch.uint8)
    rows = torch.arange(height, device=device).expand(count, height)
    columns = torch.arange(width, device=device).expand(count, width)
    if draws.flipped is not None:
        columns = torch.where(draws.flipped[:, None], width - 1 - columns, columns)
    if draws.offset is not None:
        images = _padded(images, draws.padding, colour)
        rows = rows + draws.offset[:, :1]
        columns = columns + draws.offset[:, 1:]
    if draws.flipped is not None or draws.offset is not None:
        picture = torch.arange(count, device=device)[:, None, None]
        images = images[picture, rows[:, :, None], columns[:, None, :]]
    if draws.centre is not None:
        hit_rows = _within(torch.arange(height, device=device), draws.centre[:, :1], draws.side)
        hit_columns = _within(torch.arange(width, device=device), draws.centre[:, 1:], draws.side)
        images = torch.where((hit_rows[:, :, None] & hit_columns[:, None, :])[..., None], colour, images)
    return images.permute(0, 3, 1, 2)


def _padded(images: Tensor, padding: int, colour: Tensor) -> Tensor:
    """[B, H, W, C] -> [B, H + 2 * padding, W + 2 * padding, C] with a border of `colour`."""
    padded = colour.expand(
        images.shape[0], images.shape[1] + 2 * padding, images.shape[2] + 2 * padding, images.shape[3]
    ).clone()
    padded[:, padding : padding + images.shape[1], padding : padding + images.shape[2]] = images
    return padded


def _within(positions: Tensor, centre: Tensor, side: int) -> Tensor:
    """bool [B, len(positions)]: which positions a square of `side` around each centre [B, 1] covers."""
    first = centre - side // 2
    return (positions >= first) & (positions < first + side)
