"""What differs between a recorded training and this machine, and how much each difference weighs."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from pipeline import config, provenance
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.files import Project
from pipeline.records import DeviceRecord, Meta


class Weight(StrEnum):
    """What a difference does to the figures of a training."""

    HARMLESS = "harmless"
    DIGITS = "may change digits"
    """Rounding differs, and grows from step to step."""
    RESULTS = "will change results"


@dataclass(frozen=True)
class Difference:
    """A fact that is not the same."""

    name: str
    then: str
    now: str
    weight: Weight


_WEIGHTS = {
    "data.digest": Weight.RESULTS,
    "code.train": Weight.RESULTS,
    "weights.sha256": Weight.RESULTS,
    "device.type": Weight.DIGITS,
    "device.name": Weight.DIGITS,
    "device.threads": Weight.DIGITS,
    "device.precision": Weight.RESULTS,
    "version.torch": Weight.DIGITS,
    "version.numpy": Weight.DIGITS,
    "version.torchvision": Weight.DIGITS,
}
"""Of the tags of a run. What is not here is harmless, but for the code of a user's network."""
_COMPARED = (*_WEIGHTS, "version.python", "version.pipeline", "git.commit", "host", "platform")


def differences(tags: Mapping[str, str], here: Mapping[str, str]) -> list[Difference]:
    """What differs between the tags of a run and those that it would have here, the gravest first.

    What one of both does not say is left out.
    """
    found = [
        Difference(name, tags[name], here[name], _weight(name))
        for name in (*_COMPARED, *(name for name in here if _is_own_code(name)))
        if name in tags and name in here and tags[name] != here[name]
    ]
    # Only torchvision's own networks are made of its code.
    if tags.get("model.family") != "torchvision":
        found = [each for each in found if each.name != "version.torchvision"]
    return sorted(found, key=lambda each: list(Weight).index(each.weight), reverse=True)


def facts(project: Project, settings: Config, meta: Meta, device: DeviceRecord) -> dict[str, str]:
    """The tags that a training of `settings` would have here."""
    found = provenance.tags(provenance.collect(project)) | {
        "data.digest": meta.digest,
        "device.type": device.type,
        "device.name": device.name,
        "device.threads": str(device.threads),
        "device.precision": device.precision,
    }
    with suppress(ConfigError):  # a file is missing here: the training will say so
        found |= config.content_tags(settings)
    return found


def _weight(name: str) -> Weight:
    return Weight.RESULTS if _is_own_code(name) else _WEIGHTS.get(name, Weight.HARMLESS)


def _is_own_code(name: str) -> bool:
    return name.startswith("code.") and ":" in name
