"""The values of a recorded training as a Config of this version, and what the record lacks."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline import config
from pipeline.config import Config, Scalar
from pipeline.errors import ConfigError, PipelineError

NEEDED = {
    "data.digest": "whether the images are the same",
    "device.type": "the device",
    "device.threads": "the number of threads",
    "device.precision": "the precision",
    "code.train": "the code that trained",
    "version.torch": "the version of PyTorch",
}
"""Tags of a run that a repetition goes by, each with what is not known without it."""


@dataclass(frozen=True)
class Values:
    """The values of a recorded training."""

    settings: Config
    lacking: list[str]
    """Sentences about what the record does not say."""


def values(params: Mapping[str, str], tags: Mapping[str, str]) -> Values:
    """What the params and tags of an MLflow run say. Raises PipelineError for a run that is no training."""
    if "model.family" not in params or "train.seed" not in params:
        raise PipelineError(
            "That run is no training: it has no model.family and no train.seed. Name a trial, or a run of `dvc repro`."
        )
    given = {name: typed(text, name) for name, text in params.items()}
    # The address of the images and what is read from there have become arrays, which have a digest.
    given = {name: value for name, value in given.items() if not name.startswith("data.") or name == "data.name"}
    unknown = [name for name, value in given.items() if _is_unknown(name, value)]
    kept = {name: value for name, value in given.items() if name not in unknown}
    kept = {name: value for name, value in kept.items() if not config.had_no_effect(name, value)}
    settings = config.parse(_nested(kept), {}, "the run")
    lacking = [f"{tag}, so {what} can't be compared" for tag, what in NEEDED.items() if tag not in tags]
    lacking += [
        f"{name}; its default is taken: {value}"
        for name, value in settings.values().items()
        if name not in params and config.decides_training(name)
    ]
    lacking += [f"{name} = {params[name]} is a key that this version does not have" for name in unknown]
    return Values(settings, lacking)


def typed(text: str, name: str) -> Scalar:
    """The value of a param, which MLflow holds as the text that params.yaml would have."""
    try:
        value = config.parse_value(text, name)
    except ConfigError:
        return text
    return value if value is None or isinstance(value, bool | int | float | str) else text


def _is_unknown(name: str, value: Scalar) -> bool:
    return not (name in config.defaults() or name.startswith("model.extra.") or config.had_no_effect(name, value))


def _nested(given: Mapping[str, Scalar]) -> dict[str, dict[str, object]]:
    content: dict[str, dict[str, object]] = {}
    for name, value in given.items():
        section, _, key = name.partition(".")
        inside = content.setdefault(section, {})
        if section == "model" and key.startswith("extra."):
            extra = inside.setdefault("extra", {})
            assert isinstance(extra, dict)
            extra[key.removeprefix("extra.")] = value
        else:
            inside[key] = value
    return content
