"""A ResNet that starts from weights trained on ImageNet, as torchvision publishes them.

Its images are normalised by ImageNet's MEAN and STD, as they were when those weights were trained.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Literal, Self

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import config
from pipeline.config import Model
from pipeline.errors import ConfigError, DownloadError
from pipeline.networks.deep_resnet import BASIC, BLOCKS, DeepResNet
from pipeline.networks.network import Ends

MEAN = (0.485, 0.456, 0.406)
"""Of red, green and blue over ImageNet, for pixels scaled to 0..1."""
STD = (0.229, 0.224, 0.225)
"""The standard deviations that go with MEAN."""
FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}
"""torchvision's IMAGENET1K_V1, all five trained by the paper's recipe. The digits begin the SHA-256 of the file."""
ADDRESS = "https://download.pytorch.org/models/"
OWN = "network."
"""The prefix of a network's weights in this project's files, which hold a whole Classifier."""
SILENCE_S = 60
"""Seconds without a byte after which a download is given up."""


def build(model: Model, ends: Ends) -> "Pretrained":
    """The family pretrained. Its networks have three channels; images of one channel are normalised into three."""
    return Pretrained(
        model.backbone,
        trained=model.trained,
        image_size=model.image_size,
        classes=ends["classes"],
        dropout=model.dropout,
    )


class Pretrained(DeepResNet):
    """A deep ResNet of ImageNet's shape, wholly or partly trained.

    `trained` is head (only the last layer), last_stage (the last stage too) or all; the rest is frozen. Batch norms of
    the frozen part keep ImageNet's statistics in training too. Images are resized to `image_size`, bilinearly.
    """

    mean = MEAN
    std = STD

    def __init__(
        self,
        backbone: str,
        *,
        trained: Literal["head", "last_stage", "all"],
        image_size: int | None,
        classes: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(backbone, 64, stem="imagenet", channels=3, classes=classes, dropout=dropout)
        self.backbone = backbone
        self.image_size = image_size
        self.smaller_by = "model.image_size to 224"
        frozen: list[nn.Module] = []
        if trained != "all":
            frozen = [self.conv1, self.bn1, self.layer1, self.layer2, self.layer3]
        if trained == "head":
            frozen.append(self.layer4)
        # In a tuple PyTorch does not register the parts a second time.
        self._frozen = tuple(frozen)
        for part in self._frozen:
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [N, 3, H, W] -> logits [N, classes]."""
        if self.image_size is not None:
            # Antialiasing makes a pixel of a smaller image the mean of several; without it most are ignored.
            shrunk = self.image_size < min(images.shape[2:])
            images = F.interpolate(images, (self.image_size, self.image_size), mode="bilinear", antialias=shrunk)
        return super().forward(images)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def load_initial_weights(self, file: str | None) -> None:
        """Loads the weights of all layers but the last from `file`; None: from torchvision's address.

        The file is torchvision's, or the model.safetensors of a training of this project. Its path is relative to the
        project. Raises ConfigError if the file is missing, damaged or of another network, and DownloadError
        if the download fails.
        """
        weights = _fetched(self.backbone) if file is None else _read(config.weights_file(file))
        own = {name.removeprefix(OWN): value for name, value in weights.items() if name.startswith(OWN)}
        body = {name: value for name, value in (own or weights).items() if not name.startswith(("fc.", "classify."))}
        problem = _misfit(body, self)
        if problem is not None:
            theirs = _with_the_layers_of(body)
            remedy = (
                f"they have the layers of {theirs}: set model.backbone to it, or name another file"
                if theirs not in (None, self.backbone)
                else f"{problem}: name a file of torchvision's, such as {FILES[self.backbone]}"
            )
            raise ConfigError(
                f"model.weights: {file or FILES[self.backbone]} does not hold weights of model.backbone, "
                f"{self.backbone}; {remedy}.",
                keys=config.WEIGHTS_KEYS,
            )
        self.load_state_dict(body, strict=False)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make its reader raise anything
        reason = f"{type(error).__name__}: {_first_line(error)}"  # the message alone may be a mere number
        raise ConfigError(
            f"model.weights: {path} can't be read as weights ({reason}): put a good copy in its place.",
            keys=config.WEIGHTS_KEYS,
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ConfigError(
            f"model.weights: {path} holds something else than a state_dict: save `network.state_dict()` alone.",
            keys=config.WEIGHTS_KEYS,
        )
    return weights


def _fetched(backbone: str) -> Mapping[str, Tensor]:
    """torchvision's weights from torch.hub's folder, where an earlier run may have left them, or from its address."""
    address = ADDRESS + FILES[backbone]
    remedy = "try again, or fetch that file by another way, put it somewhere and name it in model.weights"
    try:
        with _socket_timeout():
            return torch.hub.load_state_dict_from_url(address, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, HTTPException) as error:
        raise DownloadError(
            f"The ImageNet weights of {backbone} could not be fetched from {address} ({_first_line(error)}): {remedy}."
        ) from error
    except Exception as error:  # a wrong checksum, or a damaged file, which can make its reader raise anything
        kept = Path(torch.hub.get_dir(), "checkpoints", FILES[backbone])
        raise DownloadError(
            f"What came from {address} is damaged ({_first_line(error)}): delete {kept} if it is there, then {remedy}."
        ) from error


@contextmanager
def _socket_timeout() -> Iterator[None]:
    """A server that sends nothing for SILENCE_S is an OSError; torch.hub itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _misfit(body: Mapping[str, Tensor], network: DeepResNet) -> str | None:
    """The first reason why `body` is not the weights of `network` without its last layer; None if they fit.

    The counts of batches of batch norms are ignored: older files lack them, and nothing here needs them.
    """
    wanted, found = (
        {
            name: tuple(value.shape)
            for name, value in state.items()
            if not name.startswith("classify.") and not name.endswith(".num_batches_tracked")
        }
        for state in (network.state_dict(), body)
    )
    for name, shape in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != shape:
            return f"{name} has the shape {found[name]}, not {shape}"
    return next((f"{name} is no weight of that network" for name in found if name not in wanted), None)


def _with_the_layers_of(body: Mapping[str, Tensor]) -> str | None:
    """The backbone with the same number and kind of blocks, if there is one."""
    bottlenecks = "layer1.0.conv3.weight" in body
    for name, stages in BLOCKS.items():
        ends = {f"layer{stage}.{blocks}.conv1.weight" for stage, blocks in enumerate(stages, start=1)}
        lasts = {f"layer{stage}.{blocks - 1}.conv1.weight" for stage, blocks in enumerate(stages, start=1)}
        if lasts <= body.keys() and not ends & body.keys() and bottlenecks == (name not in BASIC):
            return name
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
