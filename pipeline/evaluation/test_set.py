"""The test set. Only this module reads it: whoever scores a network on it comes here."""

from pathlib import Path

import numpy as np

from pipeline.batches.batches import OrderedBatches
from pipeline.batches.images import Images, load_images
from pipeline.batches.loaders import Loader
from pipeline.config import Config, Model
from pipeline.evaluation.inference import load_network, predict, prepared_device
from pipeline.evaluation.metrics import Floats, Ints
from pipeline.files import Project
from pipeline.records import Meta, load_meta
from pipeline.training import loop
from pipeline.training.device import Device
from pipeline.training.failures import memory_errors


def load_all(project: Project, meta: Meta) -> Images:
    """The images of the test set and their classes, memory-mapped. Raises DataError."""
    return load_images(project.test_data, meta)


def load(project: Project, meta: Meta, settings: Config, device: Device) -> tuple[Loader, OrderedBatches]:
    """The test set, and its batches in order. Raises DataError."""
    images = load_all(project, meta)
    loader = device.loader(images)
    return loader, OrderedBatches(loader, np.arange(len(images.labels)), batch_size=settings.evaluate.batch_size)


def predict_test_set(
    project: Project, model: Model, weights: Path, settings: Config, *, flip: bool = False
) -> tuple[Floats, Ints]:
    """Predictions for the test set in fp32, float64 [N, classes], and its labels, int64 [N].

    The network is built from `model`, with the `weights` that networks.save wrote. `settings` has the device, its
    threads and the batch size; `flip` is test-time augmentation.
    Raises ConfigError, DataError and OutOfMemory; PipelineError where the weights are missing or don't fit.
    """
    meta = load_meta(project.meta)
    device = prepared_device(settings)
    network = load_network(model, weights, meta)
    with memory_errors(device, settings.evaluate.batch_size, "evaluate.batch_size"):
        loop.place(network, device)
        loader, batches = load(project, meta, settings, device)
        return predict(network, batches, device, flip=flip), loader.images.labels
