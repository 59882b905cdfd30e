"""The sections of params.yaml: each key with its type, its bounds and what it does."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.axes import AnyAxis, AnyScalar, Scalar, Section

Share = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Data(Section):
    """Which images: section `data`, read by the stage download."""

    name: Literal["cifar10", "digits", "folder"]
    """The data set: cifar10, digits (ships inside scikit-learn), or folder (one directory of images a class)."""
    url: str | None
    """Another place for it: a URL, a file:// URL, a path; null is the official address. Needed for folder."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    """SHA-256 of the archive at data.url; null: CIFAR-10's official checksum, no check for folder."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | None
    """Side in pixels that images of a folder are resized to; null for the other data sets."""
    test_share: Share
    """Share of the images that becomes the test set, for digits and for a folder without train/ and test/."""
    test_seed: Seed
    """Seed of that split."""

    @model_validator(mode="after")
    def _keys_fit_each_other(self) -> Self:
        if self.name == "folder" and self.url is None:
            raise PydanticCustomError("rule", "data.url must name a directory or an archive when data.name is folder")
        if self.name == "folder" and self.image_size is None:
            raise PydanticCustomError("rule", "data.image_size must be given when data.name is folder, got null")
        if self.name != "folder" and self.image_size is not None:
            raise PydanticCustomError(
                "rule",
                "data.image_size must be null unless data.name is folder ({name} has a size of its own), got {size}",
                {"name": self.name, "size": self.image_size},
            )
        if self.name == "digits" and (self.url is not None or self.sha256 is not None):
            raise PydanticCustomError("rule", "data.url and data.sha256 must be null for digits, which are at hand")
        return self


# What a family's depth must be: `step` times any number, and 2 more. Other families have it in their name.
_DEPTH_STEPS = {"resnet": 6, "plain": 6, "speed": 3}


class Model(Section):
    """Which network: section `model`. A key that the family does not speak of is of no effect."""

    family: Literal[
        "resnet",
        "plain",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "vgg11",
        "vgg13",
        "vgg16",
        "vgg19",
        "pretrained",
        "speed",
    ]
    """resnet and plain (He et al. 2015, section 4.2, with and without shortcuts), resnet18 to 152 (section 4.1),
    vgg11 to 19 (Simonyan & Zisserman 2014, with batch norms), pretrained (a ResNet with ImageNet's weights), speed
    (few wide stages after a whitening layer, in the manner of Jordan 2024)."""
    depth: Annotated[int, Field(ge=5, le=1202)]
    """Layers with weights: 6n+2 of resnet and plain (20, 32, 44, 56, 110, ...), 3n+2 of speed (5, 8, 11, ...)."""
    width: Annotated[int, Field(ge=1, le=512)]
    """Channels of the first stage; of the paper: 16 for resnet and plain, 64 for resnet18 to 152 and for vgg."""
    shortcut: Literal["identity", "projection"]
    """Where a resnet's shape changes: identity (zeros for new channels, the paper's option A), projection (B)."""
    stem: Literal["small", "imagenet"]
    """First layers of resnet18 to 152: small (a 3x3 convolution), imagenet (7x7 with stride 2, then pooling)."""
    stages: Literal["doubling", "wide"]
    """Channels of the stages of speed, over those of the first: doubling (1, 2, 4), wide (1, 4, 4: Jordan 2024)."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Share of features that are left out before the last layer (Srivastava et al. 2014)."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    """Of pretrained: which ResNet."""
    weights: str | None
    """Of pretrained: a file of torchvision's weights (.pth) or of this project's; null: torchvision's own address."""
    trained: Literal["head", "last_stage", "all"]
    """Of pretrained: the new last layer alone, the last stage with it, or all."""
    image_size: Annotated[int, Field(ge=32, le=1024)] | None
    """Of pretrained: pixels that images are resized to on the device; null: as they are."""

    @model_validator(mode="after")
    def _depth_fits_the_family(self) -> Self:
        step = _DEPTH_STEPS.get(self.family)
        lowest = 8 if step == 6 else 5
        if step and (self.depth % step != 2 or self.depth < lowest):
            below = max(self.depth - (self.depth - 2) % step, lowest)
            raise PydanticCustomError(
                "rule",
                "model.depth must be {step}n+2 for {family} (nearest: {below} and {above}), got {depth}",
                {"step": step, "family": self.family, "below": below, "above": below + step, "depth": self.depth},
            )
        return self


