"""params.yaml as one frozen, strict, typed `Config`; values can be set by dotted name.

python -m pipeline.config              checks ./params.yaml and says what is wrong with it, all at once
python -m pipeline.config --schema     prints the JSON schema that params.schema.json holds
"""

import argparse
import difflib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode

from pipeline.command import guarded
from pipeline.errors import ConfigError
from pipeline.files import written_whole

Scalar: TypeAlias = str | int | float | bool | None
Number: TypeAlias = int | float


def _one_of(value: Any, *types: type) -> Any:
    """`value` unchanged if it is of `types`: true is no number here, and nan and infinity are none either."""
    if type(value) not in types or (isinstance(value, float) and not math.isfinite(value)):
        raise PydanticCustomError("plain", "text, a number, true, false or null" if str in types else "a number")
    return value


_Number = Annotated[Number, PlainValidator(lambda value: _one_of(value, int, float), json_schema_input_type=Number)]
_Scalar = Annotated[
    Scalar,
    PlainValidator(lambda value: _one_of(value, str, int, float, bool, type(None)), json_schema_input_type=Scalar),
]
# YAML has lists, and a frozen section holds tuples.
_Scalars = Annotated[tuple[_Scalar, ...], Field(strict=False, min_length=1)]
_When = Annotated[Mapping[str, _Scalars], Field(default_factory=dict)]

Share = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A section of params.yaml: no unknown key, no silent conversion, no change after it was checked."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Data(Section):
    """Which pictures: section `data`, read by the stage download."""

    name: Literal["cifar10", "digits", "folder"]
    """The data set: cifar10, digits (ships inside scikit-learn), or folder (one directory of pictures a class)."""
    url: str | None
    """Another place for it: a URL, a file:// URL, a path; null is the official address. Needed for folder."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    """SHA-256 of the archive at data.url; null: CIFAR-10's official checksum, no check for folder."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | None
    """Side in pixels that pictures of a folder are resized to; null for the other data sets."""
    test_share: Share
    """Share of the pictures that becomes the test set, for digits and for a folder without train/ and test/."""
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


class Model(Section):
    """Which network: section `model`."""

    family: Literal["resnet"]
    """resnet: the ResNet for small pictures (He et al. 2015, section 4.2)."""
    depth: Annotated[int, Field(ge=8, le=1202)]
    """Layers with weights, 6n+2: 20, 32, 44, 56, 110, ..."""
    width: Annotated[int, Field(ge=1, le=512)]
    """Channels of the first stage; the others have twice and four times as many."""

    @field_validator("depth")
    @classmethod
    def _depth_is_6n_plus_2(cls, depth: int) -> int:
        if depth % 6 != 2:
            below = depth - (depth - 2) % 6
            raise PydanticCustomError(
                "rule",
                "model.depth must be 6n+2 for a resnet (nearest: {below} and {above}), got {depth}",
                {"below": below, "above": below + 6, "depth": depth},
            )
        return depth


class Augment(Section):
    """How training pictures are changed, each by a draw of its own: section `augment`."""

    policy: Literal["none", "flip", "crop_flip", "crop_flip_cutout"]
    """none, flip, crop_flip (pad and crop back), crop_flip_cutout (DeVries & Taylor 2017)."""
    padding: Annotated[float, Field(gt=0, le=0.5)]
    """Padding of the crop, as a share of the picture's side: 0.125 is 4 of 32 pixels."""
    cutout: Share
    """Side of the square that cutout blanks, as a share of the picture's side: 0.5 is 16 of 32 pixels."""


