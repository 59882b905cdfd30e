import subprocess
import sys

import torch
from torch.nn import functional as F

from pipeline.networks.projection import Pointwise


def test_a_pointwise_convolution_has_the_numbers_of_an_ordinary_one() -> None:
    convolution = Pointwise(8, 16, 2)
    features = torch.randn(2, 8, 7, 6)
    assert torch.allclose(convolution(features), F.conv2d(features, convolution.weight, stride=2), atol=1e-6)


def test_a_narrow_network_with_projections_trains_without_writing_beyond_its_memory() -> None:
    """In a process of its own, since a failure would end the process."""
    code = (
        "import torch; from pipeline.networks.resnet import ResNet\n"
        "network = ResNet(8, 4, shortcut='projection', channels=1, classes=10).to(memory_format=torch.channels_last)\n"
        "for _ in range(20):\n"
        "    images = torch.rand(64, 1, 8, 8).contiguous(memory_format=torch.channels_last)\n"
        "    network(images).square().mean().backward()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
