"""A network in another format, as a file that is enough by itself: class names, size and scale of images are in it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.deployment.opened import Located
from pipeline.errors import PipelineError
from pipeline.files import atomic_write

if TYPE_CHECKING:
    from torch.export import ExportedProgram

ENDINGS = {"onnx": ".onnx", "int8": ".int8.onnx", "pt2": ".pt2", "safetensors": ".safetensors"}
"""Of the formats that can be asked for."""


class _Source(NamedTuple):
    program: "ExportedProgram"
    description: Mapping[str, Any]


class Converter:
    """Writes one network in any format. It is exported once."""

    def __init__(self, source: Located) -> None:
        """Raises PipelineError, also if the network can't be exported."""
        self._source = _program(source)

    def write(self, form: str, path: Path, calibration: Callable[[], npt.NDArray[np.uint8]]) -> None:
        """Replaces the file as a whole. `calibration` gives images [N, C, H, W] for the ranges of int8.

        Raises PipelineError where ONNX lacks an operation of the network, or a package is missing.
        """
        program, description = self._source
        from pipeline import networks
        from pipeline.exporting import mlflow_model, onnx
        from pipeline.exporting import program as programs

        if form == "safetensors":
            networks.write(description, program.state_dict, path)
            return
        with atomic_write(path) as aside:
            if form == "pt2":
                programs.save(program, description, aside)
                return
            whole = aside.with_name(f"{aside.name}.fp32")
            try:
                onnx.write(program, description, aside if form == "onnx" else whole)
                if form == "int8":
                    onnx.quantise(whole, calibration(), aside)
            except PipelineError:
                raise
            except Exception as error:  # the exporter raises nearly anything for what ONNX lacks
                raise PipelineError(f"the network can't be written as {form}: {mlflow_model.reason(error)}.") from error
            finally:
                whole.unlink(missing_ok=True)


def _program(source: Located) -> _Source:
    from pipeline.exporting import mlflow_model, program

    if source.path.suffix == ".onnx":
        raise PipelineError(f"{source.name} is exported already: name the model that it was made of.")
    if source.path.suffix == ".pt2":
        return _Source(*program.read(source.path))
    from pipeline import networks

    network = networks.restore(source.path)
    example = np.zeros((2, *network.description["shape"]), np.uint8)
    try:
        return _Source(program.of(mlflow_model.ready(network), example), network.description)
    except Exception as error:  # torch raises nearly anything for a network that it can't export
        raise PipelineError(f"{source.name} can't be exported: {mlflow_model.reason(error)}.") from error
