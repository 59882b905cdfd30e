"""Networks of one architecture -> one network whose weights are the mean of theirs, a soup (Wortsman et al. 2022).

It costs at prediction what one network costs, where an ensemble costs as much as its members together.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.batches.batches import Epochs
from pipeline.networks import Classifier
from pipeline.training.device import Device


def mean(networks: Sequence[Classifier]) -> Classifier:
    """A network with the mean of the weights; numbers that are counts are the first network's.

    Its batch norms have the mean of the statistics, which is of no use but where all networks have the same.
    """
    averaged = copy.deepcopy(networks[0])
    states = [network.state_dict() for network in networks]
    averaged.load_state_dict(
        {
            name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
            if value.is_floating_point()
            else value
            for name, value in states[0].items()
        }
    )
    return averaged


def recalibrate_batch_norm(networks: Sequence[Classifier], batches: Epochs, device: Device) -> Classifier:
    """The mean of networks that are on the device, with statistics of its own in its batch norms.

    What a layer of averaged weights puts out has neither the means of the networks' outputs nor their variances
    (Izmailov et al. 2018, section 3.2), so they are measured: over `batches`, images that the networks were trained
    on, without augmentation, as those to be predicted come without. Statistics that all networks share (of layers that
    none of them trained) stay.
    """
    averaged = mean(networks)
    measured = [
        module
        for name, module in averaged.named_modules()
        if isinstance(module, _BatchNorm) and not _shared([network.get_submodule(name) for network in networks])
    ]
    if not measured:
        return averaged
    averaged.eval()
    momenta = [module.momentum for module in measured]
    for module in measured:
        module.train()
        module.reset_running_stats()
        module.momentum = None  # the plain mean over all batches
    with torch.inference_mode(), device.autocast():
        for batch in batches.epoch(0):
            averaged(batch.images)
    for module, momentum in zip(measured, momenta, strict=True):
        module.momentum = momentum
    return averaged.eval()


def _shared(norms: Sequence[nn.Module]) -> bool:
    """Whether all batch norms have the same statistics."""
    first = norms[0]
    return all(
        torch.equal(getattr(first, name), getattr(other, name))
        for other in norms[1:]
        for name in ("running_mean", "running_var")
    )
