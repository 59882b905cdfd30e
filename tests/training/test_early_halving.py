import itertools
from pathlib import Path

import pytest
import safetensors
import torch
from stripes import striped
from torch import nn

from pipeline import networks
from pipeline.batches.data import Pictures
from pipeline.config import Config
from pipeline.epoch import Epoch
from pipeline.meta import Meta
from pipeline.training import cross_validation, loop
from pipeline.training.device import Device
from pipeline.training.loop import Parts

STRIPES = Meta("stripes", ("low", "high"), (3, 12, 12), (0.5,) * 3, (0.25,) * 3, {"train": 64, "test": 16}, "", "")


@pytest.fixture
def stripes() -> Pictures:
    return striped(12)


@pytest.fixture
def early(settings: Config) -> Config:
    """Epochs 1 to 3 of 5 halve early."""
    return settings.with_values(
        {
            "model.family": "speed",
            "model.depth": 5,
            "model.width": 4,
            "train.epochs": 5,
            "train.batch_size": 16,
            "train.validation_share": 0.25,
            "train.ema": 0.9,
            "train.early_halving_until": 0.6,
        }
    )


def test_the_first_epochs_halve_early_and_are_validated_so(early: Config, stripes: Pictures, cpu: Device) -> None:
    parts = Parts.of(early, STRIPES, stripes, cpu)
    ways = []
    for epoch in loop.fit(*parts, early.train, cpu):
        ways.append(parts.network.halves_early)
        logits, labels = loop.infer(parts.network, parts.validation, cpu)
        assert nn.functional.cross_entropy(logits, labels).item() == epoch.validation_loss
    assert ways == [True, True, True, False, False]


def test_they_have_the_numbers_of_a_network_that_halves_early(early: Config, stripes: Pictures, cpu: Device) -> None:
    whole = early.with_values({"model.halving": "early", "train.early_halving_until": 0.0})
    late = early.with_values({"train.early_halving_until": 0.0})

    def losses(settings: Config) -> list[float]:
        return [one.training_loss for one in loop.fit(*Parts.of(settings, STRIPES, stripes, cpu), settings.train, cpu)]

    found = losses(early)
    assert found[:3] == losses(whole)[:3]
    assert found[3] != losses(whole)[3]
    assert found[0] != losses(late)[0]


@pytest.mark.parametrize(("share", "epochs", "count"), [(0.6, 5, 3), (0.99, 5, 4), (0.6, 1, 0), (0.0, 5, 0)])
def test_the_last_epoch_never_halves_early(
    early: Config, stripes: Pictures, cpu: Device, share: float, epochs: int, count: int
) -> None:
    settings = early.with_values({"train.early_halving_until": share, "train.epochs": epochs})
    network = Parts.of(settings, STRIPES, stripes, cpu).network
    ways = []
    for number in range(1, epochs + 1):
        loop.halve(network, settings.train, number)
        ways.append(network.halves_early)
    assert ways == [True] * count + [False] * (epochs - count)


def test_other_families_have_no_such_epochs(early: Config, stripes: Pictures, cpu: Device) -> None:
    settings = early.with_values({"model.family": "resnet", "model.depth": 8})
    network = Parts.of(settings, STRIPES, stripes, cpu).network
    loop.halve(network, settings.train, 1)
    assert not network.halves_early


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_a_training_that_goes_on_halves_as_one_that_was_never_stopped(
    early: Config, stripes: Pictures, cpu: Device, tmp_path: Path, stride: int
) -> None:
    whole = Parts.of(early, STRIPES, stripes, cpu)
    wanted = [(one.training_loss, one.validation_loss) for one in loop.fit(*whole, early.train, cpu)]
    path = tmp_path / "checkpoint.pt"
    found: list[tuple[float, float]] = []
    while len(found) < early.train.epochs:
        parts = Parts.of(early, STRIPES, stripes, cpu)
        fit = loop.fit(*parts, early.train, cpu, path=path, checkpoint=loop.Checkpoint.load(path))
        found += [(one.training_loss, one.validation_loss) for one in itertools.islice(fit, stride)]
    assert found == wanted
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parts.network.state_dict()[name])


def test_a_network_from_a_checkpoint_is_scored_as_it_was_trained(
    early: Config, stripes: Pictures, cpu: Device, tmp_path: Path
) -> None:
    before = cross_validation.Training.of(early, STRIPES, stripes, cpu, tmp_path)
    epoch = next(before.fit())
    after = cross_validation.Training.of(early, STRIPES, stripes, cpu, tmp_path)
    logits, labels = after.infer()
    assert nn.functional.cross_entropy(logits, labels).item() == epoch.validation_loss


def test_weights_of_the_early_epochs_are_marked_on_disk(
    early: Config, stripes: Pictures, cpu: Device, tmp_path: Path
) -> None:
    parts, path = Parts.of(early, STRIPES, stripes, cpu), tmp_path / "model.safetensors"
    for epoch in loop.fit(*parts, early.train, cpu):
        networks.save(parts.network, path)
        loaded = networks.build(early.model, STRIPES, seed=1)
        loaded.halve_early(True)  # what the file says counts
        networks.load(loaded, path)
        logits, labels = loop.infer(loaded, parts.validation, cpu)
        assert nn.functional.cross_entropy(logits, labels).item() == epoch.validation_loss
    with safetensors.safe_open(path, "pt") as file:
        assert not file.metadata(), "finished trainings need no mark"


def test_early_stopping_waits_until_they_are_over(early: Config) -> None:
    train = early.with_values({"train.early_stopping": 1, "train.epochs": 10}).train  # six of them early
    falling = [Epoch(number, 0.1, 1.0, 0.5, 1.0, 1.0 / number, 1.0, 1.0) for number in range(1, 9)]
    assert [loop.over(falling[:count], train) for count in range(9)] == [False] * 8 + [True]
    none = train.model_copy(update={"early_halving_until": 0.0})
    assert [loop.over(falling[:count], none) for count in range(4)] == [False, False, True, True]


def test_early_stopping_compares_epochs_of_the_network_that_is_kept_alone(early: Config) -> None:
    train = early.with_values({"train.early_stopping": 2, "train.epochs": 10}).train  # six of them early
    accuracies = [0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.6, 0.7, 0.6, 0.6]
    epochs = [Epoch(number, 0.1, 1.0, 0.5, 1.0, one, 1.0, 1.0) for number, one in enumerate(accuracies, 1)]
    assert [loop.over(epochs[:count], train) for count in range(6, 11)] == [False] * 4 + [True]