class Train(Section):
    """How the network is trained: section and stage `train`."""

    seed: Seed
    """Seed of the initial weights, the order of the pictures and the augmentation."""
    validation_share: Annotated[float, Field(gt=0, le=0.5)]
    """Share of the training set that is held out for validation, of each class."""
    validation_seed: Seed
    """Seed of that split."""
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    """Passes over the training pictures."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    """Pictures a step."""
    optimizer: Literal["sgd", "adam", "adamw"]
    """sgd (with Nesterov momentum), adam, adamw."""
    learning_rate: Annotated[float, Field(gt=0, le=100)]
    """The highest learning rate of the schedule."""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """Momentum of sgd; the first beta of adam and adamw."""
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    """L2 penalty (sgd, adam) or decoupled decay (adamw), of weights only: never of norms and biases."""
    schedule: Literal["one_cycle", "cosine", "constant"]
    """How the learning rate moves: one_cycle (Smith & Topin 2017), cosine (Loshchilov & Hutter 2016), constant."""
    warmup: Annotated[float, Field(gt=0, lt=1)]
    """Share of the training in which one_cycle rises to its highest learning rate."""
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
    """Pictures a step at prediction."""
    calibration_bins: Annotated[int, Field(ge=2, le=1000)]
    """Bins of equal width for the expected calibration error (Guo et al. 2017)."""
    mistakes: Annotated[int, Field(ge=0, le=200)]
    """How many of the most certain mistakes are kept for the report."""


class Range(Section):
    """Numbers from `low` to `high`, both included; whole ones where the key takes whole numbers."""

    low: _Number
    """The lowest value."""
    high: _Number
    """The highest value."""
    log: bool = False
    """Whether factors matter, not differences: 0.01 is as far from 0.1 as 0.1 is from 1."""
    step: _Number | None = None
    """Only low, low + step, low + 2 step, ... are tried."""
    when: _When
    """What the range depends on: other keys, each with the values beside which this one makes sense."""

    @property
    def count(self) -> int:
        """How many values it has; of a range of floats only with a step."""
        return round((Decimal(str(self.high)) - Decimal(str(self.low))) / Decimal(str(self.step or 1))) + 1

    def value(self, index: int) -> Number:
        """The value number `index`, counted from 0, without the noise of float sums: 0.3, never 0.30000000000000004."""
        value = Decimal(str(self.low)) + index * Decimal(str(self.step or 1))
        return int(value) if all(isinstance(bound, int) for bound in (self.low, self.step or 1)) else float(value)

    def holds(self, value: Scalar) -> bool:
        if isinstance(value, str | bool) or value is None or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0
        return abs(steps - round(steps)) < 1e-6


class Choices(Section):
    """A list of values; `[a, b]` is short for `{choices: [a, b]}`."""

    choices: _Scalars
    """The values."""
    when: _When
    """What the choice depends on: other keys, each with the values beside which this one makes sense."""

    @model_validator(mode="before")
    @classmethod
    def _of_a_list(cls, content: Any) -> Any:
        return {"choices": content} if isinstance(content, list | tuple) else content

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [mapping["properties"]["choices"] | {"title": "Choices"}, mapping]}

    def holds(self, value: Scalar) -> bool:
        return value in self.choices


Axis: TypeAlias = Range | Choices
"""The values that a search may give one key."""

_Axis = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
    Discriminator(lambda content: "choices" if _is_choices(content) else "range"),
]


def _is_choices(content: Any) -> bool:
    return isinstance(content, list | tuple | Choices) or (isinstance(content, dict) and "choices" in content)


def active(space: Mapping[str, Axis], values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The values of keys of the space without those whose `when` does not hold, in the order of the space.

    A `when` that names a key outside the space holds: check_search has seen to it.
    """

    def is_active(name: str) -> bool:
        return all(
            other not in space or (other in values and values[other] in allowed and is_active(other))
            for other, allowed in space[name].when.items()
        )

    return {name: values[name] for name in space if name in values and is_active(name)}


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
    first: Annotated[tuple[Mapping[str, _Scalar], ...], Field(strict=False)]
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
    """Seconds that an epoch may take; null is no limit."""
    checkpoints_gb: Annotated[float, Field(gt=0)]
    """Gigabytes that the checkpoints of paused trials may take together; the least promising are given up first."""
    workers: Annotated[int, Field(ge=1)] | None
    """Trials that train at a time; null is as many as the machine serves well."""
    workers_per_gpu: Annotated[int, Field(ge=1)]
    """Trials that share a GPU."""
    models: Literal["finished", "all", "none"]
    """Which trials keep their model in MLflow."""