class Augment(Section):
    """How training images are changed, each by a draw of its own: section `augment`."""

    policy: Literal["none", "flip", "crop_flip", "crop_flip_cutout"]
    """none, flip, crop_flip (pad and crop back), crop_flip_cutout (DeVries & Taylor 2017)."""
    flip: Literal["random", "alternating"]
    """random, or alternating: by chance in the first epoch, then every other epoch (Jordan 2024, section 3.6)."""
    padding: Annotated[float, Field(gt=0, le=0.5)]
    """Padding of the crop, as a share of the image's side: 0.125 is 4 of 32 pixels."""
    padding_mode: Literal["constant", "reflect"]
    """What the padding shows: constant (the mean colour of the data), reflect (the image, mirrored at its border)."""
    cutout: Share
    """Side of the square that cutout blanks, as a share of the image's side: 0.5 is 16 of 32 pixels."""
    small_side: Annotated[float, Field(ge=0.25, le=1)]
    """Progressive resizing: side of the images of the first epochs, as a share of theirs; 1 is without."""
    small_until: Annotated[float, Field(gt=0, lt=1)]
    """Share of the epochs whose images are so small."""
    auto: Literal["none", "trivial", "rand"]
    """none, trivial (TrivialAugment, Mueller & Hutter 2021), rand (RandAugment, Cubuk et al. 2019)."""
    operations: Annotated[int, Field(ge=1, le=10)]
    """Of rand: how many operations an image goes through, the paper's N."""
    magnitude: Annotated[int, Field(ge=0, le=30)]
    """Of rand: how strong they are, the paper's M."""
    erasing: Annotated[float, Field(ge=0, le=1)]
    """Probability that a rectangle of an image is erased (Zhong et al. 2017)."""
    mixup: Annotated[float, Field(ge=0, le=2)]
    """Alpha of mixup (Zhang et al. 2017); 0 is without."""
    cutmix: Annotated[float, Field(ge=0, le=2)]
    """Alpha of cutmix (Yun et al. 2019); 0 is without. Beside mixup each batch has one of the two, by chance."""


