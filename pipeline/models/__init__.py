"""Networks, one file a family, and their weights on disk.

Every network takes raw pixels (uint8 [N, C, H, W]) and returns logits [N, classes]: it normalises by itself, so that
training, evaluation, prediction and export can't disagree about it.
"""

from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import Model
from pipeline.errors import PipelineError
from pipeline.files import written_whole
from pipeline.meta import Meta
from pipeline.models.resnet import ResNet


class Classifier(nn.Module):
    """Normalisation by the data's mean and standard deviation, then a network."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, meta: Meta) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(meta.mean).view(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(meta.std).view(-1, 1, 1))
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images.float() - self.mean) / self.std)
        return logits


def build(model: Model, meta: Meta, seed: int) -> Classifier:
    """An untrained network for the pictures and classes of `meta`; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResNet(model.depth, model.width, channels=meta.shape[0], classes=len(meta.classes))
    return Classifier(network, meta)


def parameters(classifier: nn.Module) -> int:
    """The number of trained values."""
    return sum(parameter.numel() for parameter in classifier.parameters())


def macs(classifier: nn.Module, meta: Meta) -> int:
    """Multiply-accumulate operations of convolutions and matrix products for one picture."""
    classifier.eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        classifier(torch.zeros(1, *meta.shape, dtype=torch.uint8))
    return int(counter.get_total_flops()) // 2


def save(classifier: Classifier, path: Path) -> None:
    """Writes all weights and buffers in the format safetensors, which holds numbers and can't hold code."""
    weights = {name: value.cpu().contiguous() for name, value in classifier.state_dict().items()}
    with written_whole(path) as aside:
        aside.write_bytes(safetensors.torch.save(weights))


def load(classifier: Classifier, path: Path) -> None:
    """Reads what `save` wrote into a network that was built alike. Raises PipelineError if it doesn't fit."""
    try:
        classifier.load_state_dict(safetensors.torch.load_file(path))
    except FileNotFoundError as error:
        raise PipelineError(f"{path} is missing: run `dvc repro`, or `python -m pipeline.train`.") from error
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise PipelineError(f"{path} does not hold the network of params.yaml ({error}): run `dvc repro`.") from error
