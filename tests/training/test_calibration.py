import math

import pytest
import torch
from torch.nn import functional as F

from pipeline import networks
from pipeline.config import Config
from pipeline.records import Meta
from pipeline.training.calibration import divide_logits, temperature


def drawn(scale: float, count: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `scale` times too large for labels that follow their probabilities."""
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, 5, generator=random)
    labels = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    return scale * logits, labels


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_what_logits_are_too_large_by(scale: float) -> None:
    assert temperature(*drawn(scale)) == pytest.approx(scale, rel=0.03)


def test_no_other_temperature_has_a_lower_cross_entropy() -> None:
    logits, labels = drawn(3.0, count=2_000)
    best = temperature(logits, labels)
    losses = [F.cross_entropy(logits / (best * factor), labels).item() for factor in (0.97, 1.0, 1.03)]
    assert min(losses) == losses[1]


def test_a_gain_that_may_be_chance_changes_nothing() -> None:
    assert temperature(*drawn(1.0, count=150)) == 1
    assert temperature(*drawn(4.0, count=150)) == pytest.approx(4, rel=0.3)


def test_a_few_images_that_are_all_right_give_a_finite_temperature() -> None:
    found = temperature(torch.eye(3), torch.arange(3))
    assert 0.1 < found < 1


@pytest.mark.parametrize("family", ["resnet", "vgg11", "speed", "torchvision"])
def test_dividing_the_logits_of_any_family_changes_nothing_else(settings: Config, family: str) -> None:
    meta = Meta("noise", ("a", "b", "c"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")
    values = {"family": family, "width": 4, "depth": 8, "image_size": None, "stem": None}
    network = networks.build(settings.model.model_copy(update=values), meta, seed=0, initial=False).eval()
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        before = network(images)
        divide_logits(network, math.pi)
        torch.testing.assert_close(network(images), before / math.pi)