class Config(Section):
    """All of params.yaml."""

    data: Data
    """Which pictures."""
    model: Model
    """Which network."""
    augment: Augment
    """How training pictures are changed."""
    train: Train
    """How the network is trained."""
    evaluate: Evaluate
    """How the test set is scored."""
    space: Mapping[str, _Axis]
    """What a study searches: keys by dotted name, each with a range or a list of choices."""
    tune: Tune
    """How a study searches."""

    def values(self) -> dict[str, Scalar]:
        """What one training is made of: its values under their dotted names, in the order of the file."""
        return dict(_flat(self.model_dump(exclude={"space", "tune"})))

    def with_values(self, values: Mapping[str, Scalar]) -> "Config":
        """A copy with some values replaced, checked like the file. Raises ConfigError."""
        return parse(self.model_dump(), values, "the values set")


# Keys and sections that a search leaves alone, each with the end of the sentence that says so.
_FIXED = {
    "data": "all trials are compared on the same pictures",
    "evaluate": "the test set has no part in a search",
    "space": "it describes a search, not a training",
    "tune": "it describes a search, not a training",
    "train.seed": "a trial's seed follows from tune.seed and its number, and luck is no hyperparameter",
    "train.validation_share": "all trials are scored on the same pictures",
    "train.validation_seed": "all trials are scored on the same pictures",
    "train.epochs": "the scheduler decides how long a trial trains, train.epochs at most",
    "train.device": "it describes the machine, not the training",
    "train.precision": "it describes the machine, not the training",
    "train.threads": "it describes the machine, not the training",
}


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Reads and checks a params.yaml, with the values of `overrides` (by dotted name) in place of its own.

    An override may be of any section: `space.<dotted name>` takes a range as a mapping, or a list of choices. Raises
    ConfigError, which names everything that is wrong: each dotted key, its value and what is allowed.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing: run this in the folder of a project (it has params.yaml and dvc.yaml).")
    return parse(read_yaml(path), overrides or {}, str(path))


def parse(content: Any, overrides: Mapping[str, Any], source: str) -> Config:
    """Checks the nested mapping `content` of a params.yaml; `source` names it in errors. Raises ConfigError."""
    if not isinstance(content, dict):
        raise ConfigError(f"{source} must hold the sections {', '.join(Config.model_fields)}, got {_shown(content)}.")
    merged = {key: dict(section) if isinstance(section, dict) else section for key, section in content.items()}
    problems = []
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        if name not in _legal_names() and section != "space":
            problems.append(_unknown(name))
        elif isinstance(merged.get(section), dict):
            merged[section][key] = value
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        # A list is told to be empty, too, when all that it holds is wrong.
        errors = [each for each in error.errors() if not (each["type"] == "too_short" and each["input"])]
        problems += [_sentence(details) for details in errors]
        config = None
    problems += _Search(merged).problems()
    if problems or config is None:
        raise _all_of(problems, source)
    return config


def _all_of(problems: Sequence[str], source: str) -> ConfigError:
    count = "one thing is" if len(problems) == 1 else f"{len(problems)} things are"
    return ConfigError(f"{count} wrong in {source}:\n" + "\n".join(f"  {problem}" for problem in problems))


def check_search(settings: Config, source: str = "params.yaml") -> None:
    """Raises ConfigError where a search could not begin from the values: they lie outside the space, for one.

    load leaves this alone, as one training may well have other values than a search would try.
    """
    if problems := _Search(settings.model_dump()).misfits():
        raise _all_of(problems, source)


