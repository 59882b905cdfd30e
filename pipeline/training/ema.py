"""The moving average of the weights: `train.ema`."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Keeps the weights of `network` at the exponential moving average of those of `moving`, which is trained.

    The running statistics of batch norms are averaged too: those of `moving` belong to its weights of the last few
    steps, not to the average over many. Buffers of whole numbers, which count batches, are copied.
    """

    def __init__(self, network: nn.Module, moving: nn.Module, decay: float) -> None:
        """Both networks have the same layers and the same weights. `decay` is 0..1, per step."""
        self._decay = decay
        pairs = [
            (kept, other)
            for kept, other in zip(_weights(network), _weights(moving), strict=True)
            # Frozen weights are equal in both.
            if other.requires_grad or not isinstance(other, nn.Parameter)
        ]
        self._averaged = [(kept, other) for kept, other in pairs if kept.is_floating_point()]
        self._copied = [(kept, other) for kept, other in pairs if not kept.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Updates the average after step number `step`, from 0.

        The decay grows up to its value as in TensorFlow's ExponentialMovingAverage. Otherwise the initial weights would
        dominate for many steps.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        kept, moving = zip(*self._averaged, strict=True)
        get_ema_multi_avg_fn(decay)(kept, moving, step)  # type: ignore[no-untyped-call]
        for copied, other in self._copied:
            copied.copy_(other)


def _weights(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
