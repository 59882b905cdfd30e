import pytest
import torch
import torchvision
from torch import nn

from pipeline.networks.vgg import CONVOLUTIONS, VGG

# Of torchvision's vgg11_bn to vgg19_bn without their three linear layers.
PARAMETERS = {"vgg11": 9_225_984, "vgg13": 9_410_880, "vgg16": 14_723_136, "vgg19": 20_035_392}


def torchvisions_features(name: str) -> nn.Module:
    with torch.device("meta"):
        features: nn.Module = getattr(torchvision.models, f"{name}_bn")().features
    return features


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_have_the_names_and_shapes_of_torchvisions_and_their_number_of_weights(name: str) -> None:
    with torch.device("meta"):
        network = VGG(name, 64, channels=3, classes=10)
    assert {name: value.shape for name, value in network.features.state_dict().items()} == {
        name: value.shape for name, value in torchvisions_features(name).state_dict().items()
    }
    assert sum(parameter.numel() for parameter in network.features.parameters()) == PARAMETERS[name]
    assert network.classify.weight.shape == (10, 512)


def test_features_are_those_of_torchvision_with_the_same_weights() -> None:
    torch.manual_seed(0)
    network = VGG("vgg11", 64, channels=3, classes=10)
    network(torch.rand(4, 3, 32, 32))  # so that the batch norms have statistics
    theirs = torchvisions_features("vgg11")
    theirs.load_state_dict(network.features.state_dict(), assign=True)
    images = torch.rand(2, 3, 64, 33)
    with torch.inference_mode():
        expected = theirs.eval()(images)
        assert expected.std() > 0.01
        torch.testing.assert_close(network.eval().features(images), expected)
        torch.testing.assert_close(network(images), network.classify(expected.mean(dim=(2, 3))))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_name_counts_the_layers_with_weights_of_the_papers_network(name: str) -> None:
    network = VGG(name, 2, channels=1, classes=3)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert f"vgg{len(convolutions) + 3}" == name  # the paper has three linear layers, this network one
    assert [convolutions[0].out_channels, convolutions[-1].out_channels] == [2, 16]
    assert network(torch.zeros(2, 1, 32, 40)).shape == (2, 3)
