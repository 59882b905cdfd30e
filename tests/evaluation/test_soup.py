import copy

import numpy as np
import pytest
import torch

from pipeline import networks
from pipeline.batches.batches import OrderedBatches
from pipeline.batches.images import Images
from pipeline.batches.loaders import Streamed
from pipeline.config import Config
from pipeline.evaluation import ensembles, soup
from pipeline.evaluation.inference import predict
from pipeline.networks import Classifier
from pipeline.records import Meta
from pipeline.training import loop
from pipeline.training.device import Device
from pipeline.training.parts import Parts

LABELS = np.array([0, 1, 0, 1])


@pytest.fixture
def trained(settings: Config, meta: Meta, images: Images, cpu: Device) -> Classifier:
    """A network that tells the two classes apart, without shortcuts: they would do so past averaged layers."""
    settings = settings.with_values(
        {"train.epochs": 12, "train.batch_size": 16, "train.validation_share": 0.25, "train.learning_rate": 0.05}
        | {"model.family": "plain", "model.depth": 20}
    )
    network, batches, validation = Parts.build(settings, meta, images, cpu)
    epochs = list(loop.fit(network, batches, validation, settings.train, cpu))
    assert epochs[-1].validation_accuracy > 0.8
    return network.eval()


@pytest.fixture
def batches(images: Images, cpu: Device) -> OrderedBatches:
    return OrderedBatches(Streamed(images, cpu.handle), np.arange(64), batch_size=32)


def permuted(network: Classifier) -> Classifier:
    """The same function, with the channels inside each block in another order."""
    other = copy.deepcopy(network)
    for block in other.network.stages:
        order = torch.arange(block.first.out_channels).roll(1)
        block.first.weight.data = block.first.weight[order].detach()
        block.second.weight.data = block.second.weight[:, order].detach()
        norm = block.first_norm
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            values.data = values[order].detach()
    return other


def test_a_network_averaged_with_itself_is_itself(trained: Classifier, batches: OrderedBatches, cpu: Device) -> None:
    averaged = soup.recalibrate_batch_norm([trained, copy.deepcopy(trained), trained], batches, cpu)
    assert averaged is not trained
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(averaged.state_dict()[name], value, rtol=1e-6, atol=0, msg=name)


def test_the_mean_of_weights_is_that_of_each(settings: Config, meta: Meta) -> None:
    members = [networks.build(settings.model, meta, seed) for seed in (0, 1, 2)]
    states = [network.state_dict() for network in members]
    before = {name: value.clone() for name, value in states[0].items()}
    for name, value in soup.mean(members).state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, sum(state[name] for state in states) / 3, msg=name)
    assert all(torch.equal(value, states[0][name]) for name, value in before.items())


def test_batch_norms_of_a_soup_have_the_statistics_of_its_own_activations(
    settings: Config, meta: Meta, batches: OrderedBatches, cpu: Device
) -> None:
    one, other = (networks.build(settings.model, meta, seed) for seed in (0, 1))
    for network, scale in ((one, 1.0), (other, 2.0)):
        network.network.stem_norm.running_mean += scale
        network.network.stem_norm.running_var *= scale
    averaged = soup.recalibrate_batch_norm([one, other], batches, cpu)
    with torch.inference_mode():
        seen = [
            averaged.network.stem((batch.images.float() - averaged.mean) / averaged.std) for batch in batches.epoch(0)
        ]
    means = torch.stack([features.mean(dim=(0, 2, 3)) for features in seen]).mean(0)
    variances = torch.stack([features.var(dim=(0, 2, 3)) for features in seen]).mean(0)
    torch.testing.assert_close(averaged.network.stem_norm.running_mean, means)
    torch.testing.assert_close(averaged.network.stem_norm.running_var, variances)
    assert averaged.network.stem_norm.momentum == one.network.stem_norm.momentum
    # Those of other layers were alike in both, and stay.
    assert torch.equal(averaged.network.stages[0].first_norm.running_mean, torch.zeros(4))


def test_the_greedy_soup_takes_a_copy_and_leaves_a_network_whose_channels_are_in_another_order(
    trained: Classifier, images: Images, batches: OrderedBatches, cpu: Device
) -> None:
    def predicted(network: Classifier) -> np.ndarray:
        return predict(network, batches, cpu)

    twin, shuffled = copy.deepcopy(trained), permuted(trained)
    np.testing.assert_allclose(predicted(shuffled), predicted(trained), rtol=1e-3, atol=1e-5)  # the same function
    networks = [trained, shuffled, twin]

    def accuracy_of(some: tuple[int, ...]) -> float:
        averaged = soup.recalibrate_batch_norm([networks[position] for position in some], batches, cpu)
        return ensembles.rank(predicted(averaged), images.labels)[0]

    assert accuracy_of((0, 1)) < accuracy_of((0,)) - 0.1
    assert ensembles.greedy_soup([0, 1, 2], accuracy_of) == (0, 2)
