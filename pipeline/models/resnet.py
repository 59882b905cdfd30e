"""The ResNet for small pictures (He et al. 2015, "Deep residual learning for image recognition", section 4.2)."""

from torch import Tensor, nn
from torch.nn import functional as F


class ResNet(nn.Module):
    """A 3x3 convolution, three stages of n blocks at `width`, 2 `width` and 4 `width` channels, and a linear layer.

    The second and the third stage halve the picture. Shortcuts have no parameters (the paper's option A): where the
    shape changes, they skip every other pixel and fill new channels with zeros. Any picture size of at least 4 pixels.
    """

    def __init__(self, depth: int, width: int, *, channels: int, classes: int) -> None:
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
                )
                for stage in range(3)
                for block in range(blocks)
            )
        )
        self.classify = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                # He et al. 2015, "Delving deep into rectifiers", section 2.2, which the paper's section 3.4 follows.
                nn.init.kaiming_normal_(module.weight, mode="fan_out" if isinstance(module, nn.Conv2d) else "fan_in")
        nn.init.zeros_(self.classify.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised pictures [N, C, H, W] -> logits [N, classes]."""
        features = self.stages(F.relu(self.stem_norm(self.stem(images)), inplace=True))
        logits: Tensor = self.classify(features.mean(dim=(2, 3)))
        return logits


class Block(nn.Module):
    """y = relu(x + F(x)), F being two 3x3 convolutions with batch norms."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, stride)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = _convolution(outputs, outputs)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.new_channels = outputs - inputs

    def forward(self, features: Tensor) -> Tensor:
        residual = F.relu(self.first_norm(self.first(features)), inplace=True)
        residual = self.second_norm(self.second(residual))
        return F.relu(residual + self.shortcut(features), inplace=True)

    def shortcut(self, features: Tensor) -> Tensor:
        if self.stride == 1:
            return features
        skipped = features[:, :, :: self.stride, :: self.stride]
        return F.pad(skipped, (0, 0, 0, 0, 0, self.new_channels))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
