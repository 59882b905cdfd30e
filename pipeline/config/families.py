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
_DEEP = Family("deep_resnet", "{family}", ("width", "stem", "dropout"))
_VGG = Family("vgg", "{family}", ("width", "dropout"))

FAMILIES: Mapping[str, Family] = {
    "resnet": Family("resnet", "{family}{depth}", ("depth", "width", "shortcut", "dropout"), _OF_SIX),
    "plain": Family("resnet", "{family}{depth}", ("depth", "width", "dropout"), _OF_SIX),
    "resnet18": _DEEP,
    "resnet34": _DEEP,
    "resnet50": _DEEP,
    "resnet101": _DEEP,
    "resnet152": _DEEP,
    "vgg11": _VGG,
    "vgg13": _VGG,
    "vgg16": _VGG,
    "vgg19": _VGG,
    "pretrained": Family(
        "pretrained", "{family} {backbone}", ("backbone", "weights", "trained", "image_size", "dropout")
    ),
    "speed": Family("speed", "{family}{depth}", ("depth", "width", "stages", "dropout"), _OF_THREE),
}
"""By the value of model.family, in the order in which messages and the JSON schema list them."""
