"""What the phases of gpu.py share, and the process of one.

python benchmarks/gpu_phases.py PHASE FIGURES.json DEVICE DATA full|quick
"""

import importlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from archives import PARAMS

from pipeline import config, download
from pipeline.batches.images import Images
from pipeline.config import Config
from pipeline.files import Project
from pipeline.machine import Machine
from pipeline.records import Meta
from pipeline.training.device import Device

ROOT = PARAMS.parent
NOISE = Meta("noise", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")
MODULES = {
    "right": "gpu_numbers",
    "speed": "gpu_numbers",
    "accuracy": "gpu_trainings",
    "searches": "gpu_trainings",
    "memory": "gpu_failures",
    "kills": "gpu_failures",
}


@dataclass
class Phase:
    """What a phase is given, and the figures that it has so far."""

    into: Path
    device: str
    data: Path | None
    quick: bool
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    def note(self, name: str, value: Any) -> None:
        self.figures[name] = value
        self.into.write_text(json.dumps(self.figures), encoding="utf-8")

    def expect(self, name: str, holds: bool, value: Any) -> None:
        """A figure that must be as it should."""
        self.note(name, {"as it should": holds, "found": value})
        if not holds:
            self.note("failed", True)

    def chosen(self, precision: str = "auto") -> Device:
        device = Device.choose(self.device, precision, None if self.is_cuda else 1, Machine.probe())
        device.prepare()
        return device

    @property
    def cpu(self) -> Device:
        """What a GPU is compared with."""
        return Device.choose("cpu", "fp32", 1, Machine.probe())


def noise(count: int) -> Images:
    random = np.random.default_rng(0)
    return Images(random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 10)


def recipe(name: str, **values: Any) -> Config:
    """The shipped file or an example's, without its space, which other values may not fit."""
    content = config.read_yaml(PARAMS if name == "shipped" else ROOT / "examples" / name / "params.yaml")
    for section in ("space", "study"):
        content.pop(section, None)
    return config.parse(content, values, name)


def digits(phase: Phase, name: str) -> Project:
    """A project with the example's values and its images."""
    folder = phase.into.parent / name
    folder.mkdir()
    project = Project(folder, folder)
    project.params.write_bytes((ROOT / "examples" / "digits" / "params.yaml").read_bytes())
    (folder / "dvc.yaml").write_bytes((ROOT / "examples" / "digits" / "dvc.yaml").read_bytes())
    download.download(project)
    return project


if __name__ == "__main__":
    name, into, device, data, scale = sys.argv[1:]
    given = Phase(Path(into), device, Path(data) if data else None, scale == "quick")
    getattr(importlib.import_module(MODULES[name]), name)(given)