class _Search:
    """The sections space and tune of a file against the keys that they speak of; the rest may be wrong as well."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.sections = {
            name: content[name] if isinstance(content.get(name), dict) else {} for name in Config.model_fields
        }
        self.axes: dict[str, Axis] = {}
        for name, axis in self.sections["space"].items():
            try:
                self.axes[name] = (Choices if _is_choices(axis) else Range).model_validate(axis)
            except ValidationError:
                continue  # told by the check of the whole file
        self.own: dict[str, Any] = {}
        for name in _legal_names():
            section, _, key = name.partition(".")
            if key in self.sections[section] and not self._refusals(name, self.sections[section][key], name):
                self.own[name] = self.sections[section][key]

    def problems(self) -> list[str]:
        found: list[str] = []
        for name in self.sections["space"]:
            key_or_section = name if name in _FIXED else str(name).partition(".")[0]
            if key_or_section in _FIXED:
                found.append(f"space.{name} can't be searched: {_FIXED[key_or_section]}")
            elif name not in _searchable():
                found.append(_unknown(f"space.{name}"))
            elif name not in self.axes or not (wrong := self._of_axis(name, self.axes[name])):
                continue
            else:
                found += wrong
            self.axes.pop(name, None)  # what is wrong itself is no measure of the others
        for name, axis in self.axes.items():
            for other, allowed in axis.when.items():
                found += self._of_condition(name, other, allowed)
        cycle = self._cycle()
        if cycle:
            found.append(f"{' and '.join(f'space.{name}' for name in cycle)} wait for each other in their `when`")
        return found

    def misfits(self) -> list[str]:
        """What does not fit together of a space, a way to search and values that are each sound."""
        return self._of_fixed_conditions() or [*self.of_own_values(), *self._of_first(), *self._of_tune()]

    def _of_axis(self, name: str, axis: Axis) -> list[str]:
        where = f"space.{name}"
        kind = _kind(name)
        if isinstance(axis, Choices):
            refused = [sentence for value in axis.choices for sentence in self._refusals(name, value, name)]
            found = [f"{where} holds a value that {name} can't have: {sentence}" for sentence in refused]
            twice = sorted({_shown(value) for value in axis.choices if axis.choices.count(value) > 1})
            return found + [f"{where} holds {', '.join(twice)} twice"] * bool(twice)
        if kind not in (int, float):
            return [f"{where} must be a list of choices, as {name} is no number"]
        ends = {"low": axis.low, "high": axis.high}
        if found := [each for end, value in ends.items() for each in self._refusals(name, value, f"{where}.{end}")]:
            return found
        if axis.low >= axis.high:
            found.append(f"{where}.low must be under {where}.high, got {_shown(axis.low)} and {_shown(axis.high)}")
        if axis.log and axis.low <= 0:
            found.append(f"{where}.low must be over 0 on a log scale, got {_shown(axis.low)}")
        if axis.step is not None:
            if axis.log:
                found.append(f"{where}.step must be left out on a log scale, got {_shown(axis.step)}")
            elif axis.step <= 0:
                found.append(f"{where}.step must be over 0, got {_shown(axis.step)}")
            elif kind is int and not isinstance(axis.step, int):
                found.append(f"{where}.step must be a whole number, got {_shown(axis.step)}")
            elif not found and not axis.holds(axis.high):
                below = axis.model_copy(update={"high": axis.value(int((axis.high - axis.low) / axis.step))})
                found.append(
                    f"{where}.step must lead from low to high (nearest: {_shown(below.high)} and "
                    f"{_shown(axis.value(below.count))}), got {_shown(axis.step)} for a high of {_shown(axis.high)}"
                )
        if not found and kind is int:
            for index in range(axis.count):
                if refused := self._refusals(name, axis.value(index), name):
                    return [f"{where} holds a value that {name} can't have: {refused[0]}"]
        return found

    def _of_condition(self, name: str, other: str, allowed: Sequence[Scalar]) -> list[str]:
        where = f"space.{name}.when"
        if other not in _legal_names():
            return [f"{where}: {_unknown(other)}"]
        if other == name or other.partition(".")[0] == "tune":
            return [f"{where} must name other keys of a training, got {other}"]
        if other in self.axes:
            axis = self.axes[other]
            if isinstance(axis, Range) and axis.step is None and _kind(other) is float:
                return [f"{where} must name a key that has choices, steps or whole numbers, got {other}"]
            return [
                f"{where} waits for {_shown(value)}, which {other} is never in the space ({_described(axis)})"
                for value in allowed
                if not axis.holds(value)
            ]
        return [each for value in allowed for each in self._refusals(other, value, f"{where}.{other}")]

    def _of_fixed_conditions(self) -> list[str]:
        return [
            f"space.{name}.when waits for {other} to be {' or '.join(map(_shown, allowed))}, "
            f"but the file fixes it at {_shown(self.own[other])}"
            for name, axis in self.axes.items()
            for other, allowed in axis.when.items()
            if other not in self.axes and self.own[other] not in allowed
        ]

    def _cycle(self) -> list[str]:
        """Keys whose `when` lead back to the first of them."""

        def walk(path: list[str]) -> list[str]:
            for other in self.axes[path[-1]].when:
                if other in path:
                    return path[path.index(other) :]
                if other in self.axes and (found := walk([*path, other])):
                    return found
            return []

        return next((found for name in self.axes if (found := walk([name])) and len(found) > 1), [])

    def of_own_values(self) -> list[str]:
        """What trial 0 could not have."""
        why = "trial 0 trains the file's own values, so widen the one or change the other"
        return [
            f"{name} is {_shown(value)}, outside space.{name} ({_described(self.axes[name])}); {why}"
            for name, value in active(self.axes, self.own).items()
            if not self.axes[name].holds(value)
        ]

    def _of_first(self) -> list[str]:
        found = []
        for number, given in enumerate(self.sections["tune"]["first"]):
            where = f"tune.first[{number}]"
            whole = active(self.axes, self.own | dict(given))
            problems = []
            for name in given:
                if name not in _legal_names():
                    problems.append(f"{where}: {_unknown(name)}")
                elif name not in self.axes:
                    problems.append(f"{where} sets {name}, which is not in the space")
                elif name not in whole:
                    problems.append(f"{where} sets {name}, whose `when` in the space does not hold beside the others")
            problems += [
                f"{where} has {_shown(value)} for {name}, outside space.{name} ({_described(self.axes[name])})"
                for name, value in whole.items()
                if self._refusals(name, value, name) or not self.axes[name].holds(value)
            ]
            found += problems
        return found

    def _of_tune(self) -> list[str]:
        tune, found = self.sections["tune"], []
        if tune["sampler"] == "grid":
            endless = [
                name
                for name, axis in self.axes.items()
                if isinstance(axis, Range) and axis.step is None and _kind(name) is float
            ]
            found += [f"tune.sampler is grid, for which space.{name} needs a step or choices" for name in endless]
        rung, epochs = tune["first_rung"], self.own["train.epochs"]
        if tune["scheduler"] == "asha" and rung > epochs:
            found.append(f"tune.first_rung must be at most train.epochs ({epochs}), got {rung}")
        return found

    def _refusals(self, name: str, value: Any, called: str) -> list[str]:
        """What the key's own check says of a value, which the sentences name `called`."""
        section, _, key = name.partition(".")
        try:
            _section(section).model_validate({**self.sections[section], key: value})
        except ValidationError as error:
            # A rule of ours has the key's name in its own words.
            return [
                _sentence(each, called).replace(name, called, 1) if each["type"] == "rule" else _sentence(each, called)
                for each in error.errors()
                if each["loc"][:1] == (key,)
            ]
        return []


