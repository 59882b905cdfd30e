"""TrivialAugment and RandAugment on whole batches, uint8 in, uint8 out. Each image draws its own operations.

Both draw from the same fourteen operations. The images of a batch are sorted by operation, so that each operation runs
once, over all images that drew it. The five geometric operations are one warp with a matrix per image. The six
operations that depend on nothing but a pixel's value are one lookup, with a curve per image and channel. Colour and
sharpness run by themselves.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import Augment

LEVELS = 31
WARPS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
TONES = ("brightness", "contrast", "posterize", "solarize", "autocontrast", "equalize")
OPERATIONS = ("identity", *WARPS, *TONES, "colour", "sharpness")
SIGNED = (*WARPS, "brightness", "contrast", "colour", "sharpness")
"""The operations whose direction is drawn too."""


def strengths(auto: str, size: tuple[int, int] | torch.Size) -> Tensor:
    """float32 [14, 31]: how strong each operation is at each level, for images of `size` (height, width).

    Shears are slopes, translations whole pixels, rotations degrees, solarize a threshold, posterize the number of bits
    that stay. The strength of the others is a share, where 0 leaves the image unchanged.

    trivial has the wide ranges of Mueller & Hutter 2021, with translations of up to 32 pixels, or the side if that is
    less. rand has the ranges of Cubuk et al. 2019 as in torchvision, with translations of up to 150/331 of the side.
    """
    height, width = size
    if auto == "trivial":
        shear, rotation, share, bits = 0.99, 135.0, 0.99, 6
        down, right = float(min(32, height)), float(min(32, width))
    else:
        shear, rotation, share, bits = 0.3, 30.0, 0.9, 4
        down, right = height * 150 / 331, width * 150 / 331
    level = torch.linspace(0, 1, LEVELS)
    table = torch.zeros(len(OPERATIONS), LEVELS)
    for name, values in {
        "shear_x": shear * level,
        "shear_y": shear * level,
        "translate_x": (right * level).floor(),
        "translate_y": (down * level).floor(),
        "rotate": rotation * level,
        "brightness": share * level,
        "contrast": share * level,
        "posterize": 8 - (bits * level).round(),
        "solarize": 255 * (1 - level),
        "colour": share * level,
        "sharpness": share * level,
    }.items():
        table[OPERATIONS.index(name)] = values
    return table


def draw(
    policy: Augment, count: int, size: tuple[int, int] | torch.Size, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Operations int64 [count, rounds] and their strengths float32 [count, rounds], signed, for `apply`."""
    shape = (count, policy.operations if policy.auto == "rand" else 1)
    operation = torch.randint(len(OPERATIONS), shape, generator=random)
    signed = torch.tensor([name in SIGNED for name in OPERATIONS])[operation]
    negative = torch.randint(2, shape, generator=random).bool() & signed
    if policy.auto == "rand":
        level = torch.full(shape, policy.magnitude)
    else:
        level = torch.randint(LEVELS, shape, generator=random)
    strength = strengths(policy.auto, size)[operation, level]
    return operation, torch.where(negative, -strength, strength)


def orders(operation: Tensor, together: int) -> Tensor:
    """int64 [N, rounds, 2]: for parts of `together` images, their order by operation in each round, and the way back.

    To be computed before the images are there, so that no transfer of it waits for the device.
    """
    sorted_ = [part.argsort(dim=0, stable=True) for part in torch.split(operation, together)]
    return torch.cat([torch.stack([order, order.argsort(dim=0)], dim=2) for order in sorted_])


def apply(images: Tensor, operation: Tensor, strength: Tensor, colour: Tensor, order: Tensor | None = None) -> Tensor:
    """Changes images uint8 [B, H, W, C] by their operations, round by round.

    `operation` has to be on the CPU, wherever the images are: it decides what runs, and reading it must not wait for
    a device. `colour`, uint8 [C], fills what lies outside of an image. `order` is that of `orders` for all of these
    images; None: it is computed.
    """
    if order is None:
        order = orders(operation, len(operation)).to(images.device)
    for kinds, signed, sorting in zip(operation.numpy().T, strength.unbind(1), order.unbind(1), strict=True):
        images = _round(images, kinds, signed, colour, sorting)
    return images


