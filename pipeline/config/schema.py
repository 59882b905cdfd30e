"""The sections of params.yaml: each key with its type, its bounds, what it does and its role."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, TypeAlias
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.axes import AnyScalar
from pipeline.config.families import FAMILIES, ZOO
from pipeline.config.own_network import OWN, Extra, is_own
from pipeline.config.section import Role, Scalar, Section, broken_rule
from pipeline.config.sources import SOURCES, Source

Share = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

if TYPE_CHECKING:
    SourceName: TypeAlias = str
    ZooName: TypeAlias = str
else:  # a type checker wants the names written out
    SourceName = Literal[tuple(SOURCES)]
    ZooName = Literal[ZOO]


def _family(name: str) -> str:
    if name not in FAMILIES and not re.match(OWN, name):
        raise PydanticCustomError("plain", f"{', '.join(FAMILIES)}, or a function of yours, as nets:build")
    return name


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise PydanticCustomError("secret", "hold no password, since this file is shared: set it in the environment")
    return address


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

WITHOUT_PASSWORD = AfterValidator(_without_password)

HYPERPARAMETER = Role("training")
SAME_IMAGES = Role("training", not_searched="all trials are scored on the same images")
MACHINE = Role("machine", not_searched="it describes the machine, not the training")
SEARCH = Role("search", not_searched="it describes a search, not a training")
SET_BY_GRID = replace(SEARCH, set_by_grid=True)


class Data(Section):
    """Which images: section `data`, read by the stage download."""

    role: ClassVar = Role("data", not_searched="all trials are compared on the same images")

    name: SourceName = "cifar10"
    """The data set: one that is published (cifar10, mnist, flowers102, ...), digits (ships inside scikit-learn), or
    folder (one directory of images per class)."""
    url: str | None = None
    """Where to get it: a URL, a file:// URL or a path; of several files: that of their folder; null: the official
    address. folder needs one."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the archive at data.url; null: the official checksum of a published data set, no check for folder."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    """Side in pixels that image files are resized to; null for data sets whose images have a size of their own."""
    test_share: Share = 0.2
    """Share of the images that becomes the test set, where the data has none of its own."""
    test_seed: Seed = 0
    """Seed of that split."""

    @property
    def source(self) -> Source:
        """What is known of the data set."""
        return SOURCES[self.name]

    @property
    def side(self) -> int | None:
        """Side in pixels that image files are resized to; None for data sets without image files."""
        return self.image_size or self.source.side

    @model_validator(mode="after")
    def _keys_fit_each_other(self) -> Self:
        source = self.source
        if self.name == "folder" and self.url is None:
            raise broken_rule("data.url", "{key} must name a directory or an archive when data.name is folder")
        if source.resized and self.side is None:
            raise broken_rule(
                "data.image_size",
                "{key} must be given when data.name is {name}, whose images have many sizes, got null",
                name=self.name,
            )
        if not source.resized and self.image_size is not None:
            raise broken_rule(
                "data.image_size",
                "{key} must be null for {name}, whose images have a size of their own, got {size}",
                name=self.name,
                size=self.image_size,
            )
        if len(source.files) > 1 and self.sha256 is not None:
            raise broken_rule(
                "data.sha256",
                "{key} must be null for {name}, whose {count} files have official checksums",
                name=self.name,
                count=len(source.files),
            )
        if self.name == "digits":
            for key, value in {"data.url": self.url, "data.sha256": self.sha256}.items():
                if value is not None:
                    raise broken_rule(
                        key, '{key} must be null for digits, which need no download, got "{value}"', value=value
                    )
        return self


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


