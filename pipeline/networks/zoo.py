"""torchvision's classification networks, with random weights or ImageNet's, and a new last layer."""

from collections import OrderedDict
from functools import cached_property
from typing import Any, Literal, Self

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.mnasnet import MNASNet
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from pipeline import config
from pipeline.config import Model
from pipeline.errors import ConfigError
from pipeline.networks import imagenet, stem
from pipeline.networks.network import SIZE_KEYS, Network
from pipeline.records import Meta

SMALL_SIDE = 64
"""Networks for images of fewer pixels to a side have the stem small, unless model.stem says otherwise."""
TRACED_SIDE = 128
"""Pixels, to a side, of the image by which it is found out where a network makes images smaller."""
LAST_STAGES = {
    "convnext": "features.6",
    "densenet": "features.denseblock4",
    "efficientnet": "features.6",
    "googlenet": "inception5a",
    "inception": "Mixed_7a",
    "maxvit": "blocks.3",
    "mnasnet": "layers.12",
    "mobilenet_v2": "features.14",
    "mobilenet_v3_large": "features.13",
    "mobilenet_v3_small": "features.9",
    "regnet": "trunk_output.block4",
    "resnet": "layer4",
    "resnext": "layer4",
    "shufflenet": "stage4",
    "swin": "features.6",
    "wide_resnet": "layer4",
}
"""The part that the last stage, which has the smallest feature maps, begins with, by the beginning of the name."""
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Weights of the further outputs of GoogLeNet and Inception, which are left out."""


def build(model: Model, meta: Meta) -> "ZooNetwork":
    """The family torchvision. Raises ConfigError."""
    if meta.shape[0] not in (1, 3):
        raise ConfigError(
            f"model.family torchvision takes images of 1 or 3 channels, those of {meta.name} have {meta.shape[0]}: "
            "set model.family to one of this project's, such as resnet.",
            keys=["model.family"],
        )
    if model.weights is None and model.trained != "all":
        raise ConfigError(
            f"model.trained is {model.trained}, but the rest of {model.name} has random weights while model.weights is "
            "null: set model.weights to default, or model.trained to all.",
            keys=["model.family", "model.weights", "model.trained"],
        )
    sides = meta.shape[1:] if model.image_size is None else (model.image_size,) * 2
    small = min(sides) < SMALL_SIDE and model.weights is None if model.stem is None else model.stem == "small"
    unit = _unit(model.name, small)
    if unit is not None and (sides[0] != sides[1] or sides[0] % unit):
        whole = max(round(min(sides) / unit), -(-32 // unit)) * unit
        raise ConfigError(
            f"model.name {model.name} takes square images with a side of {unit} pixels or a multiple of it; those of "
            f"{meta.name} have {' x '.join(map(str, sides))}: set model.image_size to {whole}"
            f"{'' if small else ', or model.stem to small'}.",
            keys=SIZE_KEYS,
        )
    return ZooNetwork(
        model.name,
        small=small,
        side=sides[0],
        image_size=model.image_size,
        classes=len(meta.classes),
        trained=model.trained,
        pretrained=model.weights is not None,
        dropout=model.dropout,
    )


class ZooNetwork(Network):
    """A network of torchvision for images of one or three channels, wholly or partly trained.

    A single channel is repeated. With `small` the first layers keep the size of images (stem.py). `side` is that of the
    images, for networks that are made for one size. Images are resized to `image_size`, bilinearly. `dropout` takes the
    place of torchvision's own before the last layer. With `pretrained` images are normalised as the published weights
    need it. `trained` is head (only the last layer), last_stage (LAST_STAGES, and all that follows) or all; the rest is
    frozen, and its batch norms keep their statistics in training too.
    """

    def __init__(
        self,
        name: str,
        *,
        small: bool,
        side: int,
        image_size: int | None,
        classes: int,
        trained: Literal["head", "last_stage", "all"],
        pretrained: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.name = name
        self.small = small
        self.image_size = image_size
        self.smaller_by = "model.image_size to 224" if small or pretrained else "model.stem to small"
        if pretrained:
            self.mean, self.std = _normalisation(name)
        self.body = _bare(name, classes, side, small)
        self._unit = _unit(name, small)
        self._side = side
        self._traced = TRACED_SIDE
        self._factor = 1
        if not isinstance(self.body, VisionTransformer):
            if self._unit is not None:
                self._traced = 4 * side if small else side
            found = stem.trace(self.body, self._traced)
            shrunk = small and stem.keep_size(self.body, found)
            self._factor = found.factor // 4 if shrunk else found.factor
        self._head, self._last = _with_dropout(self.body, dropout)
        moving = {id(parameter) for parameter in self._moving(trained)}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in moving)
        # In a tuple PyTorch does not register the parts a second time.
        self._frozen = tuple(_frozen(self.body, moving))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [N, 1 or 3, H, W] -> logits [N, classes]."""
        if self.image_size is not None:
            # Antialiasing makes a pixel of a smaller image the mean of several; without it most are ignored.
            shrunk = self.image_size < min(images.shape[2:])
            images = F.interpolate(images, (self.image_size, self.image_size), mode="bilinear", antialias=shrunk)
        logits: Tensor = self.body(images.expand(-1, 3, -1, -1))
        return logits

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    @property
    def last_layer(self) -> list[nn.Parameter]:
        return list(self.body.get_submodule(self._last).parameters())

    def takes(self, height: int, width: int) -> bool:
        """Whether the network leaves at least a pixel of such images: by its strides, and by a dry run."""
        if self._unit is not None:
            return height == width == self._side
        if min(height, width) < self._factor:
            return False
        if min(height, width) < self._traced:
            try:
                stem.dry_run(self.body, height, width)
            except RuntimeError:
                return False
        return True

    @cached_property
    def least_side(self) -> int:  # type: ignore[override]
        """Pixels, to a side, of the smallest images that the network takes."""
        if self._unit is not None:
            return self._side
        return next(side for side in range(self._factor, self._traced + 1) if self.takes(side, side))

    def load_initial_weights(self, file: str | None) -> None:
        """Loads the weights of all layers but the last from `file`; default: from torchvision's address.

        Raises ConfigError if the file is missing, damaged or of another network, and DownloadError if the download
        fails.
        """
        if file is None:
            return
        address = address_of(self.name)
        published = address.rpartition("/")[2]
        weights = imagenet.fetch(address, self.name) if file == "default" else imagenet.read(file)
        ends = (f"{self._head}.", "classify.", *_AUXILIARY)
        weights = {name: value for name, value in weights.items() if not name.startswith(ends)}
        wanted = {name: value for name, value in self.body.state_dict().items() if not name.startswith(ends)}
        if isinstance(self.body, VisionTransformer):
            weights = _at_size(weights, self.body)
        problem = imagenet.misfit(weights, wanted)
        if problem is not None:
            remedy = "set model.stem to imagenet, or " if self.small else ""
            raise ConfigError(
                f"model.weights: {published if file == 'default' else file} does not hold weights of model.name "
                f"{self.name}{' with the stem small' if self.small else ''}; {problem}: {remedy}name a file of "
                f"torchvision's, such as {published}.",
                keys=config.WEIGHTS_KEYS,
            )
        self.body.load_state_dict(weights, strict=False)

    def _moving(self, trained: str) -> list[nn.Parameter]:
        """The parameters that are trained."""
        if trained == "all":
            return list(self.parameters())
        if trained == "head":
            return self.last_layer
        start = next((part for prefix, part in LAST_STAGES.items() if self.name.startswith(prefix)), None)
        if start is None:
            raise ConfigError(
                f"model.trained is last_stage, but {self.name} has no stages to tell apart: set it to head or to all.",
                keys=["model.family", "model.name", "model.trained"],
            )
        names = [name for name, _ in self.body.named_parameters()]  # in the order of the layers
        first = next(position for position, name in enumerate(names) if name.startswith(f"{start}."))
        return list(self.body.parameters())[first:]