def _described(axis: Axis) -> str:
    if isinstance(axis, Choices):
        return " or ".join(map(_shown, axis.choices))
    steps = f" in steps of {_shown(axis.step)}" if axis.step is not None else ""
    return f"{_shown(axis.low)} to {_shown(axis.high)}{steps}"


def write_values(path: Path, values: Mapping[str, Scalar]) -> None:
    """Writes values by dotted name into a params.yaml, in which nothing else changes: no comment, no quote, no order.

    The file is replaced whole or not at all. Raises ConfigError for a name that is no key, and for values with which
    the file would not be sound, or its own values not in its space.
    """
    source = f"{path} with the values to write"
    settings = parse(read_yaml(path), values, source)
    if problems := _Search(settings.model_dump()).of_own_values():
        raise _all_of(problems, source)
    text = path.read_text(encoding="utf-8")
    nodes = {
        f"{section.value}.{key.value}": node
        for section, keys in YAML().compose(text).value
        if isinstance(keys, MappingNode)
        for key, node in keys.value
    }
    # From the end of the file to its start, so that the places of what is still to be written stay.
    for name, node in sorted(nodes.items(), key=lambda item: -item[1].start_mark.index):
        if name in values:
            text = _with_scalar(text, node, values[name])
    expected = read_yaml(path)
    for name, value in values.items():
        section, _, key = name.partition(".")
        expected[section][key] = value
    with written_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")
        try:
            is_as_expected = read_yaml(aside) == expected
        except ConfigError:
            is_as_expected = False
        if not is_as_expected:  # an anchor gives a value to several places, which only a person can take apart
            raise ConfigError(f"{path} has YAML anchors, aliases or tags at {', '.join(values)}: change it by hand.")


