"""A network from its file, and what it predicts."""

from collections.abc import Iterator
from pathlib import Path

from pipeline import networks
from pipeline.batches.batches import Batch, Epochs
from pipeline.config import Config, Model
from pipeline.evaluation.metrics import Floats
from pipeline.machine import Machine
from pipeline.networks import Classifier
from pipeline.records import Meta
from pipeline.training import loop
from pipeline.training.device import Device
from pipeline.training.failures import memory_errors


def prepared_device(settings: Config) -> Device:
    """The device of params.yaml in fp32, the precision that models are exported in. Raises ConfigError, OutOfMemory."""
    device = Device.choose(settings.train.device, "fp32", settings.train.threads, Machine.probe())
    with memory_errors(device, settings.evaluate.batch_size, "evaluate.batch_size"):
        device.prepare()
    return device


def load_network(model: Model, weights: Path, meta: Meta) -> Classifier:
    """The network with the weights of a file, on the CPU. Raises PipelineError where they are missing or don't fit."""
    network = networks.build(model, meta, seed=0, initial=False)
    networks.load(network, weights)
    return network


def predict(network: Classifier, batches: Epochs, device: Device, *, flip: bool = False) -> Floats:
    """Probabilities float64 [N, classes]; with `flip` the mean of those of each image and of its mirror image."""
    logits, _ = loop.infer(network, batches, device)
    probabilities: Floats = logits.cpu().double().softmax(dim=1).numpy()
    if flip:
        probabilities = (probabilities + predict(network, _Mirrored(batches), device)) / 2
    return probabilities


class _Mirrored:
    """Batches with every image mirrored left to right."""

    def __init__(self, batches: Epochs) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def steps(self) -> int:
        return self._batches.steps

    def epoch(self, number: int) -> Iterator[Batch]:
        for batch in self._batches.epoch(number):
            yield batch._replace(images=batch.images.flip(-1))
