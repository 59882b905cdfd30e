from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from pipeline import networks
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.networks.speed import PATCH, Speed, Stage
from pipeline.records import Meta

COLOUR = Meta("noise", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")


def images(count: int = 64) -> torch.Tensor:
    """Smooth images [N, 3, 32, 32], whose neighbouring pixels are similar."""
    random = torch.Generator().manual_seed(0)
    return F.interpolate(torch.randn(count, 3, 8, 8, generator=random), size=32, mode="bilinear")


@pytest.mark.parametrize(
    ("stages", "width", "channels"), [("doubling", 48, (48, 96, 192)), ("wide", 64, (64, 256, 256))]
)
def test_its_size_is_that_of_its_stages(stages: str, width: int, channels: tuple[int, ...]) -> None:
    network = Speed(8, width, stages=stages, channels=3, classes=10)  # type: ignore[arg-type]
    convolutions = 9 * sum(inputs * outputs + outputs**2 for inputs, outputs in pairwise((24, *channels)))
    norms = 2 * 2 * sum(channels)
    assert sum(p.numel() for p in network.parameters()) == 24 * 12 + convolutions + norms + channels[-1] * 10


@pytest.mark.parametrize(("depth", "convolutions"), [(5, 1), (8, 2), (11, 3)])
def test_its_depth_counts_the_layers_with_weights(depth: int, convolutions: int) -> None:
    network = Speed(depth, 8, channels=3, classes=2)
    assert [len(stage.convolutions) for stage in network.stages] == [convolutions] * 3  # type: ignore[arg-type]
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 2)


def test_whitened_patches_have_unit_variance_and_nothing_in_common() -> None:
    network, seen = Speed(5, 8, channels=3, classes=2), images()
    network.prepare(seen)
    components = 3 * PATCH**2
    outputs = network.patches(seen).transpose(0, 1).flatten(1)
    assert torch.equal(outputs[:components], -outputs[components:])
    covariance = outputs[:components] @ outputs[:components].T / outputs.shape[1]
    assert torch.allclose(covariance, torch.diag(covariance.diagonal()), atol=1e-3)
    # The smallest components of smooth images are nearly noise, and stay small.
    assert (covariance.diagonal() < 1.01).all()
    assert covariance.diagonal().max() > 0.99
    assert not network.patches.weight.requires_grad


def test_each_convolution_begins_by_handing_its_inputs_on() -> None:
    stage = Speed(8, 16, channels=3, classes=2).stages[1]
    first, second = stage.convolutions  # type: ignore[misc]
    features = torch.rand(2, 32, 8, 8)
    assert torch.allclose(first(features[:, :16])[:, :16], features[:, :16])
    assert torch.allclose(second(features), features)


def test_a_third_convolution_is_added_to_the_first() -> None:
    stage = Speed(11, 8, channels=3, classes=2).stages[0].eval()
    for norm in list(stage.norms)[1:]:  # type: ignore[arg-type]
        torch.nn.init.constant_(norm.weight, 0.0)  # type: ignore[arg-type]
    features = torch.rand(2, 24, 16, 16)
    first = F.silu(stage.norms[0](F.max_pool2d(stage.convolutions[0](features), 2)))  # type: ignore[index]
    assert torch.allclose(stage(features), first)


@pytest.mark.parametrize("side", [4, 9, 15])
def test_a_stage_leaves_half_of_the_pixels(side: int) -> None:
    assert Stage(4, 6, 2)(torch.rand(2, 4, side, side + 1)).shape == (2, 6, side // 2, (side + 1) // 2)


def test_a_classifier_prepares_it_by_images(settings: Config) -> None:
    model = settings.model.model_copy(update={"family": "speed", "depth": 5, "width": 8})
    classifier = networks.build(model, COLOUR, seed=0)
    before = classifier.network.patches.weight.clone()
    classifier.prepare((images() * 40 + 128).clamp(0, 255).to(torch.uint8))
    assert not torch.equal(classifier.network.patches.weight, before)


def test_an_image_that_is_too_small_for_it_gets_a_sentence(settings: Config, meta: Meta) -> None:
    model = settings.model.model_copy(update={"family": "speed", "depth": 8, "width": 8})
    with pytest.raises(ConfigError, match=r"model\.family speed .* 9 x 9"):
        networks.build(model, meta, seed=0)
