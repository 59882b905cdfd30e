import pytest
import torch
from torch import nn

from pipeline.models.resnet import Block, ResNet


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_parameter_counts_are_those_of_table_6_of_the_paper(depth: int, millions: float) -> None:
    count = sum(parameter.numel() for parameter in ResNet(depth, 16, channels=3, classes=10).parameters())
    assert round(count / 1e6, 2 if millions < 1 else 1) == millions


@pytest.mark.parametrize("depth", [8, 20, 32])
def test_depth_counts_the_layers_with_weights(depth: int) -> None:
    network = ResNet(depth, 4, channels=3, classes=10)
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules()) == depth


@pytest.mark.parametrize(("channels", "size", "width", "classes"), [(1, 8, 4, 2), (3, 33, 5, 100), (4, 4, 1, 7)])
def test_any_picture_size_channel_count_and_width_give_a_logit_a_class(
    channels: int, size: int, width: int, classes: int
) -> None:
    network = ResNet(8, width, channels=channels, classes=classes)
    assert network(torch.zeros(2, channels, size, size)).shape == (2, classes)


def test_a_block_whose_convolutions_are_zero_passes_its_input_through() -> None:
    features = torch.rand(2, 4, 6, 6)
    block = Block(4, 4, stride=1)
    nn.init.zeros_(block.second_norm.weight)
    assert torch.equal(block(features), features)


def test_a_shortcut_that_changes_the_shape_skips_pixels_and_fills_new_channels_with_zeros() -> None:
    features = torch.rand(2, 4, 6, 6)
    shortcut = Block(4, 8, stride=2).shortcut(features)
    assert torch.equal(shortcut[:, :4], features[:, :, ::2, ::2])
    assert shortcut.shape == (2, 8, 3, 3)
    assert not shortcut[:, 4:].any()
