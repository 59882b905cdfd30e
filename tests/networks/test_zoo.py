"""The family torchvision: its networks, beside torchvision's own."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from pipeline import networks
from pipeline.config import ZOO, Config
from pipeline.errors import ConfigError
from pipeline.networks import stem
from pipeline.networks.zoo import LAST_STAGES
from pipeline.records import Meta

FACTORS = {
    "convnext_tiny": 8,
    "densenet121": 8,
    "efficientnet_b0": 8,
    "googlenet": 8,
    "mnasnet0_5": 8,
    "mobilenet_v2": 8,
    "mobilenet_v3_large": 8,
    "mobilenet_v3_small": 8,
    "regnet_y_400mf": 8,
    "resnet18": 8,
    "resnext50_32x4d": 8,
    "shufflenet_v2_x0_5": 8,
    "swin_t": 8,
    "swin_v2_t": 8,
    "vgg11_bn": 32,
    "wide_resnet50_2": 8,
}
"""Pixels, to a side, that become one with the small stem. A VGG has no stem. Others don't pad, or have a fixed size."""
EXPORTED = (
    *("convnext_tiny", "googlenet", "mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf", "resnet18"),
    *("shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vit_b_32"),
)
"""One of each kind of first and last layers. benchmarks/zoo.py trains and exports all."""


def noise(*shape: int) -> Meta:
    return Meta("noise", ("a", "b", "c"), shape, (0.5,) * shape[0], (0.25,) * shape[0], {}, "", "")


def built(settings: Config, name: str, meta: Meta, seed: int = 0, **values: Any) -> networks.Classifier:
    values = {"family": "torchvision", "name": name, "stem": None, "image_size": None} | values
    model = settings.with_values({f"model.{key}": value for key, value in values.items()}).model
    return networks.build(model, meta, seed, initial=False)


def sized(name: str) -> dict[str, Any]:
    """What lets a network take images of 32 pixels."""
    return {"image_size": 56} if name == "maxvit_t" else {}