class Augment(Section):
    """How training images are changed, with a draw per image: section `augment`."""

    role: ClassVar = HYPERPARAMETER

    policy: Literal["none", "flip", "crop_flip", "crop_flip_cutout"] = "crop_flip"
    """none, flip, crop_flip (pad and crop back), crop_flip_cutout (DeVries & Taylor 2017)."""
    flip: Literal["random", "alternating"] = "alternating"
    """random, or alternating: by chance in the first epoch, then every other epoch (Jordan 2024, section 3.6)."""
    padding: Annotated[float, Field(gt=0, le=0.5)] = 0.0625
    """Padding of the crop, as a share of the image's side: 0.125 is 4 of 32 pixels."""
    padding_mode: Literal["constant", "reflect"] = "constant"
    """What the padding shows: constant (the mean colour of the data), reflect (the image mirrored at its border)."""
    cutout: Share = 0.5
    """Side of the square that cutout blanks, as a share of the image's side: 0.5 is 16 of 32 pixels."""
    small_side: Annotated[float, Field(ge=0.25, le=1)] = 0.75
    """Progressive resizing: side of the images in the first epochs, as a share of the full side; 1: no resizing."""
    small_until: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the epochs that have small images."""
    auto: Literal["none", "trivial", "rand"] = "none"
    """none, trivial (TrivialAugment, Mueller & Hutter 2021), rand (RandAugment, Cubuk et al. 2019)."""
    operations: Annotated[int, Field(ge=1, le=10)] = 2
    """For rand: operations per image, the paper's N."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """For rand: strength of the operations, the paper's M."""
    erasing: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a rectangle of an image is erased (Zhong et al. 2017)."""
    mixup: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Alpha of mixup (Zhang et al. 2017); 0: no mixup."""
    cutmix: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Alpha of cutmix (Yun et al. 2019); 0: no cutmix. With mixup too, each batch has one of the two, by chance."""


class Train(Section):
    """How the network is trained: section and stage `train`."""

    role: ClassVar = HYPERPARAMETER

    seed: Annotated[
        Seed,
        Role(
            "training",
            not_searched="a trial's seed follows from tune.seed and its number, and luck is no hyperparameter",
        ),
    ] = 0
    """Seed of the initial weights, the order of the images and the augmentation."""
    validation: Annotated[Literal["folder", "share"], SAME_IMAGES] = "folder"
    """Which images validate: folder (those of val/, where the data has some, else a share), share (images of val/ are
    mixed with the training images, and a share of all is held out)."""
    validation_share: Annotated[float, Field(gt=0, le=0.5), SAME_IMAGES] = 0.1
    """That share of the training set, of each class."""
    validation_seed: Annotated[Seed, SAME_IMAGES] = 0
    """Seed of that split, and of the folds."""
    folds: Annotated[Annotated[int, Field(ge=2, le=20)] | None, SAME_IMAGES] = None
    """Cross-validation: one network per fold of all images, those of val/ too; null: one network, by validation."""
    epochs: Annotated[
        int,
        Field(ge=1, le=10_000),
        Role("training", not_searched="the scheduler decides how long a trial trains, train.epochs at most"),
    ] = 10
    """Passes over the training images."""
    early_stopping: Annotated[int, Field(ge=1)] | None = None
    """Training stops after so many epochs without a better validation accuracy; null: never. The last epoch counts."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 500
    """Images per step."""
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = "muon"
    """sgd (with Nesterov momentum), adam, adamw, muon (Jordan et al. 2024; vectors and the last layer by adamw)."""
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.12
    """The highest learning rate of the schedule."""
    head_learning_rate: Annotated[float, Field(gt=0, le=100)] | None = None
    """The highest learning rate of the last layer; null: the same."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.85
    """Momentum of sgd and muon; the first beta of adam and adamw, also of the adamw inside muon."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.1
    """L2 penalty (sgd, adam) or decoupled decay (adamw, muon) of the weights; norms and biases have none."""
    schedule: Literal["one_cycle", "cosine", "wsd", "step", "constant"] = "wsd"
    """one_cycle (Smith & Topin 2017), cosine (Loshchilov & Hutter 2016), wsd (warm-up, stable, decay: Hu et al. 2024),
    step (at a half and at three quarters: He et al. 2015, section 4.2), constant."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the training in which the learning rate rises: along a cosine in one_cycle, else linearly."""
    cooldown: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the training, at its end, in which wsd falls linearly to 0."""
    step_factor: Share = 0.1
    """For the schedule step: what it multiplies the learning rate by, each time."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of all gradients together, which are scaled down to it; null: no limit."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay per step of the moving average of the weights, which is validated and saved; 0: no average."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the target that is spread over all classes (Szegedy et al. 2015, section 7)."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"), MACHINE] = "auto"
    """auto (the first available of cuda, mps, cpu), cpu, mps, cuda, cuda:1, ..."""
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], Role("training", not_searched="trials in different precisions don't compare")
    ] = "auto"
    """auto (bf16 autocast where the device has bf16 natively, else fp32), fp32, bf16."""
    threads: Annotated[Annotated[int, Field(ge=1, le=1024)] | None, MACHINE] = None
    """CPU threads; null: one per core. Another number can change the last digits of a result."""


