"""The ResNets for ImageNet (He et al. 2015, "Deep residual learning for image recognition", section 4.1, table 1).

Their weights have torchvision's names, so that torchvision's files fit; the last layer, fc there, is classify here.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import Model
from pipeline.networks.initial import he_normal
from pipeline.networks.network import Ends, Network
from pipeline.networks.projection import Projection

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Blocks in each stage."""
BASIC = ("resnet18", "resnet34")
"""Those with basic blocks; the others have bottlenecks."""


def build(model: Model, ends: Ends) -> "DeepResNet":
    """The families resnet18 to resnet152."""
    return DeepResNet(model.family, model.width, stem=model.stem, dropout=model.dropout, **ends)


class DeepResNet(Network):
    """A stem, four stages at `width`, 2, 4 and 8 `width` channels (64 in the paper), and a linear layer.

    resnet18 and resnet34 have basic blocks, the others bottlenecks, whose outputs have four times those channels. Each
    stage but the first halves the image. Where the shape changes, shortcuts are projections (option B). The stem
    imagenet is a 7x7 convolution and a max pool, and leaves a quarter of each side. The stem small is a 3x3 convolution
    that keeps the side, for images of about 32 pixels.
    """

    def __init__(
        self,
        name: str,
        width: int,
        *,
        stem: Literal["small", "imagenet"],
        channels: int,
        classes: int,
        dropout: float = 0.0,
    ) -> None:
        """`name` is one of BLOCKS."""
        super().__init__()
        self.stem = stem
        self.least_side = 8 if stem == "small" else 32
        self.smaller_by = "model.stem to small" if stem == "imagenet" else None
        block = BasicBlock if name in BASIC else Bottleneck
        if stem == "small":
            self.conv1 = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        first, second, third, fourth = BLOCKS[name]
        grown = block.growth * width
        self.layer1 = _stage(block, first, width, width, stride=1)
        self.layer2 = _stage(block, second, grown, 2 * width, stride=2)
        self.layer3 = _stage(block, third, 2 * grown, 4 * width, stride=2)
        self.layer4 = _stage(block, fourth, 4 * grown, 8 * width, stride=2)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(8 * grown, classes)
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [N, C, H, W] -> logits [N, classes]."""
        features = F.relu(self.bn1(self.conv1(images)), inplace=True)
        if self.stem == "imagenet":
            features = F.max_pool2d(features, kernel_size=3, stride=2, padding=1)
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        logits: Tensor = self.classify(self.dropout(features.mean(dim=(2, 3))))
        return logits


class BasicBlock(nn.Module):
    """y = relu(x + F(x)), where F is two 3x3 convolutions with batch norms."""

    growth = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, features: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(features)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + self.downsample(features), inplace=True)


class Bottleneck(nn.Module):
    """y = relu(x + F(x)), where F is a 1x1, a 3x3 and a 1x1 convolution with batch norms (figure 5).

    The 3x3 convolution has the stride, as in torchvision. In the paper the first 1x1 has it, which ignores three of
    four pixels.
    """

    growth = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.growth * width
        self.conv1 = nn.Conv2d(inputs, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, features: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(features)), inplace=True)
        residual = F.relu(self.bn2(self.conv2(residual)), inplace=True)
        residual = self.bn3(self.conv3(residual))
        return F.relu(residual + self.downsample(features), inplace=True)


def _stage(
    block: type[BasicBlock] | type[Bottleneck], blocks: int, inputs: int, width: int, stride: int
) -> nn.Sequential:
    return nn.Sequential(
        block(inputs, width, stride), *(block(block.growth * width, width, stride=1) for _ in range(blocks - 1))
    )


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return Projection(inputs, outputs, stride)
