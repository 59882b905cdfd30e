"""params.yaml as one frozen, strict, typed `Config`; values can be set by dotted name.

python -m pipeline.config              checks ./params.yaml and says what is wrong with it, all at once
python -m pipeline.config --schema     prints the JSON schema that params.schema.json holds
"""

import argparse
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.command import guarded
from pipeline.errors import ConfigError

Scalar: TypeAlias = str | int | float | bool | None

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

    def values(self) -> dict[str, Scalar]:
        """Every value under its dotted name, in the order of the file."""
        return dict(_flat(self.model_dump()))

    def with_values(self, values: Mapping[str, Scalar]) -> "Config":
        """A copy with some values replaced, checked like the file. Raises ConfigError."""
        return parse(self.model_dump(), values, "the values set")


def load(path: Path, overrides: Mapping[str, Scalar] | None = None) -> Config:
    """Reads and checks a params.yaml, with the values of `overrides` (by dotted name) in place of its own.

    Raises ConfigError, which names everything that is wrong: each dotted key, its value and what is allowed.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing: run this in the folder of a project (it has params.yaml and dvc.yaml).")
    return parse(read_yaml(path), overrides or {}, str(path))


def parse(content: Any, overrides: Mapping[str, Scalar], source: str) -> Config:
    """Checks the nested mapping `content` of a params.yaml; `source` names it in errors. Raises ConfigError."""
    if not isinstance(content, dict):
        raise ConfigError(f"{source} must hold the sections {', '.join(Config.model_fields)}, got {_shown(content)}.")
    merged = {key: dict(section) if isinstance(section, dict) else section for key, section in content.items()}
    problems = []
    for name, value in overrides.items():
        section, _, key = name.partition(".")
        if name not in _legal_names():
            problems.append(_unknown(name))
        elif isinstance(merged.get(section), dict):
            merged[section][key] = value
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        problems += [_sentence(details) for details in error.errors()]
        config = None
    if problems or config is None:
        count = "one thing is" if len(problems) == 1 else f"{len(problems)} things are"
        raise ConfigError(f"{count} wrong in {source}:\n" + "\n".join(f"  {problem}" for problem in problems))
    return config


def read_yaml(path: Path) -> Any:
    """The content of a YAML file as plain dicts, lists and scalars. Raises ConfigError, for a key given twice too."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split("To suppress this check")[0].split())
        raise ConfigError(f"{path} is not valid YAML: {reason}") from error


def schema() -> str:
    """The JSON schema of params.yaml, for editors."""
    content = Config.model_json_schema()
    content["title"] = "params.yaml"
    return json.dumps(content, indent=2) + "\n"


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _legal_names() -> list[str]:
    names = []
    for section, field in Config.model_fields.items():
        names += [f"{section}.{key}" for key in cast(type[BaseModel], field.annotation).model_fields]
    return names


def _unknown(name: str) -> str:
    """What to say of a name that is no key: the nearest legal one, first in its own section, then anywhere."""
    section, _, key = name.rpartition(".")
    legal = _legal_names()
    inside = [other for other in legal if other.startswith(f"{section}.")] if section else list(Config.model_fields)
    for candidates in (inside, legal):
        by_key = {other.rpartition(".")[2]: other for other in candidates}
        if near := difflib.get_close_matches(key, by_key, n=1, cutoff=0.7):
            return f"{name} is not a key; did you mean {by_key[near[0]]}?"
    return f"{name} is not a key; allowed are {', '.join(inside or Config.model_fields)}"


def _sentence(details: ErrorDetails) -> str:
    """A pydantic error as `train.epochs must be at least 1, got 0`."""
    name, kind, context = ".".join(map(str, details["loc"])), details["type"], details.get("ctx", {})
    if kind == "rule":
        return details["msg"]
    if kind == "extra_forbidden":
        return _unknown(name)
    if kind == "missing":
        return f"{name} is missing"
    allowed = {
        "int_type": "be a whole number",
        "float_type": "be a number",
        "finite_number": "be a finite number",
        "string_type": "be text",
        "bool_type": "be true or false",
        "model_type": "be a section with keys of its own",
        "greater_than": "be over {gt}",
        "greater_than_equal": "be at least {ge}",
        "less_than": "be under {lt}",
        "less_than_equal": "be at most {le}",
        "literal_error": "be {expected}",
        "string_pattern_mismatch": "match {pattern}",
    }.get(kind)
    rule = allowed.format(**context).replace("'", "") if allowed else f"be right ({details['msg']})"
    return f"{name} must {rule}, got {_shown(details['input'])}"


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
        print(f"{path} is sound: {len(load(path).values())} values.")

    return guarded(work)


if __name__ == "__main__":
    raise SystemExit(main())
