from pathlib import Path

import pytest
import torch

from pipeline import models
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.meta import Meta


def test_equal_seeds_give_equal_weights_and_leave_the_global_random_numbers_alone(settings: Config, meta: Meta) -> None:
    state = torch.get_rng_state()
    first, second, other = (models.build(settings.model, meta, seed) for seed in (1, 1, 2))
    weights = [network.state_dict()["network.stem.weight"] for network in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_classifier_takes_raw_pixels_and_normalises_them_itself(settings: Config, meta: Meta) -> None:
    classifier = models.build(settings.model, meta, 0).eval()
    pixels = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    normalised = (pixels / 255 - 0.5) / 0.25
    torch.testing.assert_close(classifier(pixels), classifier.network(normalised))


def test_macs_of_a_resnet_20_on_cifar_pictures_are_the_published_41_million(settings: Config, meta: Meta) -> None:
    resnet20 = settings.with_values({"model.depth": 20, "model.width": 16}).model
    cifar = Meta("cifar10", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")
    assert round(models.macs(models.build(resnet20, cifar, 0), cifar) / 1e6, 1) == 40.6


def test_saved_weights_come_back(settings: Config, meta: Meta, tmp_path: Path) -> None:
    saved, loaded = (models.build(settings.model, meta, seed) for seed in (1, 2))
    models.save(saved, tmp_path / "model.safetensors")
    models.load(loaded, tmp_path / "model.safetensors")
    assert all(torch.equal(one, loaded.state_dict()[name]) for name, one in saved.state_dict().items())


def test_weights_of_another_network_and_a_missing_or_damaged_file_are_told(
    settings: Config, meta: Meta, tmp_path: Path
) -> None:
    network = models.build(settings.model, meta, 0)
    path = tmp_path / "model.safetensors"
    with pytest.raises(PipelineError, match="is missing: run `dvc repro`"):
        models.load(network, path)
    models.save(network, path)
    with pytest.raises(PipelineError, match="does not hold the network"):
        models.load(models.build(settings.with_values({"model.depth": 14}).model, meta, 0), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PipelineError, match="does not hold the network"):
        models.load(network, path)
