"""Trainings with convolutions by Fourier transform."""

import itertools
from contextlib import closing
from pathlib import Path

import pytest
import torch
from stripes import striped
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.networks import fourier
from pipeline.records import Meta
from pipeline.training import loop
from pipeline.training.device import Device
from pipeline.training.parts import Parts

STRIPES = Meta("stripes", ("low", "high"), (3, 12, 12), (0.5,) * 3, (0.25,) * 3, {"train": 64, "test": 16}, "", "")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of the features convolved by the transform, which is taken for the smallest convolutions here."""
    found: list[torch.Size] = []
    convolve = fourier.convolve

    def noted(features: Tensor, weight: Tensor) -> Tensor:
        found.append(features.shape)
        return convolve(features, weight)

    monkeypatch.setattr(fourier, "convolve", noted)
    monkeypatch.setattr(fourier, "_LEAST_IMAGES", 16)
    monkeypatch.setattr(fourier, "_LEAST_CHANNELS", 8)
    return found


@pytest.fixture(params=[0.0, 0.9])
def auto(settings: Config, request: pytest.FixtureRequest) -> Config:
    """Three steps of 16 images per epoch, with and without averaged weights."""
    return settings.with_values(
        {
            "model.family": "speed",
            "model.depth": 8,
            "model.width": 8,
            "train.epochs": 3,
            "train.batch_size": 16,
            "train.validation_share": 0.25,
            "train.ema": request.param,
        }
    )


def test_a_training_uses_the_transform_and_evaluation_does_not(
    auto: Config, cpu: Device, calls: list[torch.Size]
) -> None:
    parts = Parts.build(auto, STRIPES, striped(12), cpu)
    for number, epoch in enumerate(loop.fit(*parts, auto.train, cpu), start=1):
        # The second convolution of the first stage, both of the others: of 5, 5, 2, 2 and 1 pixels to a side.
        assert [tuple(shape[2:]) for shape in calls] == number * 3 * [(5, 5), (5, 5), (2, 2), (2, 2), (1, 1)]
        logits, labels = loop.infer(parts.network, parts.validation, cpu)
        assert nn.functional.cross_entropy(logits, labels).item() == epoch.validation_loss


def test_direct_convolutions_give_the_same_but_for_rounding(
    auto: Config, cpu: Device, calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for most_pixels in (0, 10):
        assert not calls
        monkeypatch.setattr(fourier, "_MOST_PIXELS", most_pixels)
        parts = Parts.build(auto, STRIPES, striped(12), cpu)
        found.append([epoch.training_loss for epoch in loop.fit(*parts, auto.train, cpu)])
    assert calls
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_a_resumed_training_ends_with_the_same_numbers(
    auto: Config, cpu: Device, calls: list[torch.Size], tmp_path: Path
) -> None:
    whole = Parts.build(auto, STRIPES, striped(12), cpu)
    wanted = [(one.training_loss, one.validation_loss) for one in loop.fit(*whole, auto.train, cpu)]
    path, found = tmp_path / "checkpoint.pt", []
    for _ in range(auto.train.epochs):
        parts = Parts.build(auto, STRIPES, striped(12), cpu)
        fit = loop.fit(*parts, auto.train, cpu, path=path, checkpoint=loop.Checkpoint.load(path))
        with closing(fit):
            found += [(one.training_loss, one.validation_loss) for one in itertools.islice(fit, 1)]
    assert found == wanted
    assert calls
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parts.network.state_dict()[name])
