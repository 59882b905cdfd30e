"""The section model of params.yaml."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.axes import AnyScalar
from pipeline.config.families import FAMILIES, ZOO
from pipeline.config.own_network import OWN, Extra, is_own
from pipeline.config.section import HYPERPARAMETER, Scalar, Section, broken_rule

if TYPE_CHECKING:
    ZooName: TypeAlias = str
else:  # a type checker wants the names written out
    ZooName = Literal[ZOO]


def _family(name: str) -> str:
    if name not in FAMILIES and not re.match(OWN, name):
        raise PydanticCustomError("plain", f"{', '.join(FAMILIES)}, or a function of yours, as nets:build")
    return name


FamilyName = Annotated[
    str,
    AfterValidator(_family),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(FAMILIES), "type": "string"},
                {"pattern": OWN, "type": "string", "examples": ["nets:build"]},
            ]
        }
    ),
]


class Model(Section):
    """Which network: section `model`. A family ignores the keys that are not for it."""

    role: ClassVar = HYPERPARAMETER

    family: FamilyName = "speed"
    """resnet and plain (He et al. 2015, section 4.2, with and without shortcuts), vgg11 to 19 (Simonyan & Zisserman
    2014, with batch norms), torchvision (one of its 80 networks: model.name), speed (few wide stages after a whitening
    layer, in the manner of Jordan 2024); or a function of your own in a file beside params.yaml, as nets:build."""
    name: ZooName = "resnet18"
    """For torchvision: which of its classification networks, such as convnext_tiny."""
    depth: Annotated[int, Field(ge=5, le=1202)] = 8
    """Layers with weights: 6n+2 for resnet and plain (20, 32, 44, 56, 110, ...), 3n+2 for speed (5, 8, 11, ...)."""
    width: Annotated[int, Field(ge=1, le=512)] = 48
    """Channels of the first stage; in the papers: 16 for resnet and plain, 64 for vgg."""
    shortcut: Literal["identity", "projection"] = "identity"
    """Shortcuts of resnet where the shape changes: identity (zeros for new channels, option A), projection (B)."""
    stem: Literal["small", "imagenet"] | None = None
    """For torchvision: first layers that keep the size of an image (small) or leave a quarter of each side (imagenet);
    null: small for images under 64 pixels with random weights, else imagenet."""
    stages: Literal["doubling", "wide"] = "doubling"
    """Channels of the stages of speed, relative to the first: doubling (1, 2, 4), wide (1, 4, 4: Jordan 2024)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of features that are dropped before the last layer (Srivastava et al. 2014)."""
    weights: str | None = None
    """For torchvision: null (random), default (ImageNet's, from torchvision's address), or a file of such weights."""
    trained: Literal["head", "last_stage", "all"] = "all"
    """For torchvision with weights: what is trained: head (the new last layer), last_stage (and the head), all."""
    image_size: Annotated[int, Field(ge=32, le=1024)] | None = None
    """For torchvision: pixels that images are resized to on the device; null: as they are."""

    extra: Annotated[
        Mapping[str, AnyScalar],
        AfterValidator(Extra),
        replace(HYPERPARAMETER, not_searched="its keys are, each by name: model.extra.heads"),
    ] = Field(default_factory=Extra)
    """For a function of your own: values of its further parameters, by name."""

    @property
    def label(self) -> str:
        """What a person calls the network: resnet20, vgg11, convnext_tiny, nets:build."""
        if is_own(self.family):
            return self.family
        return FAMILIES[self.family].label.format(**self.model_dump())

    def in_use(self) -> dict[str, Scalar]:
        """The family and the keys that it reads, with their values."""
        values = self.model_dump()
        if is_own(self.family):
            return {"family": self.family} | {f"extra.{key}": value for key, value in self.extra.items()}
        return {key: values[key] for key in ("family", *FAMILIES[self.family].reads)}

    @model_validator(mode="after")
    def _depth_fits_the_family(self) -> Self:
        rule = None if is_own(self.family) else FAMILIES[self.family].depth
        if rule and not rule.allows(self.depth):
            below, above = rule.nearest(self.depth)
            raise broken_rule(
                "model.depth",
                "{key} must be {rule} for {family} (nearest: {below} and {above}), got {depth}",
                rule=str(rule),
                family=self.family,
                below=below,
                above=above,
                depth=self.depth,
            )
        return self
