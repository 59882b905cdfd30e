import pytest
import torch
from torch import nn

from pipeline.networks.resnet import Block, Projection, ResNet


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_parameter_counts_are_those_of_table_6_of_the_paper(depth: int, millions: float) -> None:
    count = sum(parameter.numel() for parameter in ResNet(depth, 16, channels=3, classes=10).parameters())
    assert round(count / 1e6, 2 if millions < 1 else 1) == millions


def test_projections_add_two_convolutions_and_their_norms_and_a_plain_network_has_as_many_weights_as_identity() -> None:
    identity, projection, plain = (
        sum(parameter.numel() for parameter in ResNet(20, 16, shortcut=shortcut, channels=3, classes=10).parameters())
        for shortcut in ("identity", "projection", "none")
    )
    assert identity == plain == 269_722
    assert projection == identity + 16 * 32 + 32 * 64 + 2 * (32 + 64)


@pytest.mark.parametrize("depth", [8, 20, 32])
def test_depth_counts_the_layers_with_weights(depth: int) -> None:
    network = ResNet(depth, 4, channels=3, classes=10)
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules()) == depth


@pytest.mark.parametrize(("channels", "size", "width", "classes"), [(1, 8, 4, 2), (3, 33, 5, 100), (4, 4, 1, 7)])
def test_any_image_size_channel_count_and_width_give_a_logit_a_class(
    channels: int, size: int, width: int, classes: int
) -> None:
    network = ResNet(8, width, channels=channels, classes=classes)
    assert network(torch.zeros(2, channels, size, size)).shape == (2, classes)


def test_a_block_whose_convolutions_are_zero_passes_its_input_through() -> None:
    features = torch.rand(2, 4, 6, 6)
    block, plain = Block(4, 4, stride=1), Block(4, 4, stride=1, shortcut="none")
    for each in (block, plain):
        nn.init.zeros_(each.second_norm.weight)
    assert torch.equal(block(features), features)
    assert not plain(features).any()


def test_a_shortcut_that_changes_the_shape_skips_pixels_and_fills_new_channels_with_zeros() -> None:
    features = torch.rand(2, 4, 6, 6)
    block = Block(4, 8, stride=2)
    assert block.shortcut
    shortcut = block.shortcut(features)
    assert torch.equal(shortcut[:, :4], features[:, :, ::2, ::2])
    assert shortcut.shape == (2, 8, 3, 3)
    assert not shortcut[:, 4:].any()


def test_a_projection_sees_every_other_pixel_and_is_only_where_the_shape_changes() -> None:
    block = Block(4, 8, stride=2, shortcut="projection").eval()
    assert isinstance(block.shortcut, Projection)
    nn.init.zeros_(block.second_norm.weight)
    features = torch.rand(2, 4, 6, 6)
    kernel = block.shortcut[0].weight[:, :, 0, 0]
    expected = torch.einsum("oi,nihw->nohw", kernel, features[:, :, ::2, ::2]).relu()
    torch.testing.assert_close(block(features), expected, rtol=1e-4, atol=1e-4)
    shortcuts = [type(module.shortcut) for module in ResNet(20, 4, shortcut="projection", channels=3, classes=2).stages]
    assert [number for number, shortcut in enumerate(shortcuts) if shortcut is Projection] == [3, 6]


@pytest.mark.parametrize("shortcut", ["identity", "projection", "none"])
def test_dropout_leaves_features_out_in_training_alone(shortcut: str) -> None:
    torch.manual_seed(0)
    network = ResNet(8, 4, shortcut=shortcut, channels=1, classes=2, dropout=0.5)
    images = torch.rand(4, 1, 8, 8)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))
