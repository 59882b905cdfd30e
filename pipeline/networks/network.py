"""What a family gives: networks with the same few attributes and hooks, built by the function `build` of its module."""

from typing import Protocol, TypedDict

import torch
from torch import Tensor, nn

from pipeline.config import Model
from pipeline.records import Meta

SIZE_KEYS = ("model.family", "model.name", "model.weights", "model.stem", "model.image_size")
"""The keys that decide how small an image a network takes."""


class Network(nn.Module):
    """Normalised images float32 [N, C, H, W] -> logits [N, classes].

    A family overrides the hooks that it has a use for.
    """

    classify: nn.Module
    """The last layer, in the families of this project."""
    least_side: int
    """Pixels, to a side, that images must have, so that one is left after all that halves them."""
    smaller_by: str | None = None
    """Values of params.yaml that let this network take smaller images, as in `model.stem to small`; None: no such."""
    image_size: int | None = None
    """Pixels, to a side, that the network resizes images to; None: it takes them as they are."""
    mean: tuple[float, ...] | None = None
    """Of each channel, for pixels scaled to 0..1: how images have to be normalised. None: by the data set's mean."""
    std: tuple[float, ...] | None = None
    """The standard deviation that goes with `mean`."""

    @property
    def last_layer(self) -> list[nn.Parameter]:
        """The parameters of the last layer: the logits are proportional to them."""
        return list(self.classify.parameters())

    @torch.no_grad()
    def divide_logits(self, divisor: float) -> None:
        """Divides the logits of all images by a number, in the weights of the last layer."""
        for parameter in self.last_layer:
            parameter.div_(divisor)

    def takes(self, height: int, width: int) -> bool:
        """Whether the network leaves at least one pixel of images of such sides."""
        return min(height, width) >= self.least_side

    def load_initial_weights(self, file: str | None) -> None:
        """Loads weights to start the training from, by `file` (model.weights) if the family has such a choice.

        Raises ConfigError and DownloadError.
        """

    def prepare(self, images: Tensor) -> None:
        """Sets weights by some normalised training images [N, C, H, W], before the training."""


class Ends(TypedDict):
    """What a network begins and ends with."""

    channels: int
    classes: int


def ends(meta: Meta) -> Ends:
    """The channels and the classes of a data set."""
    return Ends(channels=meta.shape[0], classes=len(meta.classes))


class FamilyModule(Protocol):
    """The module of a family."""

    def build(self, model: Model, meta: Meta) -> Network:
        """An untrained network for the images of `meta`, with weights drawn from PyTorch's global generator."""
        ...
