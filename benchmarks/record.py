"""A training after the CIFAR speed records, for gpu.py: how far this project's parts are from them on one machine.

After airbench94_muon (Jordan 2024, https://github.com/KellerJordan/cifar10-airbench): all 50,000 images, batches of
2,000, eight epochs, Muon for the filters, which are renormalised before each step, SGD for head and norms, rates that
fall linearly to 0, and as a figure of its own test-time augmentation by six views. Where the device computes in bf16,
filters and head are bf16 themselves (there they are fp16), without a copy in float32; norms stay float32. Left out: a
trained bias of the whitening, and compiling. It is no recipe of params.yaml: the pipeline has no training without
validation images, and its weights are float32.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from archives import Archive
from gpu_phases import recipe
from torch import Tensor, nn, optim
from torch.nn import functional as F

from pipeline import networks
from pipeline.batches.batches import TrainingBatches
from pipeline.config import Augment
from pipeline.networks import Classifier
from pipeline.networks.speed import LOGIT_SCALE
from pipeline.training import loop
from pipeline.training.device import Device
from pipeline.training.optimizers import Muon

FILTER_RATE, FILTER_MOMENTUM = 0.24, 0.6
NORM_RATE, HEAD_RATE, MOMENTUM = 0.053, 0.67, 0.85
"""Of gradients that are sums over a batch, as theirs are."""
DECAY_AN_IMAGE = 2e-6
LABEL_SMOOTHING = 0.2


class Size(NamedTuple):
    """What a test makes smaller."""

    width: int = 64
    epochs: int = 8
    batch_size: int = 2_000


def course(archive: Archive, device: Device, seed: int, size: Size) -> Iterator[tuple[float, float, float]]:
    """Seconds of training, and percent of the test set with one view and with six, after each epoch."""
    values = {"model.depth": 8, "model.width": size.width, "model.stages": "wide"}
    loader, test = device.loader(archive.training), device.loader(archive.test)
    everything = np.arange(len(archive.training.labels))
    began = time.perf_counter()
    network = networks.build(recipe("shipped", **values).model, archive.meta, seed)
    sample = archive.training.gather(everything[:: max(1, len(everything) // 2_000)])
    network.prepare(torch.from_numpy(sample).permute(0, 3, 1, 2))
    if device.precision == "bf16":
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.bfloat16()
    loop.place(network, device)
    how = Augment.model_validate({"policy": "crop_flip", "padding": 1 / 16, "padding_mode": "reflect"})
    batches = TrainingBatches(
        loader, everything, batch_size=size.batch_size, policy=how, fill=archive.meta.mean, seed=seed
    )
    filters, optimizers = _optimizers(network, device, min(size.batch_size, len(everything)))
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    trained_s, step, steps = time.perf_counter() - began, 0, size.epochs * batches.steps
    for number in range(1, size.epochs + 1):
        began = time.perf_counter()
        network.train()
        for batch in batches.epoch(number):
            for optimizer, of_groups in zip(optimizers, rates, strict=True):
                for group, rate in zip(optimizer.param_groups, of_groups, strict=True):
                    group["lr"] = rate * (1 - step / steps)
                optimizer.zero_grad()
            with device.autocast():
                logits = network(batch.images)
            F.cross_entropy(logits.float(), batch.labels, label_smoothing=LABEL_SMOOTHING, reduction="sum").backward()
            with torch.no_grad():
                for weight in filters:
                    weight.mul_(len(weight) ** 0.5 / weight.norm())
            for optimizer in optimizers:
                optimizer.step()
            step += 1
        device.synchronize()
        trained_s += time.perf_counter() - began
        right = torch.zeros(2, device=device.handle)
        network.eval()
        with torch.inference_mode(), device.autocast():
            for images, labels in test.load(torch.arange(len(archive.test.labels)), size.batch_size):
                for index, logits in enumerate(views(network, images.permute(0, 3, 1, 2))):
                    right[index] += (logits.argmax(1) == labels).sum()
        plain, six = (100 * right / len(archive.test.labels)).tolist()
        yield trained_s, plain, six


def _optimizers(
    network: Classifier, device: Device, batch_size: int
) -> tuple[list[nn.Parameter], list[optim.Optimizer]]:
    """The filters, and the optimisers of all weights."""
    head = network.head[0]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad and parameter is not head]
    filters = [parameter for parameter in trained if parameter.ndim == 4]
    norms = [parameter for parameter in trained if parameter.ndim == 1]
    # Their logits are a mean over the features of weights of about 1. The rate is that of weights which are smaller and
    # whose sums are multiplied by LOGIT_SCALE: it has the square of the factor between the two.
    head_rate = HEAD_RATE * (1 / head.shape[1] / LOGIT_SCALE) ** 2
    groups = [
        {"params": norms, "lr": NORM_RATE, "weight_decay": DECAY_AN_IMAGE * batch_size / NORM_RATE},
        {"params": [head], "lr": head_rate, "weight_decay": DECAY_AN_IMAGE * batch_size / head_rate},
    ]
    precision = torch.bfloat16 if device.precision == "bf16" else torch.float32
    orthogonal = [{"params": filters, "orthogonal": True}]
    return filters, [
        optim.SGD(groups, momentum=MOMENTUM, nesterov=True, fused=device.fused_optimizer),
        Muon(orthogonal, FILTER_RATE, FILTER_MOMENTUM, precision, packed=device.waits_for_launches),
    ]


def views(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, classes] of images uint8 [N, C, H, W] as they are, and by six views.

    These are the image, and the image moved by a pixel along both diagonals, each with its mirror image; the moved ones
    have half of the weight.
    """
    around = F.pad(images.float(), (1, 1, 1, 1), mode="reflect")
    plain = network(images)
    pairs = [plain + network(images.flip(3))]
    pairs += [network(moved) + network(moved.flip(3)) for moved in (around[:, :, :-2, :-2], around[:, :, 2:, 2:])]
    return plain, pairs[0] / 4 + (pairs[1] + pairs[2]) / 8