class Evaluate(Section):
    """How the test set is scored: section and stage `evaluate`."""

    role: ClassVar = Role("scoring", not_searched="the test set has no part in a search")

    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 500
    """Images per step of prediction."""
    calibration_bins: Annotated[int, Field(ge=2, le=1000)] = 15
    """Bins of equal width for the expected calibration error (Guo et al. 2017)."""
    mistakes: Annotated[int, Field(ge=0, le=200)] = 24
    """Mistakes to keep for the report, the most confident ones."""
    tta: Literal["none", "flip"] = "none"
    """Test-time augmentation, reported separately: none, flip (mean prediction of the image and its mirror)."""


class Report(Section):
    """How the report is written: section and stage `report`."""

    role: ClassVar = Role("report", not_searched="it changes nothing but the report")

    language: Literal["en", "ko"] = "en"
    """Language of the report's page: en, ko (Korean)."""


class Tune(Section):
    """How a study searches: section `tune`, read by the command of the same name."""

    role: ClassVar = SEARCH

    seed: Seed = 0
    """Seed of the study: of its samples and, with a trial's number, of the trial's training."""
    trials: Annotated[int, Field(ge=1), SET_BY_GRID] = 50
    """Configurations of the study; --trials overrides."""
    sampler: Annotated[Literal["auto", "tpe", "random", "grid", "gp"], SET_BY_GRID] = "auto"
    """What proposes configurations: auto (freeze_thaw's own model beside it, else tpe), tpe, random, grid, gp."""
    scheduler: Annotated[Literal["freeze_thaw", "asha", "none"], SET_BY_GRID] = "freeze_thaw"
    """Which trials resume: freeze_thaw (a model of learning curves), asha (Li et al. 2018), none (all train fully)."""
    budget: Annotated[Annotated[float, Field(gt=0)] | None, SET_BY_GRID] = None
    """Full trainings that the study may spend; null: 0.4 per trial if the scheduler pauses, no limit for none."""
    first_rung: Annotated[int, Field(ge=1), SET_BY_GRID] = 1
    """For asha: epochs after which it compares trials for the first time."""
    reduction_factor: Annotated[int, Field(ge=2), SET_BY_GRID] = 3
    """For asha: one in so many trials resumes from each rung."""
    first: Annotated[tuple[Mapping[str, AnyScalar], ...], Field(strict=False), SET_BY_GRID] = ()
    """Configurations to try right after params.yaml's own: each a copy of it with these values, by dotted name."""
    confirm: Annotated[int, Field(ge=0), SET_BY_GRID] = 3
    """How many of the best trials are retrained with new seeds before one is named."""
    confirm_seeds: Annotated[int, Field(ge=1), SET_BY_GRID] = 3
    """Seeds that each of them is retrained with."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial that crashed or timed out is retried."""
    trial_timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds that a trial may train in all; null: no limit."""
    epoch_timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds that an epoch may take, over all folds; null: no limit."""
    checkpoints_gb: Annotated[float, Field(gt=0)] = 10.0
    """Gigabytes for the checkpoints of all paused trials; beyond that the least promising trials are pruned."""
    checkpoints: Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://\S+$"), WITHOUT_PASSWORD] | None = None
    """Where workers leave the files of trials: an fsspec URL that all reach, s3://bucket/prefix, whose credentials are
    in the environment; null: the project's folder."""
    storage: Annotated[str, Field(pattern=r"^postgresql\+psycopg://\S+$"), WITHOUT_PASSWORD] | None = None
    """The database of the studies, postgresql+psycopg://USER@HOST/NAME, whose password is in PGPASSWORD or ~/.pgpass;
    null: optuna.journal."""
    engine: Literal["local", "ray"] = "local"
    """Who trains: local (processes of this machine), ray (a Ray cluster: docs/scale.md)."""
    address: str | None = None
    """For ray: the cluster, auto or ray://HOST:10001; null: this machine alone."""
    resources: Mapping[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """For ray: what a trial takes, such as {cpu: 2, gpu: 0.5}; by default a core per thread and no GPU."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Trials that train at a time; null: as many as suit the machine, or the cluster."""
    workers_per_gpu: Annotated[int, Field(ge=1)] = 1
    """Trials that share a GPU."""
    models: Literal["finished", "all", "none"] = "finished"
    """Which trials keep their model in MLflow."""
