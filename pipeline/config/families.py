"""The families of networks. A new one is a module of pipeline.networks and a line in FAMILIES."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class DepthRule:
    """A depth is legal if it is `step` n + 2 for a whole number n, and at least `least`."""

    step: int
    least: int

    def __str__(self) -> str:
        return f"{self.step}n+2"

    def allows(self, depth: int) -> bool:
        return depth >= self.least and depth % self.step == 2

    def nearest(self, depth: int) -> tuple[int, int]:
        """The legal depths on both sides of an illegal one; the two smallest if it is below them."""
        below = max(depth - (depth - 2) % self.step, self.least)
        return below, below + self.step


@dataclass(frozen=True)
class Family:
    """A value of model.family."""

    module: str
    """The module of pipeline.networks that builds its networks."""
    label: str
    """What a person calls such a network, with keys of the section model in braces: resnet20."""
    reads: tuple[str, ...]
    """The keys of the section model that its networks depend on. It ignores the others."""
    depth: DepthRule | None = None
    """None: the depth follows from the name."""


_OF_SIX, _OF_THREE = DepthRule(step=6, least=8), DepthRule(step=3, least=5)
_VGG = Family("vgg", "{family}", ("width", "dropout"))

FAMILIES: Mapping[str, Family] = {
    "resnet": Family("resnet", "{family}{depth}", ("depth", "width", "shortcut", "dropout"), _OF_SIX),
    "plain": Family("resnet", "{family}{depth}", ("depth", "width", "dropout"), _OF_SIX),
    "vgg11": _VGG,
    "vgg13": _VGG,
    "vgg16": _VGG,
    "vgg19": _VGG,
    "torchvision": Family("zoo", "{name}", ("name", "weights", "trained", "stem", "image_size", "dropout")),
    "speed": Family("speed", "{family}{depth}", ("depth", "width", "stages", "dropout"), _OF_THREE),
}
"""By the value of model.family, in the order in which messages and the JSON schema list them."""

# fmt: off
ZOO: tuple[str, ...] = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "densenet121", "densenet161",
    "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
    "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l",
    "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mnasnet0_75",
    "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_16gf",
    "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf", "regnet_y_400mf",
    "regnet_y_800mf", "regnet_y_8gf", "resnet101", "resnet152", "resnet18", "resnet34", "resnet50",
    "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "squeezenet1_0", "squeezenet1_1", "swin_b", "swin_s", "swin_t",
    "swin_v2_b", "swin_v2_s", "swin_v2_t", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19",
    "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2", "wide_resnet50_2",
)
# fmt: on
"""The values of model.name: torchvision's classification networks. A test compares them with its own list."""