def _with_scalar(text: str, node: ScalarNode, value: Scalar) -> str:
    """`text` with another value at `node`; a comment after it stays in its column where there is room."""
    start: int = node.start_mark.index
    end: int = node.end_mark.index
    written = _written(value, node.style)
    if start == end:
        written = f" {written}"  # null, as nothing after the colon
    line = text[end:].split("\n", 1)[0]
    blanks = len(line) - len(line.lstrip(" "))
    if line.lstrip(" ").startswith("#"):
        after = " " * max(1, blanks + (end - start) - len(written))
        return text[:start] + written + after + text[end + blanks :]
    return text[:start] + written + text[end:]


def _written(value: Scalar, style: str | None) -> str:
    """A value as YAML writes it, text with the quotes `style` where it had some or needs them."""
    if isinstance(value, float):
        # 5e-05 would be text for a reader of YAML 1.1, which wants a dot.
        short = repr(value)
        if "e" not in short:
            return short
        if 1e-6 <= abs(value) < 1:
            return f"{Decimal(short):f}"
        return short if "." in short else short.replace("e", ".0e")
    if not isinstance(value, str):
        return json.dumps(value)
    if style == "'":
        return "'" + value.replace("'", "''") + "'"
    plain_text = value.isascii() and value.replace("_", "").replace(".", "").isalnum()
    if style is None and plain_text and YAML(typ="safe", pure=True).load(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file as plain dicts, lists and scalars. Raises ConfigError, for a key given twice too."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split("To suppress this check")[0].split())
        raise ConfigError(f"{path} is not valid YAML: {reason}") from error


def parse_value(text: str, source: str) -> Any:
    """A value as YAML writes it: `0.1`, `true`, `crop_flip`, `[64, 128]`. Raises ConfigError, which names `source`."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ConfigError(f"{source} is not a YAML value: {text}") from error


def yaml_text(content: Mapping[str, Any]) -> str:
    """Plain mappings, lists and scalars as YAML."""
    stream = io.StringIO()
    YAML(pure=True).dump(content, stream)
    return stream.getvalue()


def schema() -> str:
    """The JSON schema of params.yaml, for editors."""
    content = Config.model_json_schema()
    content["title"] = "params.yaml"
    content["properties"]["space"]["propertyNames"] = {"enum": _searchable()}
    return json.dumps(content, indent=2) + "\n"


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _section(name: str) -> type[BaseModel]:
    return cast(type[BaseModel], Config.model_fields[name].annotation)


def _kind(name: str) -> Any:
    """The type of a key's values."""
    section, _, key = name.partition(".")
    return _section(section).model_fields[key].annotation


def _legal_names() -> list[str]:
    sections = [section for section in Config.model_fields if section != "space"]
    return [f"{section}.{key}" for section in sections for key in _section(section).model_fields]


def _searchable() -> list[str]:
    return [name for name in _legal_names() if name not in _FIXED and name.partition(".")[0] not in _FIXED]


def _unknown(name: str) -> str:
    """What to say of a name that is no key: the nearest legal one, first in its own section, then anywhere."""
    section, _, key = name.rpartition(".")
    legal = [f"space.{other}" for other in _searchable()] if name.startswith("space.") else _legal_names()
    inside = [other for other in legal if other.startswith(f"{section}.")] if section else list(Config.model_fields)
    if section == "space":
        inside = legal
    for candidates in (inside, legal):
        by_key = {other.rpartition(".")[2]: other for other in candidates}
        if near := difflib.get_close_matches(key, by_key, n=1, cutoff=0.7):
            return f"{name} is not a key; did you mean {by_key[near[0]]}?"
    return f"{name} is not a key; allowed are {', '.join(inside or Config.model_fields)}"


def _sentence(details: ErrorDetails, called: str | None = None) -> str:
    """A pydantic error as `train.epochs must be at least 1, got 0`, in which the value may be `called` otherwise."""
    name, kind, context = called or _path(details["loc"]), details["type"], details.get("ctx", {})
    if kind == "plain":
        return f"{name} must be {details['msg']}, got {_shown(details['input'])}"
    if kind == "rule":
        return details["msg"]
    if kind == "extra_forbidden":
        forms: dict[str, type[BaseModel]] = {"range": Range, "choices": Choices}
        form = forms.get(str(details["loc"][2])) if len(details["loc"]) > 3 else None
        return f"{name} is not a key; allowed are {', '.join(form.model_fields)}" if form else _unknown(name)
    if kind == "missing":
        return f"{name} is missing"
    allowed = {
        "int_type": "be a whole number",
        "float_type": "be a number",
        "finite_number": "be a finite number",
        "string_type": "be text",
        "bool_type": "be true or false",
        "model_type": "be a section with keys of its own",
        "model_attributes_type": "be a section with keys of its own",
        "dict_type": "be a mapping from names to values",
        "mapping_type": "be a mapping from names to values",
        "tuple_type": "be a list",
        "too_short": "hold something",
        "greater_than": "be over {gt}",
        "greater_than_equal": "be at least {ge}",
        "less_than": "be under {lt}",
        "less_than_equal": "be at most {le}",
        "literal_error": "be {expected}",
        "string_pattern_mismatch": "match {pattern}",
    }.get(kind)
    rule = allowed.format(**context).replace("'", "") if allowed else f"be right ({details['msg']})"
    return f"{name} must {rule}, got {_shown(details['input'])}"


def _path(place: Sequence[str | int]) -> str:
    """The place of a value in the file, as `tune.first[0].model.depth`."""
    # Below a key of the space pydantic says which of two forms it took the value for.
    parts = [part for number, part in enumerate(place) if not (place[0] == "space" and number == 2)]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def _shown(value: Any) -> str:
    """A value as YAML writes it."""
    return json.dumps(value, default=str, ensure_ascii=False)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.config", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of params.yaml and stop")
    arguments = parser.parse_args(argv)

    def work() -> None:
        if arguments.schema:
            print(schema(), end="")
            return
        path = Path("params.yaml")
        config = load(path)
        check_search(config, str(path))
        print(f"{path} is sound: {len(config.values())} values, {len(config.space)} of them to be searched.")

    return guarded(work)


if __name__ == "__main__":
    raise SystemExit(main())
