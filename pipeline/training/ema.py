"""The moving average of the weights: `train.ema`."""

import torch
from torch import Tensor, nn


class Average:
    """Keeps the weights of `network` at the exponential moving average of those of `moving`, which is trained.

    The running statistics of batch norms are averaged too: those of `moving` belong to its weights of the last few
    steps, not to the average over many. Buffers of whole numbers, which count batches, are copied.
    """

    def __init__(self, network: nn.Module, moving: nn.Module) -> None:
        """Both networks have the same layers and the same weights."""
        pairs = [
            (kept, other)
            for kept, other in zip(_weights(network), _weights(moving), strict=True)
            # Frozen weights are equal in both.
            if other.requires_grad or not isinstance(other, nn.Parameter)
        ]
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        copied = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._averaged, self._moving = _unzipped(averaged)
        self._copies, self._copied = _unzipped(copied)

    @torch.no_grad()
    def update(self, share: float | Tensor) -> None:
        """Moves the average towards the weights, by a share of 0..1 of the way."""
        if isinstance(share, Tensor):
            # Of lerp there is none for many tensors by one number that is a tensor.
            ways = torch._foreach_sub(self._moving, self._averaged)
            torch._foreach_mul_(ways, share)
            torch._foreach_add_(self._averaged, ways)
        else:
            torch._foreach_lerp_(self._averaged, self._moving, share)
        if self._copies:
            torch._foreach_copy_(self._copies, self._copied)


def share(decay: float, step: int) -> float:
    """The share, 0..1, of the weights of step number `step` (from 0) in their average, by `train.ema`.

    The decay grows up to its value as in TensorFlow's ExponentialMovingAverage. Otherwise the initial weights would
    dominate for many steps.
    """
    return 1 - min(decay, (1 + step) / (10 + step))


def _unzipped(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [kept for kept, _ in pairs], [other for _, other in pairs]


def _weights(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
