"""The moving average of the weights: `train.ema`."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Keeps one network at the exponential moving average of another one of the same layers.

    Buffers that are numbers, the running statistics of batch norms, are averaged like the weights: those of the moving
    network describe where its weights have been for a few steps, not where the average of many steps is. Counts are
    copied.
    """

    def __init__(self, network: nn.Module, moving: nn.Module, decay: float) -> None:
        self._decay = decay
        pairs = [
            (kept, other)
            for kept, other in zip(_weights(network), _weights(moving), strict=True)
            # Frozen weights are those of the average from the start.
            if other.requires_grad or not isinstance(other, nn.Parameter)
        ]
        self._averaged = [(kept, other) for kept, other in pairs if kept.is_floating_point()]
        self._copied = [(kept, other) for kept, other in pairs if not kept.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in what step number `step`, from 0, led to.

        The decay grows to its value, as TensorFlow has it: the initial weights would weigh too much for long.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        kept, moving = zip(*self._averaged, strict=True)
        get_ema_multi_avg_fn(decay)(kept, moving, step)  # type: ignore[no-untyped-call]
        for copied, other in self._copied:
            copied.copy_(other)


def _weights(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
