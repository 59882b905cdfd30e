"""A trained network as files, and the MLflow model that another process makes of them.

Making one takes seconds: the stage that trained keeps what it needs (`keep`), who sends to MLflow makes it (`make`).
"""

import os
import shutil
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import config
from pipeline.config import Model
from pipeline.processes import ChildProcess
from pipeline.records import load_meta

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PATIENCE_S = 900
"""Seconds that making a model may take: a large network on a busy machine takes minutes."""


def keep(folder: Path, weights: Path, meta: Path, model: Model, example: "npt.NDArray[np.uint8]") -> None:
    """Writes into the new `folder` copies of all that `make` needs, which may change or go afterwards.

    `weights` is a file of pipeline.networks.save, `example` holds at least 2 images, uint8 [N, C, H, W].
    """
    import numpy as np

    folder.mkdir(parents=True)
    shutil.copyfile(weights, folder / "model.safetensors")
    shutil.copyfile(meta, folder / "meta.json")
    (folder / "model.json").write_text(model.model_dump_json(), encoding="utf-8")
    np.save(folder / "example.npy", example)
    if config.is_own(model.family):
        config.copy_code(model.family, folder)


def make(kept: Path, target: Path) -> str | None:
    """Makes an MLflow model of what `keep` wrote, in a process of its own. `target` must not exist.

    Returns None, or the reason why there is no model; then there is no `target`.
    """
    process = ChildProcess("exporter", _work, kept.resolve(), target.resolve())
    reason: str | None = "the process that makes it died"
    with suppress(EOFError, OSError):
        reason = process.connection.recv() if process.connection.poll(_PATIENCE_S) else f"it took {_PATIENCE_S} s"
    process.kill()
    if reason:
        shutil.rmtree(target, ignore_errors=True)
    return reason


def _work(parent: Connection, kept: Path, target: Path) -> None:
    if os.name == "posix":
        os.nice(5)  # a training that runs meanwhile goes first
    from pipeline.exporting.environment import quiet

    quiet()
    import numpy as np
    import torch

    from pipeline import networks
    from pipeline.exporting import mlflow_model

    torch.set_num_threads(1)
    os.chdir(kept)  # a network of the user's has its code there
    try:
        model = Model.model_validate_json((kept / "model.json").read_text(encoding="utf-8"))
        network = networks.build(model, load_meta(kept / "meta.json"), seed=0, initial=False)
        networks.load(network, kept / "model.safetensors")
        mlflow_model.save(network, np.load(kept / "example.npy"), target)
    except Exception as error:
        parent.send(mlflow_model.reason(error))
    else:
        parent.send(None)
