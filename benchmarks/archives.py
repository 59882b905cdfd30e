"""Images for benchmarks, from an archive or from the folder data/ of a project."""

import hashlib
import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline import config, download
from pipeline.batches.images import Images, load_images
from pipeline.errors import DataError
from pipeline.files import Project
from pipeline.records import Meta, load_meta

PARAMS = Path(__file__).parent.parent / "params.yaml"
RESNET20 = PARAMS.parent / "examples" / "resnet20" / "params.yaml"
"""The ResNet paper's recipe, which the plain loops of tutorials have too."""

HELP = "cifar-10-python.tar.gz, images in the ImageFolder layout, or the folder data/ of a project"


class Archive(NamedTuple):
    """What a data set has."""

    meta: Meta
    training: Images
    test: Images


def read(path: Path) -> Archive:
    """All of an archive, or of a folder that the stage download wrote."""
    if (path / "meta.json").is_file():
        return _read(Project(path.parent, path.parent), path)
    try:
        return _downloaded(
            path, {"name": "cifar10", "sha256": hashlib.file_digest(path.open("rb"), "sha256").hexdigest()}
        )
    except (DataError, IsADirectoryError):
        return _downloaded(path, {"name": "folder", "image_size": 32})


def _downloaded(path: Path, values: dict[str, str | int]) -> Archive:
    """What the stage download makes of `path`, with other values in section `data`."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        project = Project(Path(folder), Path(folder))
        content = config.read_yaml(PARAMS)
        content["data"] |= {"url": str(path.resolve())} | values
        project.params.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
        download.download(project)
        meta, training, test = _read(project, project.data)
        # Into memory, as the folder is about to go.
        return Archive(meta, *(Images(np.array(part.pixels), part.labels) for part in (training, test)))


def _read(project: Project, folder: Path) -> Archive:
    meta = load_meta(folder / "meta.json")
    parts = (folder / project.training_data.name, folder / project.test_data.name)
    return Archive(meta, *(load_images(part, meta) for part in parts))