def pixels_at(images: Tensor, rows: Tensor, columns: Tensor, colour: Tensor) -> Tensor:
    """The pixels at `rows` and `columns`, as uint8 [B, H', W', C]; pixels outside of an image have `colour`.

    `rows` and `columns` hold whole numbers, int32 or float32 alike, and broadcast to [B, H', W'].
    """
    _, height, width, channels = images.shape
    # A border of one pixel stands for all that is outside. PyTorch pads fastest with 0, so the colour is XORed into all
    # pixels before, which turns it into 0, and XORed out again at the end.
    line = colour.repeat(width)
    padded = F.pad(images.flatten(2) ^ line, (channels, channels, 1, 1)).view(-1, channels)
    index = rows.clamp(-1, height) * (width + 2) + columns.clamp(-1, width)
    area = (height + 2) * (width + 2)
    first = torch.arange(len(images), dtype=torch.int32, device=images.device) * area + width + 3
    index = index.int() + first[:, None, None]
    found = padded.index_select(0, index.view(-1)).view(*index.shape[:2], -1)
    return (found ^ colour.repeat(index.shape[2])).view(*index.shape, channels)


def _round(images: Tensor, kinds: npt.NDArray[np.int64], strength: Tensor, colour: Tensor, sorting: Tensor) -> Tensor:
    """One operation per image; `kinds` [B], `strength` float32 [B], `sorting` int64 [B, 2]."""
    order, back = sorting.unbind(1)
    images, strength = images.index_select(0, order), strength.index_select(0, order)
    ends = [0, *np.bincount(kinds, minlength=len(OPERATIONS)).cumsum().tolist()]
    parts = {name: slice(*part) for name, part in zip(OPERATIONS, pairwise(ends), strict=True) if part[0] < part[1]}

    warps, tones = ([name for name in group if name in parts] for group in (WARPS, TONES))
    if warps:
        part = slice(parts[warps[0]].start, parts[warps[-1]].stop)
        matrices = [_matrices(name, strength[parts[name]], images.shape[1:3]) for name in warps]
        images[part] = _warped(images[part], torch.cat(matrices), colour)
    if tones:
        part = slice(parts[tones[0]].start, parts[tones[-1]].stop)
        curves = [_curves(name, images[parts[name]], strength[parts[name]]) for name in tones]
        images[part] = _looked_up(images[part], torch.cat(curves))
    for name, change in (("colour", _coloured), ("sharpness", _sharpened)):
        if name in parts:
            images[parts[name]] = change(images[parts[name]], 1 + strength[parts[name]])
    return images.index_select(0, back)


def _matrices(name: str, strength: Tensor, size: torch.Size) -> Tensor:
    """float32 [B, 2, 3]: from a point (x, y, 1) of the changed image, in pixels, to the point of the original.

    Shears keep the upper left corner fixed, as in the papers' programs. Rotations are counter-clockwise and keep the
    centre fixed.
    """
    height, width = size
    matrices = torch.eye(2, 3, device=strength.device).repeat(len(strength), 1, 1)
    if name == "shear_x":
        matrices[:, 0, 1] = strength
    elif name == "shear_y":
        matrices[:, 1, 0] = strength
    elif name == "translate_x":
        matrices[:, 0, 2] = -strength
    elif name == "translate_y":
        matrices[:, 1, 2] = -strength
    else:
        cosine, sine = strength.deg2rad().cos(), strength.deg2rad().sin()
        matrices[:, 0] = torch.stack([cosine, -sine, (width - cosine * width + sine * height) / 2], dim=1)
        matrices[:, 1] = torch.stack([sine, cosine, (height - sine * width - cosine * height) / 2], dim=1)
    return matrices


def _warped(images: Tensor, matrices: Tensor, colour: Tensor) -> Tensor:
    """Moves pixels by the matrices, each pixel from the nearest one.

    The programs of both papers take the nearest pixel too. It adds no new values, and bytes are copied. F.grid_sample
    needs images in floating point and takes eight times as long.
    """
    _, height, width, _ = images.shape
    x = torch.arange(width, device=images.device) + 0.5
    y = torch.arange(height, device=images.device) + 0.5
    at_x, at_y = (
        (row[:, :1] * x + row[:, 2:])[:, None, :] + (row[:, 1:2] * y)[:, :, None] for row in matrices.unbind(1)
    )
    return pixels_at(images, at_y.floor_(), at_x.floor_(), colour)


