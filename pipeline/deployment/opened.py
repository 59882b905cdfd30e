"""What --model names -> a network that is ready to predict: a file, a run or a registered model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipelineError
from pipeline.exporting.loaded import Loaded
from pipeline.files import Project
from pipeline.machine import granted_cores
from pipeline.outcome import Outcome

FORMATS = (".safetensors", ".onnx", ".pt2")


@dataclass(frozen=True)
class Opened:
    """A trained network, with what it takes and gives."""

    name: str
    """For messages."""
    data: str
    """The name of the data set that it was trained on; `digest` is that data set's."""
    digest: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """Channels, height, width."""
    highest_float: int | None
    """The scale of floating-point images, see Meta."""
    network: Mapping[str, Any]
    """The section model."""
    logits: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
    """uint8 [N, C, H, W] -> [N, classes]."""

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """uint8 [N, C, H, W] -> [N, classes]. They are calibrated: the last layer holds the temperature."""
        logits = self.logits(images).astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return found


def open_model(project: Project, name: str | None) -> Opened:
    """The network that `name` names; None is the one that the stage train wrote last.

    Raises PipelineError if there is none, or it is of a version that did not say what it takes.
    """
    return read(locate(project, name))


@dataclass(frozen=True)
class Located:
    """The file of a network, and its run in MLflow where that is known."""

    name: str
    path: Path
    """With one of FORMATS as its ending."""
    key: str | None = None
    """Of the run."""
    ended: Outcome | None = None


def locate(project: Project, name: str | None) -> Located:
    """The file of what `name` names, as in `open_model`; it need not exist if `name` is None. Raises PipelineError."""
    if name is None:
        return Located(str(project.model.relative_to(project.root)), project.model)
    path = Path(name).expanduser()
    if path.suffix in FORMATS:
        if not path.is_file():
            raise PipelineError(f"there is no file {name}.")
        return Located(name, path)
    if path.is_file():
        raise PipelineError(f"{name} is no model by its ending, which must be one of {', '.join(FORMATS)}.")
    from pipeline.tracking import fetch_model

    fetched = fetch_model(project, name)
    file = fetched.folder / "data" / "model.pt2"
    if not file.is_file():
        raise PipelineError(f"the model {name} was not made by this project: it has no data/model.pt2.")
    return Located(name, file, fetched.key, fetched.ended)


def read(located: Located, threads: int | None = None) -> Opened:
    """The network of a file, on `threads` threads of a processor; None: on the device that suits it best.

    Raises PipelineError if the file is missing, damaged, or does not say what it takes.
    """
    if located.path.suffix == ".safetensors":
        return _opened(_weights(located.path, threads), located.name)
    if located.path.suffix == ".onnx":
        from pipeline.exporting import onnx

        return _opened(onnx.load(located.path, threads or granted_cores()), located.name)
    import torch

    from pipeline.exporting import program

    torch.set_num_threads(threads or granted_cores())
    return _opened(program.load(located.path), located.name)


def _weights(path: Path, threads: int | None) -> Loaded:
    """A file of networks.save."""
    import torch

    from pipeline import networks
    from pipeline.machine import Machine
    from pipeline.training import loop
    from pipeline.training.device import Device

    network = networks.restore(path)
    device = Device.choose("cpu" if threads else "auto", "fp32", threads, Machine.probe())
    device.prepare()
    loop.place(network, device)

    def logits(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = network(torch.from_numpy(images).to(device.handle)).float().cpu().numpy()
        return found

    return Loaded(network.description, logits)


def _opened(loaded: Loaded, name: str) -> Opened:
    about = loaded.description
    try:
        channels, height, width = about["shape"]
        opened = Opened(
            name,
            about["data"],
            about["digest"],
            tuple(about["classes"]),
            (channels, height, width),
            about["highest_float"],
            about["model"],
            loaded.logits,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PipelineError(
            f"{name} does not say what it takes, as models of this version do: make it again."
        ) from error
    if height != width or channels not in (1, 3):
        raise PipelineError(
            f"{name} takes images of {channels} x {height} x {width}: no picture can be resized to that."
        )
    return opened
