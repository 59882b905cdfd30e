"""Matrices made orthogonal, for Muon: by the Newton-Schulz iteration, many matrices at a time."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024), chosen for a steep slope at 0: five steps are enough."""
_NEWTON_SCHULZ_STEPS = 5
_WORTH = 3e9
"""Multiplications that a GPU does in the time of a bucket's launches, by an estimate for an H200: padding that costs
more is not worth it."""


def orthogonal(matrices: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """Matrices [N, rows, columns] with singular values of about 1 (0.7 to 1.2) and the same singular vectors.

    By the Newton-Schulz iteration of Jordan et al. 2024, with matrix products in `precision`. Singular values that are
    tiny compared with the largest stay below that range. Rows and columns of zeros stay zeros.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    made = (matrices.mT if tall else matrices).to(precision)
    made = made / made.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        square = torch.bmm(made, made.mT)
        made = torch.baddbmm(made, torch.baddbmm(square, square, square, beta=b, alpha=c), made, beta=a)
    return (made.mT if tall else made).to(matrices.dtype)


def step_size(kernel: Tensor) -> float:
    """What an orthogonal step of a kernel is multiplied by: sqrt(max(1, outputs / inputs))."""
    return math.sqrt(max(1.0, len(kernel) / kernel[0].numel()))


def by_shape(moves: Sequence[Tensor], precision: torch.dtype) -> list[Tensor]:
    """The moves of kernels made orthogonal and scaled, those of one shape together: without a needless product."""
    shapes: dict[torch.Size, list[int]] = defaultdict(list)
    for index, move in enumerate(moves):
        shapes[move.shape].append(index)
    made = list(moves)
    for shape, indices in shapes.items():
        matrices = torch.stack([moves[index].flatten(1) for index in indices])
        scale = step_size(moves[indices[0]])
        for index, matrix in zip(indices, orthogonal(matrices, precision), strict=True):
            made[index] = scale * matrix.reshape(shape)
    return made


class Packed:
    """Room for the moves of some kernels, where all are made orthogonal by few calls: for a GPU.

    It needs longer to be told of a product of small matrices than to compute it. So matrices are padded with zeros to
    the size of others and multiplied with them. A tall one lies transposed. Views and positions are made once.
    """

    def __init__(self, kernels: Sequence[Tensor]) -> None:
        device, kind = kernels[0].device, kernels[0].dtype
        flat = torch.zeros(sum(kernel.numel() for kernel in kernels), dtype=kind, device=device)
        sizes = [kernel.numel() for kernel in kernels]
        self.moves = [
            part.as_strided(kernel.shape, _strides(kernel), part.storage_offset())
            for part, kernel in zip(torch.split(flat, sizes), kernels, strict=True)
        ]
        """One for each kernel, in its shape and memory format: to be filled before `make_orthogonal`."""
        self._flat = flat
        groups = _buckets([_size(kernel) for kernel in kernels])
        self._padded = torch.zeros(sum(group.elements for group in groups), dtype=kind, device=device)
        self._buckets = [
            part.view(len(group.members), group.rows, group.columns)
            for part, group in zip(torch.split(self._padded, [group.elements for group in groups]), groups, strict=True)
        ]
        scales = [[step_size(kernels[member]) for member in group.members] for group in groups]
        self._scales = [torch.tensor(scale, dtype=kind).view(-1, 1, 1).to(device) for scale in scales]
        places: list[Tensor] = [torch.empty(0)] * len(kernels)
        start = 0
        for group in groups:
            for number, member in enumerate(group.members):
                places[member] = _places(kernels[member], group.columns) + start + number * group.rows * group.columns
            start += group.elements
        self._places = torch.cat(places).to(device)

    def make_orthogonal(self, precision: torch.dtype) -> list[Tensor]:
        """Makes `moves` orthogonal and scales them, in place, and returns them."""
        self._padded.index_copy_(0, self._places, self._flat)
        for bucket, scale in zip(self._buckets, self._scales, strict=True):
            torch.mul(orthogonal(bucket, precision), scale, out=bucket)
        torch.index_select(self._padded, 0, self._places, out=self._flat)
        return self.moves


class _Bucket:
    """Matrices that are padded to the size of the largest of them."""

    def __init__(self, first: int, rows: int, columns: int) -> None:
        self.members, self.rows, self.columns = [first], rows, columns

    @property
    def elements(self) -> int:
        return len(self.members) * self.rows * self.columns


def _buckets(sizes: Sequence[tuple[int, int]]) -> list[_Bucket]:
    """Matrices of `sizes` (rows, columns) in buckets: a smaller one joins a larger as long as padding is worth it."""
    found: list[_Bucket] = []
    extra = 0.0
    for member in sorted(range(len(sizes)), key=lambda index: sizes[index], reverse=True):
        rows, columns = sizes[member]
        if found and columns <= found[-1].columns:
            bucket = found[-1]
            extra += _multiplications(bucket.rows, bucket.columns) - _multiplications(rows, columns)
            if extra <= _WORTH:
                bucket.members.append(member)
                continue
        found.append(_Bucket(member, rows, columns))
        extra = 0.0
    return found


def _multiplications(rows: int, columns: int) -> float:
    return _NEWTON_SCHULZ_STEPS * float(rows) ** 2 * (2 * columns + rows)


def _size(kernel: Tensor) -> tuple[int, int]:
    """Rows and columns of the kernel's matrix as it is packed, with no more rows than columns."""
    rows, columns = sorted((len(kernel), kernel[0].numel()))
    return rows, columns


def _strides(kernel: Tensor) -> tuple[int, ...]:
    """The kernel's, if it lies output by output without a gap, in channels-last order too; else those of one that does.

    The moves are added fastest to weights whose elements lie in the same order.
    """
    end = 1 + sum((length - 1) * stride for length, stride in zip(kernel.shape, kernel.stride(), strict=True))
    inputs = kernel[0].numel()
    if end == kernel.numel() and kernel.stride(0) == inputs:
        return kernel.stride()
    return torch.empty(kernel.shape, device="meta").stride()


def _places(kernel: Tensor, columns: int) -> Tensor:
    """int64 [elements]: for each element of the kernel, in the order of its memory, its place in a padded matrix.

    A kernel in channels-last order has the columns height, width, inputs there. Their order changes no singular value.
    """
    outputs = len(kernel)
    numbers = torch.arange(kernel.numel()).view(outputs, -1)
    row, column = numbers // numbers.shape[1], numbers % numbers.shape[1]
    tall = outputs > numbers.shape[1]
    return (column * columns + row if tall else row * columns + column).flatten()
