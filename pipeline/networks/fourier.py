"""3x3 convolutions of small images by their Fourier transform, which takes a third of the multiplications.

A convolution is a product of spectra, frequency by frequency (Mathieu et al. 2013, arXiv 1312.5851). On CPUs this is
faster than Winograd's method (Zlateski et al. 2018, arXiv 1809.07851). For images of a few pixels the transform is one
small matrix, so that all of it is matrix products, which a CPU does best. The result is that of
`torch.nn.functional.conv2d` except for rounding errors, which are as large as there.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

_MOST_PIXELS = 10
"""Pixels, to a side. The transform of larger images costs more than it saves."""
_LEAST_IMAGES = 200
"""Images of a batch. Kernels are transformed once per step, which pays only with so many images."""
_LEAST_CHANNELS = 96
"""Geometric mean of input and output channels. With fewer, memory access takes most of the time."""


def pays(features: Tensor, weight: Tensor) -> bool:
    """Whether `convolve` with its gradients is faster than a direct convolution, as benchmarks/fourier.py measures."""
    images, _, height, width = features.shape
    return (
        features.device.type == "cpu"
        and images >= _LEAST_IMAGES
        and max(height, width) <= _MOST_PIXELS
        and math.sqrt(weight.shape[0] * weight.shape[1]) >= _LEAST_CHANNELS
    )


def convolve(features: Tensor, weight: Tensor) -> Tensor:
    """[N, inputs, H, W], weight [outputs, inputs, 3, 3] -> [N, outputs, H, W], with zero padding of one pixel.

    Under autocast it computes in autocast's type for the device.
    """
    kind = features.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else features.dtype
    images, inputs, height, width = features.shape
    outputs = len(weight)
    waves = _waves(height, width)
    transform = waves.pixels.to(features.device, dtype)
    with torch.autocast(kind, enabled=False):
        pixels = features.to(dtype).permute(0, 2, 3, 1).reshape(images, height * width, inputs)
        spectra = transform @ pixels
        kernels = weight.permute(2, 3, 1, 0).reshape(9, inputs * outputs)
        alone, cosines, sines = (
            (part.to(kernels) @ kernels).to(dtype).view(-1, inputs, outputs)
            for part in (waves.alone, waves.cosines, waves.sines)
        )
        # For rows [cosine, sine] of the images: the product of a complex number and the conjugate of another.
        pairs = torch.cat([torch.cat([cosines, -sines], dim=2), torch.cat([sines, cosines], dim=2)], dim=1)
        products: Tensor = _Products.apply(spectra, alone, pairs)
        convolved = transform.mT @ products
    return convolved.view(images, height, width, outputs).permute(0, 3, 1, 2)


class _Waves(NamedTuple):
    """The frequencies of images with one more row and column of zeros.

    The transform is periodic, so that those zeros pad the image on all sides. Most frequencies have a mirror frequency;
    such a pair has a cosine and a sine. A few are their own mirror and have only a cosine.
    """

    pixels: Tensor
    """[frequencies, H * W], orthonormal: first those without a pair, then cosine and sine of each pair."""
    alone: Tensor
    """[alone, 9]: cosines of those without a pair, at the 9 offsets of a kernel"""
    cosines: Tensor
    """[pairs, 9], at the same offsets"""
    sines: Tensor
    """[pairs, 9], at the same offsets"""


@functools.lru_cache(maxsize=64)
def _waves(height: int, width: int) -> _Waves:
    """The frequencies of images of this size, in float64."""
    rows, columns = height + 1, width + 1
    # A frequency and its mirror frequency, both numbered row by row.
    mirrors = {
        row * columns + column: (-row % rows) * columns + (-column % columns)
        for row in range(rows)
        for column in range(columns)
    }
    alone = [number for number, mirror in mirrors.items() if number == mirror]
    pairs = [number for number, mirror in mirrors.items() if number < mirror]

    def angles(frequencies: list[int], rows_at: Tensor, columns_at: Tensor) -> Tensor:
        numbers = torch.tensor(frequencies)[:, None, None]
        turns = (numbers // columns) * rows_at[:, None] / rows + (numbers % columns) * columns_at / columns
        return 2 * math.pi * turns.flatten(1)

    here, offsets = (_whole(0, height), _whole(0, width)), (_whole(-1, 2), _whole(-1, 2))
    of_pairs = angles(pairs, *here)
    pixels = torch.cat(
        [
            angles(alone, *here).cos(),
            math.sqrt(2) * torch.stack([of_pairs.cos(), of_pairs.sin()], dim=1).flatten(0, 1),
        ]
    ) / math.sqrt(rows * columns)
    return _Waves(pixels, angles(alone, *offsets).cos(), angles(pairs, *offsets).cos(), angles(pairs, *offsets).sin())


def _whole(first: int, end: int) -> Tensor:
    return torch.arange(first, end, dtype=torch.float64)


class _Products(torch.autograd.Function):
    """spectra [N, F, inputs], alone [A, inputs, outputs], pairs [P, 2 inputs, 2 outputs] -> [N, F, outputs].

    F is A + 2 P. Each product writes directly to its part of the result; a batched product would copy the spectra.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, spectra: Tensor, alone: Tensor, pairs: Tensor) -> Tensor:
        ctx.save_for_backward(spectra, alone, pairs)
        products = spectra.new_empty(*spectra.shape[:2], alone.shape[2])
        for factors, weights, into in zip(
            _matrices(spectra, alone), [*alone, *pairs], _matrices(products, alone), strict=True
        ):
            torch.mm(factors, weights, out=into)
        return products

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spectra, alone, pairs = ctx.saved_tensors  # type: ignore[attr-defined]
        gradient = gradient.contiguous()
        of_spectra, of_alone, of_pairs = (torch.empty_like(tensor) for tensor in (spectra, alone, pairs))
        for factors, weights, coming, of_factors, of_weights in zip(
            _matrices(spectra, alone),
            [*alone, *pairs],
            _matrices(gradient, alone),
            _matrices(of_spectra, alone),
            [*of_alone, *of_pairs],
            strict=True,
        ):
            torch.mm(coming, weights.T, out=of_factors)
            torch.mm(factors.T, coming, out=of_weights)
        return of_spectra, of_alone, of_pairs


def _matrices(spectra: Tensor, alone: Tensor) -> list[Tensor]:
    """Views of the spectra [N, F, C]: [N, C] for each frequency without a pair, then [N, 2 C] for each pair."""
    images, _, channels = spectra.shape
    split = len(alone)
    return [
        *spectra[:, :split].unbind(1),
        *spectra[:, split:].view(images, -1, 2 * channels).unbind(1),
    ]
