"""What a network costs: its weights and its operations."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.records import Meta


def parameters(classifier: nn.Module) -> int:
    """The number of weights, frozen ones included."""
    return sum(parameter.numel() for parameter in classifier.parameters())


def macs(classifier: nn.Module, meta: Meta) -> int:
    """Multiply-accumulate operations of convolutions and matrix products for one image.

    The first call in a process imports torch._dynamo, which takes a second, unless an optimizer did so.
    """
    classifier.eval()
    device = next(classifier.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        classifier(torch.zeros(1, *meta.shape, dtype=torch.uint8, device=device))
    return int(counter.get_total_flops()) // 2