def address_of(name: str) -> str:
    """Where torchvision publishes its best weights of a network, as a URL."""
    address: str = torchvision.models.get_model_weights(name).DEFAULT.url
    return address


class _Mnasnet(MNASNet):  # type: ignore[misc]
    """MNASNet asks for the version of any weights that it loads, which a file of this project does not have."""

    _load_from_state_dict = nn.Module._load_from_state_dict


def _bare(name: str, classes: int, side: int, small: bool) -> nn.Module:
    """torchvision's network with random weights, made for images of `side`."""
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False}
    unit = _unit(name, small)
    if unit is not None:
        made_for = _unit(name, small=False) or unit
        options = {"image_size" if name.startswith("vit") else "input_size": side // unit * made_for}
    if "input_size" in options:
        options["input_size"] = (options["input_size"],) * 2
    body: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
    if isinstance(body, MNASNet):
        body.__class__ = _Mnasnet
    if isinstance(body, VisionTransformer) and small and unit is not None:
        body.image_size, body.patch_size = side, unit
        body.conv_proj = nn.Conv2d(3, body.hidden_dim, kernel_size=unit, stride=unit)
        nn.init.trunc_normal_(body.conv_proj.weight, std=(1 / (3 * unit**2)) ** 0.5)  # as torchvision's
        nn.init.zeros_(body.conv_proj.bias)
    return body


def _unit(name: str, small: bool) -> int | None:
    """The side of images that a network takes is a multiple of this; None: images may have any size."""
    if name.startswith("vit"):
        patch = int(name.rpartition("_")[2])
        return round(patch / 4) if small else patch
    if name.startswith("maxvit"):
        return 56 if small else 224
    return None


def _with_dropout(body: nn.Module, share: float) -> tuple[str, str]:
    """Puts dropout before the last layer. The name of that layer as torchvision has it, and its name afterwards."""
    layers = [(name, layer) for name, layer in body.named_modules() if next(layer.children(), None) is None]
    position = max(number for number, (_, layer) in enumerate(layers) if isinstance(layer, nn.Linear | nn.Conv2d))
    name, last = layers[position]
    before = layers[position - 1][1]
    if isinstance(before, nn.Dropout):
        before.p = share
        return name, name
    body.set_submodule(name, nn.Sequential(nn.Dropout(share), last))
    return name, f"{name}.1"


def _frozen(part: nn.Module, moving: set[int]) -> list[nn.Module]:
    """The largest parts that have weights, but none of `moving`."""
    ids = {id(parameter) for parameter in part.parameters()}
    if ids.isdisjoint(moving):
        return [part] if ids else []
    return [frozen for child in part.children() for frozen in _frozen(child, moving)]


def _normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, as the published weights need them."""
    if name in ("googlenet", "inception_v3"):
        # Their weights are older than torchvision, which turns its own normalisation into theirs inside.
        return (0.5,) * 3, (0.5,) * 3
    made_with = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return tuple(made_with.mean), tuple(made_with.std)


def _at_size(weights: dict[str, Tensor], body: VisionTransformer) -> dict[str, Tensor]:
    """Weights of a vision transformer, whose positions are interpolated to the image size of `body`."""
    positions = weights.get("encoder.pos_embedding")
    if positions is None or positions.shape == body.encoder.pos_embedding.shape:
        return weights
    return dict(interpolate_embeddings(body.image_size, body.patch_size, OrderedDict(weights)))