def _curves(name: str, images: Tensor, strength: Tensor) -> Tensor:
    """uint8 [B, C, 256]: the new value of each value."""
    count, _, _, channels = images.shape
    values = torch.arange(256, device=images.device)
    strength = strength[:, None, None]
    if name == "brightness":
        curves = (1 + strength) * values
    elif name == "contrast":
        mean = _grey(images).mean(dim=(1, 2))[:, :, None]
        curves = mean + (1 + strength) * (values - mean)
    elif name == "posterize":
        curves = values - values % 2 ** (8 - strength)
    elif name == "solarize":
        curves = torch.where(values >= strength, 255 - values, values)
    elif name == "autocontrast":
        pixels = images.view(count, -1, channels)
        low, high = pixels.amin(dim=1)[:, :, None].float(), pixels.amax(dim=1)[:, :, None].float()
        curves = torch.where(high > low, (values - low) * (255 / (high - low)), values)
    else:
        curves = _equalizing(images)
    return curves.clamp(0, 255).to(torch.uint8).expand(count, channels, 256)


def _equalizing(images: Tensor) -> Tensor:
    """int32 [B, C, 256]: curves that make all values about equally frequent, computed as in Pillow."""
    count, height, width, channels = images.shape
    index = _places(images).long()
    ones = torch.ones_like(index, dtype=torch.int32)
    histogram = torch.zeros(count * channels * 256, dtype=torch.int32, device=images.device)
    histogram = histogram.scatter_add_(0, index, ones).view(count, channels, 256)
    highest = images.view(count, -1, channels).amax(dim=1).long()[:, :, None]
    # Pixels per step of the new scale, without those of the highest value.
    step = (height * width - histogram.gather(2, highest)) // 255
    below = histogram.cumsum(dim=2) - histogram
    return torch.where(step > 0, (below + step // 2) // step.clamp(min=1), torch.arange(256, device=images.device))


def _looked_up(images: Tensor, curves: Tensor) -> Tensor:
    return curves.flatten().index_select(0, _places(images)).view(images.shape)


def _places(images: Tensor) -> Tensor:
    """int32 [B * H * W * C]: where each value is in a table [B, C, 256]."""
    count, _, width, channels = images.shape
    tables = torch.arange(count * channels, dtype=torch.int32, device=images.device) * 256
    return images.flatten(2).int().add_(tables.view(count, channels).repeat(1, width)[:, None]).view(-1)


def _grey(images: Tensor) -> Tensor:
    """float32 [B, H, W, 1], whole numbers: the luma (ITU-R 601-2) of three channels, else the mean of all."""
    channels = images.unsqueeze(-1).float().unbind(3)
    weights = (0.299, 0.587, 0.114) if len(channels) == 3 else (1 / len(channels),) * len(channels)
    # Not as a matrix product, which a GPU may round otherwise, to ten bits in TF32.
    grey = channels[0] * weights[0]
    for channel, weight in zip(channels[1:], weights[1:], strict=True):
        grey = grey + channel * weight
    # In float32 the weights' sum is a little short of 1; the addition keeps white white.
    return grey.add_(1e-3).floor_()


def _coloured(images: Tensor, share: Tensor) -> Tensor:
    """Interpolates between the image in grey (share 0) and the image itself (1), or extrapolates."""
    return _between(_grey(images), images.float(), share)


def _sharpened(images: Tensor, share: Tensor) -> Tensor:
    """Interpolates between a smoothed image (share 0) and the image itself (1), or extrapolates.

    Smoothed as in Pillow: the mean of 3 x 3 pixels in which the middle one counts five times. Pixels at the border
    stay as they are.
    """
    if min(images.shape[1:3]) < 3:
        return images
    step = images.shape[3]
    pixels = images.flatten(2).float()
    inner = pixels[:, 1:-1, step:-step]
    smooth = (pixels[:, :-2] + pixels[:, 1:-1]).add_(pixels[:, 2:])
    smooth = (smooth[..., : -2 * step] + smooth[..., step:-step]).add_(smooth[..., 2 * step :])
    smooth = smooth.add_(inner, alpha=4).mul_(1 / 13).round_()
    changed = images.flatten(2).clone()
    changed[:, 1:-1, step:-step] = _between(smooth, inner, share)
    return changed.view(images.shape)


def _between(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    share = share.view(-1, *(1,) * (end.ndim - 1))
    return torch.lerp(start, end, share).clamp_(0, 255).to(torch.uint8)
