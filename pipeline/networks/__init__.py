"""Networks, one file a family, and their weights on disk.

Every network takes raw pixels (uint8 [N, C, H, W]) and returns logits [N, classes]: it normalises by itself, so that
training, evaluation, prediction and export can't disagree about it.
"""

from pathlib import Path
from typing import TypeAlias, TypedDict

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import Model
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import atomic_write
from pipeline.networks import pretrained
from pipeline.networks.deep_resnet import DeepResNet
from pipeline.networks.pretrained import Pretrained
from pipeline.networks.resnet import ResNet
from pipeline.networks.speed import Speed
from pipeline.networks.vgg import VGG
from pipeline.records import Meta

Network: TypeAlias = ResNet | DeepResNet | VGG | Speed
"""Each has its last layer as `classify`, and as `stride` the pixels, to a side, that it makes one of."""


class Classifier(nn.Module):
    """Normalisation by a mean and standard deviation of each channel, then a network.

    `mean` and `std` are for pixels scaled to 0..1. Images of one channel become as many as `mean` has.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(-1, 1, 1))
        self.network = network

    @property
    def head(self) -> list[nn.Parameter]:
        """The parameters of the last layer."""
        return list(self.network.classify.parameters())

    def see(self, images: Tensor) -> None:
        """Shows images, uint8 [N, C, H, W], to a network that sets weights by some before it is trained."""
        if isinstance(self.network, Speed):
            self.network.whiten(self._normalised(images))

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self._normalised(images))
        return logits


def build(model: Model, meta: Meta, seed: int, *, initial: bool = True) -> Classifier:
    """An untrained network for the images and classes of `meta`; equal seeds give equal weights.

    Without `initial` no weights of ImageNet are read or fetched: for a network that others will be loaded into.
    Raises ConfigError if the family can't take such images or model.weights is no file for it, DownloadError.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(model, meta)
    _check_images(network, model, meta)
    if not isinstance(network, Pretrained):
        return Classifier(network, meta.mean, meta.std)
    if initial:
        network.load_imagenet(model.weights)
    return Classifier(network, pretrained.MEAN, pretrained.STD)


class _Ends(TypedDict):
    """What all families take."""

    channels: int
    classes: int
    dropout: float


def _network(model: Model, meta: Meta) -> Network:
    ends = _Ends(channels=meta.shape[0], classes=len(meta.classes), dropout=model.dropout)
    match model.family:
        case "resnet":
            return ResNet(model.depth, model.width, shortcut=model.shortcut, **ends)
        case "plain":
            return ResNet(model.depth, model.width, shortcut="none", **ends)
        case "resnet18" | "resnet34" | "resnet50" | "resnet101" | "resnet152":
            return DeepResNet(model.family, model.width, stem=model.stem, **ends)
        case "vgg11" | "vgg13" | "vgg16" | "vgg19":
            return VGG(model.family, model.width, **ends)
        case "pretrained":
            return Pretrained(
                model.backbone,
                trained=model.trained,
                image_size=model.image_size,
                classes=len(meta.classes),
                dropout=model.dropout,
            )
        case "speed":
            return Speed(model.depth, model.width, stages=model.stages, **ends)


def _check_images(network: Network, model: Model, meta: Meta) -> None:
    """Raises ConfigError unless at least one whole pixel is left of an image, and its channels are usable."""
    channels, *sides = meta.shape
    if isinstance(network, Pretrained):
        if channels not in (1, len(pretrained.MEAN)):
            raise ConfigError(
                f"model.family pretrained takes images of 1 or 3 channels, those of {meta.name} have {channels}: "
                "set model.family to one that is trained from scratch, such as resnet18."
            )
        sides = [model.image_size] if model.image_size is not None else sides
    if min(sides) < network.stride:
        if isinstance(network, Pretrained):
            remedy = "set model.image_size to 224, or "
        elif isinstance(network, DeepResNet) and model.stem == "imagenet":
            remedy = "set model.stem to small, or "
        else:
            remedy = (
                f"set model.family to resnet, which needs {ResNet.stride}, or " if min(sides) >= ResNet.stride else ""
            )
        raise ConfigError(
            f"model.family {model.family} halves images until {network.stride} x {network.stride} pixels are one, so "
            f"they must have at least as many; those of {meta.name} have {' x '.join(map(str, sides))}: {remedy}take "
            "larger images (data.image_size, of a folder)."
        )


def parameters(classifier: nn.Module) -> int:
    """The number of weights, also of those that are frozen."""
    return sum(parameter.numel() for parameter in classifier.parameters())


def macs(classifier: nn.Module, meta: Meta) -> int:
    """Multiply-accumulate operations of convolutions and matrix products for one image."""
    classifier.eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        classifier(torch.zeros(1, *meta.shape, dtype=torch.uint8))
    return int(counter.get_total_flops()) // 2


def save(classifier: Classifier, path: Path) -> None:
    """Writes all weights and buffers in the format safetensors, which holds numbers and can't hold code."""
    weights = {name: value.cpu().contiguous() for name, value in classifier.state_dict().items()}
    with atomic_write(path) as aside:
        aside.write_bytes(safetensors.torch.save(weights))


def load(classifier: Classifier, path: Path) -> None:
    """Reads what `save` wrote into a network that was built alike. Raises PipelineError if it doesn't fit."""
    try:
        classifier.load_state_dict(safetensors.torch.load_file(path))
    except FileNotFoundError as error:
        raise PipelineError(f"{path} is missing: run `dvc repro`, or `python -m pipeline.train`.") from error
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise PipelineError(f"{path} does not hold the network of params.yaml ({error}): run `dvc repro`.") from error
