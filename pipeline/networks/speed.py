"""A network that reaches a good accuracy with few operations.

After Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498). Sections are of that paper.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import Model
from pipeline.networks import fourier
from pipeline.networks.network import Network, ends
from pipeline.records import Meta

PATCH = 2
"""Pixels, to a side, of a patch, which is what the first layer looks at."""
LOGIT_SCALE = 1 / 9
"""The paper's: logits are small at the start, so that the last layer can have the learning rate of the others."""
WIDTHS = {"doubling": (1, 2, 4), "wide": (1, 4, 4)}
"""Channels of the stages, relative to the first. wide is the paper's: 64, 256, 256."""
_LEAST_VARIANCE = 5e-4
"""Added to the variance of each component, for images with unit variance. It keeps components of noise small."""


def build(model: Model, meta: Meta) -> "Speed":
    """The family speed."""
    return Speed(model.depth, model.width, stages=model.stages, dropout=model.dropout, **ends(meta))


class Speed(Network):
    """Whitened patches, three stages of `(depth - 2) / 3` convolutions, a maximum per channel, a linear layer.

    The paper's network (section 3.1) with three changes that suit a CPU. The stages have `width` channels times
    WIDTHS of `stages`. The whitening has no trained bias, so that no gradient passes the largest feature maps. The
    last stage is pooled as a whole, so that images of any size from 9 pixels on are accepted. `prepare` has to be
    called before the training.
    """

    least_side = 9

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        stages: Literal["doubling", "wide"] = "doubling",
        channels: int,
        classes: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        components = channels * PATCH**2
        # Both signs of each, since the activation that follows suppresses negative values (section 3.2).
        self.patches = nn.Conv2d(channels, 2 * components, PATCH, bias=False)
        self.patches.weight.requires_grad_(False)
        widths = [2 * components, *(times * width for times in WIDTHS[stages])]
        self.stages = nn.Sequential(*(Stage(inputs, outputs, (depth - 2) // 3) for inputs, outputs in pairwise(widths)))
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(widths[-1], classes, bias=False)

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Whitens: sets the first layer to the principal components of patches of normalised images [N, C, H, W].

        Each component is scaled to unit variance (section 3.2, after Page 2019).
        """
        patches = F.unfold(images, PATCH).mT.reshape(-1, self.patches.weight[0].numel())
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        components = (vectors / (values + _LEAST_VARIANCE).sqrt()).T.reshape(-1, *self.patches.weight.shape[1:])
        self.patches.weight.copy_(torch.cat([components, -components]))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [N, C, H, W] -> logits [N, classes]."""
        features = self.stages(F.silu(self.patches(images)))
        logits: Tensor = self.classify(self.dropout(features.amax(dim=(2, 3))))
        return LOGIT_SCALE * logits


class Stage(nn.Module):
    """3x3 convolutions, each with batch norm and SiLU. The first ends with a max pool, which halves each side.

    With three or more convolutions, the output of the first is added to that of the last (section 5.1).
    """

    def __init__(self, inputs: int, outputs: int, convolutions: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            _convolution(outputs if number else inputs, outputs) for number in range(convolutions)
        )
        self.norms = nn.ModuleList(_norm(outputs) for _ in range(convolutions))

    def forward(self, features: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H // 2, W // 2]."""
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            features = convolution(features)
            if number == 0:
                features = F.max_pool2d(features, 2)  # after the convolution, as in the paper (section 3.1)
            features = F.silu(norm(features))
            if number == 0:
                first = features
        return features + first if len(self.norms) > 2 else features


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution. In training it is computed by the Fourier transform where that is faster."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H, W]."""
        if self.training and fourier.pays(features, self.weight):
            return fourier.convolve(features, self.weight)
        return super().forward(features)


def _convolution(inputs: int, outputs: int) -> Conv3x3:
    """Its initial weights pass the inputs on, as many as there are outputs for (section 3.3)."""
    convolution = Conv3x3(inputs, outputs)
    nn.init.dirac_(convolution.weight[:inputs])
    return convolution


def _norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm with a shift but no trained factor (section 3.1), and statistics of the last few steps."""
    norm = nn.BatchNorm2d(channels, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm
