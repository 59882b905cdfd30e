"""Epochs that train on the hardest pictures alone: `train.hard_share`.

What a network already knows teaches it little. Between two points of a training, an epoch takes only the pictures
whose loss was highest when they were last trained on. So it costs less, and a picture that is left out keeps its loss
while those of the others fall, until it is among the highest again. After Jiang et al. 2019, "Accelerating Deep
Learning by Focusing on the Biggest Losers" (arXiv 1910.00762), who look at each picture once more to choose; here the
loss that a training has anyway is what is remembered.
"""

import math

import torch
from torch import Tensor

from pipeline.batches.data import Epochs, Places
from pipeline.config import Train


def is_hard(config: Train, number: int) -> bool:
    """Whether epoch `number` (from 1) takes the hardest pictures alone. The first never does: nothing is known yet."""
    first, last = (round(share * config.epochs) for share in (config.hard_from, config.hard_until))
    return config.hard_share < 1 and max(first, 1) < number <= last


def steps_of(config: Train, number: int, steps: int) -> int:
    """Batches that epoch `number` takes of the `steps` that all pictures make, one at least."""
    return max(1, round(config.hard_share * steps)) if is_hard(config, number) else steps


def pictures_of(config: Train, number: int, batches: Epochs) -> int:
    """Pictures that epoch `number` takes, in whole batches."""
    return len(batches) // batches.steps * steps_of(config, number, batches.steps)


class Focus:
    """The loss that each of N training pictures had when it was last trained on, and whom an epoch takes by it."""

    def __init__(self, pictures: int, device: torch.device, losses: Tensor | None = None) -> None:
        """Goes on from `losses` of a checkpoint."""
        # Whatever an incomplete batch has always left out comes first.
        self.losses = torch.full((pictures,), math.inf) if losses is None else losses
        self.losses = self.losses.to(device)
        """float32 [N]"""

    def hardest(self, count: int) -> Places:
        """The places of so many, in order; of equal ones the first."""
        return self.losses.argsort(descending=True, stable=True)[:count].sort().values.cpu()

    def note(self, places: Tensor, losses: Tensor) -> None:
        """Remembers the `losses` [B] that the pictures at `places`, int64 [B], had now."""
        self.losses[places] = losses.detach().float()
