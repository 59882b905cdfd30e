import pytest
import torch
import torchvision
from torch import nn

from pipeline.networks.deep_resnet import BLOCKS, DeepResNet

MILLIONS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


def torchvisions(name: str) -> nn.Module:
    network: nn.Module = getattr(torchvision.models, name)()
    return network


def with_our_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("fc.", "classify."): value for name, value in state.items()}


DEEPEST_ARE_SLOW = [
    pytest.param(name, marks=pytest.mark.slow) if name in ("resnet101", "resnet152") else name for name in BLOCKS
]


@pytest.mark.parametrize("name", DEEPEST_ARE_SLOW)
def test_weights_have_the_names_and_shapes_of_torchvisions_and_their_number(name: str) -> None:
    with torch.device("meta"):
        ours = DeepResNet(name, 64, stem="imagenet", channels=3, classes=1000)
        theirs = torchvisions(name)
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in with_our_names(theirs.state_dict()).items()
    }
    assert sum(parameter.numel() for parameter in ours.parameters()) == MILLIONS[name]


@pytest.mark.parametrize(
    "name", [name if name == "resnet18" else pytest.param(name, marks=pytest.mark.slow) for name in BLOCKS]
)
def test_logits_are_those_of_torchvision_with_the_same_weights(name: str) -> None:
    torch.manual_seed(0)
    theirs = torchvisions(name)
    theirs(torch.rand(4, 3, 33, 33))  # so that the batch norms have statistics
    with torch.device("meta"):
        ours = DeepResNet(name, 64, stem="imagenet", channels=3, classes=1000)
    ours.load_state_dict(with_our_names(theirs.state_dict()), assign=True)
    images = torch.rand(2, 3, 41, 50)
    with torch.inference_mode():
        expected = theirs.eval()(images)
        scale = expected.std().item()
        assert scale > 0.01
        torch.testing.assert_close(ours.eval()(images), expected, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("name", DEEPEST_ARE_SLOW)
def test_the_name_counts_the_layers_with_weights_but_for_shortcuts(name: str) -> None:
    with torch.device("meta"):
        network = DeepResNet(name, 64, stem="small", channels=3, classes=10)
    layers = [
        path
        for path, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in path
    ]
    assert f"resnet{len(layers)}" == name


@pytest.mark.parametrize(("stem", "side"), [("small", 32), ("imagenet", 8)])
def test_the_stem_leaves_a_small_image_whole_or_a_quarter_of_each_side(stem: str, side: int) -> None:
    network = DeepResNet("resnet18", 4, stem=stem, channels=3, classes=10)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        layer = network.get_submodule(name)
        layer.register_forward_hook(lambda _, __, made, name=name: shapes.update({name: tuple(made.shape[1:])}))
    network(torch.zeros(2, 3, 32, 32))
    assert shapes == {f"layer{n + 1}": (4 * 2**n, side // 2**n, side // 2**n) for n in range(4)}
    assert network.least_side == 32 // shapes["layer4"][1]


def test_initial_weights_have_the_variance_of_he_et_al() -> None:
    network = DeepResNet("resnet18", 64, stem="small", channels=3, classes=10)
    kernel = network.layer4[1].conv2.weight
    assert kernel.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert (network.layer4[1].bn2.weight == 1).all()
