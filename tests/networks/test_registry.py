import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import REPOSITORY

from pipeline.config import FAMILIES

FAMILY = """
from torch import Tensor, nn

from pipeline.config import Model
from pipeline.networks.network import Network, ends
from pipeline.records import Meta


def build(model: Model, meta: Meta) -> "Tiny":
    return Tiny(model.width, **ends(meta))


class Tiny(Network):
    least_side = 2

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(channels, width, 2)
        self.classify = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.body(images).amax(dim=(2, 3)))
"""
LINE = '    "tiny": Family("tiny", "{family} of {width}", ("width",)),\n'
TRAIN = """
import sys
from pathlib import Path

from pipeline import config
from pipeline.machine import Machine
from pipeline.records import Meta
from pipeline.training import loop
from pipeline.training.device import Device
from pipeline.training.parts import Parts
from stripes import striped

values = {"model.family": "tiny", "model.width": 3, "train.epochs": 1}
settings = config.load(Path(sys.argv[1]), values)
meta = Meta("stripes", ("low", "high"), (3, 8, 8), (0.5,) * 3, (0.25,) * 3, {}, "", "")
device = Device.choose("cpu", "fp32", 1, Machine(cores=1))
parts = Parts.build(settings, meta, striped(8), device)
(epoch,) = loop.fit(*parts, settings.train, device)
print(settings.model.label, type(parts.network.network).__name__, epoch.number)
"""


def test_every_family_has_a_module_that_builds_it() -> None:
    for family in FAMILIES.values():
        assert callable(importlib.import_module(f"pipeline.networks.{family.module}").build)


@pytest.mark.slow
def test_a_new_family_is_one_file_and_one_line(tmp_path: Path) -> None:
    package = shutil.copytree(REPOSITORY / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("*.pyc"))
    (package / "networks" / "tiny.py").write_text(FAMILY)
    table = package / "config" / "families.py"
    begin = "FAMILIES: Mapping[str, Family] = {\n"
    assert begin in table.read_text()
    table.write_text(table.read_text().replace(begin, begin + LINE))
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(REPOSITORY / "examples" / "digits" / "params.yaml")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY / 'tests'}"},
    )
    assert done.stdout == "tiny of 3 Tiny 1\n", done.stderr
