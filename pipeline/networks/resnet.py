"""The ResNet for small images (He et al. 2015, "Deep residual learning for image recognition", section 4.2)."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import Model
from pipeline.networks.initial import he_normal
from pipeline.networks.network import Network, ends
from pipeline.networks.projection import Projection
from pipeline.records import Meta

Shortcut = Literal["identity", "projection", "none"]


def build(model: Model, meta: Meta) -> "ResNet":
    """The families resnet and plain."""
    shortcut: Shortcut = "none" if model.family == "plain" else model.shortcut
    return ResNet(model.depth, model.width, shortcut=shortcut, dropout=model.dropout, **ends(meta))


class ResNet(Network):
    """A 3x3 convolution, three stages of n blocks at `width`, 2 `width` and 4 `width` channels, and a linear layer.

    The second and the third stage halve the image. `shortcut` is what is added where the shape changes: identity is
    the paper's option A, which has no parameters, and projection its option B. none adds nothing in any block: that is
    the paper's plain network, with the weights of option A.
    """

    least_side = 4

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        shortcut: Shortcut = "identity",
        channels: int,
        classes: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.stem = _convolution(channels, width)
        self.stem_norm = nn.BatchNorm2d(width)
        self.stages = nn.Sequential(
            *(
                Block(
                    inputs=width * 2**stage if block else width * 2 ** max(stage - 1, 0),
                    outputs=width * 2**stage,
                    stride=2 if stage and not block else 1,
                    shortcut=shortcut,
                )
                for stage in range(3)
                for block in range(blocks)
            )
        )
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(4 * width, classes)
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [N, C, H, W] -> logits [N, classes]."""
        features = self.stages(F.relu(self.stem_norm(self.stem(images)), inplace=True))
        logits: Tensor = self.classify(self.dropout(features.mean(dim=(2, 3))))
        return logits


class Block(nn.Module):
    """y = relu(x + F(x)), where F is two 3x3 convolutions with batch norms; y = relu(F(x)) without a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut = "identity") -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, stride)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = _convolution(outputs, outputs)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module | None
        if shortcut == "none":
            self.shortcut = None
        elif stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif shortcut == "identity":
            self.shortcut = Padding(outputs - inputs, stride)
        else:
            self.shortcut = Projection(inputs, outputs, stride)

    def forward(self, features: Tensor) -> Tensor:
        residual = F.relu(self.first_norm(self.first(features)), inplace=True)
        residual = self.second_norm(self.second(residual))
        if self.shortcut is not None:
            residual = residual + self.shortcut(features)
        return F.relu(residual, inplace=True)


class Padding(nn.Module):
    """The paper's option A: every `stride`-th pixel, and zeros for new channels."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        skipped = features[:, :, :: self.stride, :: self.stride]
        return F.pad(skipped, (0, 0, 0, 0, 0, self.new_channels))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
