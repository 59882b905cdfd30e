"""A network together with the normalisation of its images."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.networks.network import Network


class Classifier(nn.Module):
    """Raw pixels uint8 [N, C, H, W] -> logits [N, classes].

    It normalises by itself, so that training, evaluation, prediction and export can't disagree about it. `mean` and
    `std` have a value per channel, for pixels scaled to 0..1. Images of one channel become as many as `mean` has.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: Network,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        description: Mapping[str, Any] | None = None,
    ) -> None:
        """`description` says what goes in and what comes out; it is saved with the weights and with exports."""
        super().__init__()
        self.description = dict(description or {})
        self.register_buffer("mean", 255 * torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(-1, 1, 1))
        self.network = network

    @property
    def head(self) -> list[nn.Parameter]:
        """The parameters of the last layer."""
        return self.network.last_layer

    def prepare(self, images: Tensor) -> None:
        """Lets the network set weights by some training images, uint8 [N, C, H, W], before the training."""
        self.network.prepare(self._normalised(images))

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self._normalised(images))
        return logits