class Train(Section):
    """How the network is trained: section and stage `train`."""

    seed: Seed
    """Seed of the initial weights, the order of the images and the augmentation."""
    validation_share: Annotated[float, Field(gt=0, le=0.5)]
    """Share of the training set that is held out for validation, of each class."""
    validation_seed: Seed
    """Seed of that split, and of the folds."""
    folds: Annotated[int, Field(ge=2, le=20)] | None
    """Cross-validation: as many networks, each validated on another part; null: one, on validation_share."""
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    """Passes over the training images."""
    early_stopping: Annotated[int, Field(ge=1)] | None
    """Epochs without a better validation accuracy after which training stops; null: never. The last epoch counts."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    """Images a step."""
    optimizer: Literal["sgd", "adam", "adamw", "muon"]
    """sgd (with Nesterov momentum), adam, adamw, muon (Jordan et al. 2024; adamw for what is no matrix)."""
    learning_rate: Annotated[float, Field(gt=0, le=100)]
    """The highest learning rate of the schedule."""
    head_learning_rate: Annotated[float, Field(gt=0, le=100)] | None
    """That of the last layer; null: the same."""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """Momentum of sgd and muon; the first beta of adam and adamw, also of the adamw beside muon."""
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    """L2 penalty (sgd, adam) or decoupled decay (adamw, muon), of weights only: never of norms and biases."""
    schedule: Literal["one_cycle", "cosine", "wsd", "step", "constant"]
    """one_cycle (Smith & Topin 2017), cosine (Loshchilov & Hutter 2016), wsd (warm-up, stable, decay: Hu et al. 2024),
    step (at a half and at three quarters: He et al. 2015, section 4.2), constant."""
    warmup: Annotated[float, Field(ge=0, lt=1)]
    """Share of the training in which the learning rate rises: along a cosine in one_cycle, else linearly."""
    cooldown: Annotated[float, Field(gt=0, le=1)]
    """Share of the training at its end in which wsd falls linearly to 0."""
    step_factor: Share
    """What step multiplies the learning rate by, each time."""
    clip_norm: Annotated[float, Field(gt=0)] | None
    """Norm that all gradients together are cut down to; null: not."""
    ema: Annotated[float, Field(ge=0, lt=1)]
    """Decay a step of the moving average of the weights that is validated and kept; 0: the weights themselves."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Share of the target that is spread over all classes (Szegedy et al. 2015, section 7)."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    """auto (the first of cuda, mps, cpu that is there), cpu, mps, cuda, cuda:1, ..."""
    precision: Literal["auto", "fp32", "bf16"]
    """auto (bf16 autocast where the device has bf16 natively, else fp32), fp32, bf16."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None
    """CPU threads; null is one a core. Another number can change the last digits of a result."""


class Evaluate(Section):
    """How the test set is scored: section and stage `evaluate`."""

    batch_size: Annotated[int, Field(ge=1, le=65_536)]
    """Images a step at prediction."""
    calibration_bins: Annotated[int, Field(ge=2, le=1000)]
    """Bins of equal width for the expected calibration error (Guo et al. 2017)."""
    mistakes: Annotated[int, Field(ge=0, le=200)]
    """How many of the most certain mistakes are kept for the report."""
    tta: Literal["none", "flip"]
    """Test-time augmentation, in figures of its own: none, flip (the mean with the mirrored image's)."""


class Tune(Section):
    """How a study searches: section `tune`, read by the command of the same name."""

    seed: Seed
    """Seed of the study: of what it tries, and with a trial's number of that trial's training."""
    trials: Annotated[int, Field(ge=1)]
    """Configurations of the study; --trials overrides."""
    sampler: Literal["auto", "tpe", "random", "grid", "gp"]
    """Who proposes: auto (the scheduler's own: the model of freeze_thaw, else tpe), tpe, random, grid, gp."""
    scheduler: Literal["freeze_thaw", "asha", "none"]
    """Who goes on: freeze_thaw (a model of the learning curves), asha (Li et al. 2018), none (all train fully)."""
    budget: Annotated[float, Field(gt=0)] | None
    """Full trainings that the study may spend; null: 0.4 a trial where the scheduler pauses, no limit for none."""
    first_rung: Annotated[int, Field(ge=1)]
    """Epochs after which asha compares for the first time."""
    reduction_factor: Annotated[int, Field(ge=2)]
    """One of so many goes on from each rung of asha."""
    first: Annotated[tuple[Mapping[str, AnyScalar], ...], Field(strict=False)]
    """Configurations to try right after params.yaml's own, of which they are copies save for these values by key."""
    confirm: Annotated[int, Field(ge=0)]
    """How many of the best are trained again with other seeds before one is named."""
    confirm_seeds: Annotated[int, Field(ge=1)]
    """Seeds that each of them is trained with."""
    retries: Annotated[int, Field(ge=0)]
    """How often a trial that crashed or took too long is tried again."""
    trial_timeout_s: Annotated[float, Field(gt=0)] | None
    """Seconds that a trial may train in all; null is no limit."""
    epoch_timeout_s: Annotated[float, Field(gt=0)] | None
    """Seconds that an epoch may take, of all folds together; null is no limit."""
    checkpoints_gb: Annotated[float, Field(gt=0)]
    """Gigabytes that the checkpoints of paused trials may take together; the least promising are given up first."""
    workers: Annotated[int, Field(ge=1)] | None
    """Trials that train at a time; null is as many as the machine serves well."""
    workers_per_gpu: Annotated[int, Field(ge=1)]
    """Trials that share a GPU."""
    models: Literal["finished", "all", "none"]
    """Which trials keep their model in MLflow."""


class Grid(Section):
    """A study of all combinations: what it varies, and what else is otherwise than in the file."""

    space: Mapping[str, AnyAxis]
    """Keys by dotted name, each with choices or a range with steps."""
    values: Mapping[str, AnyScalar]
    """Values by dotted name, in place of those of the file."""


class Config(Section):
    """All of params.yaml."""

    data: Data
    """Which images."""
    model: Model
    """Which network."""
    augment: Augment
    """How training images are changed."""
    train: Train
    """How the network is trained."""
    evaluate: Evaluate
    """How the test set is scored."""
    space: Mapping[str, AnyAxis]
    """What a study searches: keys by dotted name, each with a range or a list of choices."""
    tune: Tune
    """How a study searches."""
    study: Mapping[str, Grid]
    """Studies of all combinations by name, for `python -m pipeline.study NAME`."""

    def values(self) -> dict[str, Scalar]:
        """What one training is made of: its values under their dotted names, in the order of the file."""
        return dict(flat(self.model_dump(exclude={"space", "tune", "study"})))

    def with_values(self, values: Mapping[str, Scalar]) -> "Config":
        """A copy with some values replaced, checked like the file. Raises ConfigError."""
        from pipeline.config.loading import parse  # which stands on this module

        return parse(self.model_dump(), values, "the values set")


def flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
