import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import nn

from pipeline import networks
from pipeline.config import FAMILIES, Config
from pipeline.errors import ConfigError, PipelineError
from pipeline.records import Meta


def built(
    settings: Config, shape: tuple[int, int, int] = (3, 32, 32), seed: int = 0, **values: Any
) -> networks.Classifier:
    """An untrained network of few weights for images of three classes."""
    meta = Meta("noise", ("a", "b", "c"), shape, (0.5,) * shape[0], (0.25,) * shape[0], {}, "", "")
    values = {"width": 4, "image_size": None, "stem": None} | values
    model = settings.with_values({f"model.{key}": value for key, value in values.items()}).model
    return networks.build(model, meta, seed, initial=False)


def test_equal_seeds_give_equal_weights_and_leave_the_global_random_numbers_alone(settings: Config, meta: Meta) -> None:
    state = torch.get_rng_state()
    first, second, other = (networks.build(settings.model, meta, seed) for seed in (1, 1, 2))
    weights = [network.state_dict()["network.stem.weight"] for network in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_classifier_takes_raw_pixels_and_normalises_them_itself(settings: Config, meta: Meta) -> None:
    classifier = networks.build(settings.model, meta, 0).eval()
    pixels = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    normalised = (pixels / 255 - 0.5) / 0.25
    torch.testing.assert_close(classifier(pixels), classifier.network(normalised))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_a_logit_per_class_also_in_bf16_and_channels_last_and_equal_seeds_give_equal_weights(
    settings: Config, family: str
) -> None:
    first, second, other = (built(settings, (1, 32, 40), seed, family=family) for seed in (1, 1, 2))
    weights = [torch.cat([value.flatten() for value in network.parameters()]) for network in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    images = torch.randint(256, (2, 1, 32, 40), dtype=torch.uint8)
    expected = first.eval()(images)
    turned = second.eval().to(memory_format=torch.channels_last)
    torch.testing.assert_close(turned(images), expected, rtol=1e-3, atol=1e-3 * expected.std().item())
    first.train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = first(images)
    assert logits.shape == (2, 3)
    logits.float().sum().backward()
    assert all(parameter.grad is not None for parameter in first.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "torchvision"])  # test_zoo.py has its
def test_dropout_is_before_the_last_layer_of_every_family_and_the_head_is_that_layer(
    settings: Config, family: str
) -> None:
    images = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8)
    features = []
    for dropout in (0.0, 0.5):
        classifier = built(settings, family=family, dropout=dropout).train()
        classifier.network.classify.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].detach()))
        classifier(images)
    whole, thinned = features
    torch.testing.assert_close(thinned[thinned != 0], 2 * whole[thinned != 0])
    assert (thinned[whole != 0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert isinstance(classifier.network.classify, nn.Linear)
    assert classifier.head == list(classifier.network.classify.parameters())
    assert classifier.head[0].shape == (3, whole.shape[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"family": "resnet", "shortcut": "projection"},
        {"family": "plain"},
        {"family": "vgg11"},
        {"family": "torchvision"},
        {"family": "torchvision", "image_size": 48},
        {"family": "speed"},
    ],
)
def test_families_can_be_exported_for_batches_of_any_size(settings: Config, values: dict[str, Any]) -> None:
    classifier = built(settings, (1, 32, 32), **values).eval()
    example = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    exported = torch.export.export(classifier, (example,), dynamic_shapes=[{0: torch.export.Dim.AUTO}])
    for count in (1, 2, 5):
        images = torch.randint(256, (count, 1, 32, 32), dtype=torch.uint8)
        torch.testing.assert_close(exported.module()(images), classifier(images))


@pytest.mark.parametrize(
    ("values", "sides", "remedy"),
    [
        ({"family": "vgg11"}, (32, 31), "32 x 31: set model.family to resnet, which needs 4, or take larger"),
        ({"family": "plain"}, (3, 8), "3 x 8: take larger"),
        ({"family": "speed"}, (8, 8), "8 x 8: "),
    ],
)
def test_images_too_small_for_the_halvings_of_a_family_are_reported(
    settings: Config, values: dict[str, Any], sides: tuple[int, int], remedy: str
) -> None:
    least = {"vgg11": 32, "plain": 4, "speed": 9}[values["family"]]
    with pytest.raises(
        ConfigError, match=rf"{values['family']} halves .* until {least} x {least} .*noise have {remedy}"
    ):
        built(settings, (1, *sides), **values)
    built(settings, (1, least, least), **values).eval()(torch.zeros(1, 1, least, least, dtype=torch.uint8))


def test_macs_of_a_vgg_16_on_cifar_images_are_those_that_are_known(settings: Config) -> None:
    """0.31 billion, as published for the usual CIFAR-10 network of this name."""
    cifar = Meta("cifar10", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")
    model = settings.with_values({"model.family": "vgg16", "model.width": 64}).model
    assert round(networks.macs(networks.build(model, cifar, 0), cifar) / 1e9, 2) == 0.31


def test_macs_of_a_resnet_20_on_cifar_images_are_the_published_41_million(settings: Config, meta: Meta) -> None:
    resnet20 = settings.with_values({"model.depth": 20, "model.width": 16}).model
    cifar = Meta("cifar10", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")
    assert round(networks.macs(networks.build(resnet20, cifar, 0), cifar) / 1e6, 1) == 40.6


def test_saved_weights_come_back(settings: Config, meta: Meta, tmp_path: Path) -> None:
    saved, loaded = (networks.build(settings.model, meta, seed) for seed in (1, 2))
    networks.save(saved, tmp_path / "model.safetensors")
    networks.load(loaded, tmp_path / "model.safetensors")
    assert all(torch.equal(one, loaded.state_dict()[name]) for name, one in saved.state_dict().items())


def test_weights_of_another_network_and_a_missing_or_damaged_file_are_reported(
    settings: Config, meta: Meta, tmp_path: Path
) -> None:
    network = networks.build(settings.model, meta, 0)
    path = tmp_path / "model.safetensors"
    with pytest.raises(PipelineError, match="is missing: run `dvc repro`"):
        networks.load(network, path)
    networks.save(network, path)
    with pytest.raises(PipelineError, match="does not hold the network"):
        networks.load(networks.build(settings.with_values({"model.depth": 14}).model, meta, 0), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PipelineError, match="does not hold the network"):
        networks.load(network, path)


def test_a_file_of_weights_says_what_goes_in_and_what_comes_out(settings: Config, meta: Meta, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    networks.save(networks.build(settings.model, replace(meta, name="folder", classes=("été", "冬")), seed=0), path)
    with safetensors.safe_open(path, "pt") as file:
        found = json.loads(file.metadata()["description"])
    assert found.pop("model") == settings.model.model_dump()
    assert found == {
        "data": "folder",
        "digest": meta.digest,
        "classes": ["été", "冬"],
        "shape": [3, 8, 8],
        "resize": "centre square, bilinear with antialiasing",
        "highest_float": None,
    }
