"""Temperature scaling (Guo et al. 2017, "On calibration of modern neural networks", section 4.2).

A network trained with label smoothing is right more often than its probabilities say. One number mends most of that:
its logits are divided by a temperature, which changes no prediction. Here the last layer's weights are divided, so the
network stays what it was: whatever predicts with it, an export too, has the calibrated probabilities.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.networks import Classifier


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature with the least cross entropy of logits [N, classes] and labels int64 [N], usually of validation.

    Its logarithm has a standard normal prior. Beside some hundred images it has no weight. Without it few images that
    are all predicted right would ask for a temperature of 0.
    """
    logits, labels = logits.detach().cpu().double(), labels.cpu()
    log_scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_scale], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(log_scale.exp() * logits, labels, reduction="sum") + log_scale**2 / 2
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scale = log_scale.detach().exp()
    before, after = (F.cross_entropy(factor * logits, labels, reduction="none") for factor in (torch.ones(()), scale))
    gain = before - after
    clear = gain.mean() > 2 * gain.std(correction=0) / math.sqrt(len(gain))
    return 1 / scale.item() if clear else 1.0


def divide_logits(network: Classifier, divisor: float) -> None:
    """Divides the logits of a network by a number, in its weights."""
    network.network.divide_logits(divisor)