class Weightless(TorchFunctionMode):
    """Large weights have no memory. With torch.device("meta") a RegNet could not work out its widths."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))


def on_meta(body: nn.Module, height: int, width: int) -> torch.Tensor:
    state = {name: torch.empty_like(value, device="meta") for name, value in body.state_dict().items()}
    logits: torch.Tensor = functional_call(
        body.eval(), state, (torch.zeros(1, 3, height, width, device="meta"),), strict=True
    )
    return logits


def test_the_names_are_torchvisions() -> None:
    assert sorted(ZOO) == sorted(torchvision.models.list_models(module=torchvision.models))
    assert all(any(name.startswith(prefix) for name in ZOO) for prefix in LAST_STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_every_network_is_built_for_32_pixels_with_a_logit_per_class_and_weights_that_are_published(
    settings: Config, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stem, "dry_run", on_meta)
    with Weightless():
        network = built(settings, name, noise(3, 32, 32), **sized(name)).network
        assert on_meta(network.body, *(network.image_size or 32,) * 2).shape == (1, 3)
    assert torchvision.models.get_model_weights(name).DEFAULT.url.endswith(".pth")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_one_of_each_kind_trains_a_step_comes_back_from_disk_and_can_be_exported(
    settings: Config, tmp_path: Path, name: str
) -> None:
    classifier, other = (built(settings, name, noise(1, 32, 32), seed, **sized(name)) for seed in (0, 1))
    images = torch.randint(256, (2, 1, 32, 32), dtype=torch.uint8)
    before = copy.deepcopy(classifier.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        logits = classifier.to(memory_format=torch.channels_last)(images)
    (logits.float() - 1).square().sum().backward()  # the last layer of a ViT begins with zeros
    assert all(parameter.grad is not None for parameter in classifier.parameters())
    torch.optim.SGD(classifier.parameters(), lr=1e-3).step()
    assert any(not torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    networks.save(classifier, tmp_path / "model.safetensors")
    networks.load(other, tmp_path / "model.safetensors")
    exported = torch.export.export(other.eval(), (images,), dynamic_shapes=[{0: torch.export.Dim.AUTO}])
    more = torch.randint(256, (3, 1, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = classifier.eval()(more)
        torch.testing.assert_close(exported.module()(more), expected, rtol=1e-3, atol=1e-3)
        assert expected.shape == (3, 3)
        # The last layer is where calibration divides the logits.
        for parameter in classifier.head:
            parameter.div_(2)
        torch.testing.assert_close(classifier(more), expected / 2, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "factor"), FACTORS.items())
def test_the_small_stem_leaves_four_times_as_many_pixels_and_the_last_stage_has_the_smallest_maps(
    settings: Config, name: str, factor: int
) -> None:
    body = built(settings, name, noise(3, 32, 32)).network.body
    assert stem.trace(body, 64).factor == factor
    start = next((part for prefix, part in LAST_STAGES.items() if name.startswith(prefix)), None)
    if start is None:
        return
    sides: dict[str, int] = {}
    for part, layer in body.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1):
            layer.register_forward_hook(lambda _, __, made, part=part: sides.update({part: made.shape[-1]}))
    stem.dry_run(body, 64, 64)
    names = [part for part, _ in body.named_modules()]
    last = {side for part, side in sides.items() if names.index(part) > names.index(start)}
    before = {side for part, side in sides.items() if names.index(part) < names.index(start)}
    assert last <= {64 // factor, 2 * 64 // factor}  # a block may halve after its first convolution
    assert 64 // factor not in before


def test_a_resnet_18_with_the_small_stem_is_the_one_that_is_known_on_cifar_images(settings: Config) -> None:
    """Its parameters and 0.56 billion operations are published for the usual CIFAR-10 network of this name."""
    cifar = Meta("cifar10", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")
    network = built(settings, "resnet18", cifar)
    assert networks.parameters(network) == 11_173_962
    assert round(networks.macs(network, cifar) / 1e9, 2) == 0.56
    assert built(settings, "resnet18", noise(3, 64, 64)).network.body.conv1.kernel_size == (7, 7)


def test_without_weights_images_are_normalised_by_the_data_set_and_all_is_torchvisions(settings: Config) -> None:
    classifier = built(settings, "resnet18", noise(1, 40, 40), stem="imagenet").eval()
    theirs = torchvision.models.resnet18(num_classes=3).eval()
    theirs.load_state_dict(
        {name.replace("fc.1", "fc"): value for name, value in classifier.network.body.state_dict().items()}
    )
    images = torch.randint(256, (2, 1, 40, 40), dtype=torch.uint8)
    with torch.inference_mode():
        expected = theirs(((images / 255 - 0.5) / 0.25).expand(-1, 3, -1, -1))
        torch.testing.assert_close(classifier(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mnasnet0_5", "squeezenet1_1"])
def test_dropout_before_the_last_layer_is_that_of_params_yaml(settings: Config, name: str) -> None:
    for share in (0.0, 0.5):
        network = built(settings, name, noise(3, 32, 32), dropout=share).network
        layers = [layer for layer in network.modules() if not list(layer.children())]
        position = next(
            number for number, layer in enumerate(layers) if getattr(layer, "weight", None) is network.last_layer[0]
        )
        before = layers[position - 1]
        assert isinstance(before, nn.Dropout)
        assert before.p == share


@pytest.mark.parametrize(
    ("name", "shape", "values", "sentence"),
    [
        ("resnet18", (2, 32, 32), {}, "takes images of 1 or 3 channels, those of noise have 2: set model.family"),
        ("resnet18", (3, 7, 9), {}, "resnet18 halves images until 8 x 8 .*7 x 9: set model.image_size to 224, or"),
        ("resnet18", (3, 9, 9), {"stem": "imagenet"}, "until 32 x 32 .*9 x 9: set model.stem to small, or take"),
        ("resnet18", (3, 31, 31), {"weights": "default"}, "31 x 31: set model.image_size to 224, or take larger"),
        ("vit_b_16", (3, 30, 30), {}, r"side of 4 pixels or a multiple .* 30 x 30: set model.image_size to 32\."),
        ("vit_b_16", (3, 96, 90), {}, "side of 16 .* 96 x 90: set model.image_size to 96, or model.stem to small"),
        ("maxvit_t", (3, 32, 32), {}, r"side of 56 .*: set model.image_size to 56\."),
        ("resnet18", (3, 32, 32), {"trained": "head"}, "rest of resnet18 has random .* model.weights to default, or"),
        ("squeezenet1_1", (3, 32, 32), {"trained": "last_stage", "weights": "default"}, "no stages to tell apart"),
    ],
)
def test_what_a_network_can_not_do_is_said_with_what_to_change(
    settings: Config, name: str, shape: tuple[int, int, int], values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        built(settings, name, noise(*shape), **values)
