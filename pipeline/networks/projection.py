"""The shortcut of a residual block whose shape changes (He et al. 2015, section 3.3, option B)."""

from torch import Tensor, nn
from torch.nn import functional as F


class Pointwise(nn.Conv2d):
    """A 1x1 convolution with a stride.

    The pixels are picked before the convolution, which gives the same numbers. Otherwise the weight's gradient writes
    beyond its memory on the CPU with a stride of 2, fewer than 8 channels and channels last, which ends the process
    (seen with PyTorch 2.14.1).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1, bias=False)
        self._every = stride

    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(features[:, :, :: self._every, :: self._every], self.weight)


class Projection(nn.Sequential):
    """The paper's option B: a 1x1 convolution and a batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(Pointwise(inputs, outputs, stride), nn.BatchNorm2d(outputs))
