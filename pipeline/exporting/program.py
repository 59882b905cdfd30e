"""A network as a graph of torch.export (.pt2), which holds numbers and operations, and no code."""

import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.exporting.loaded import Loaded

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn
    from torch.export import ExportedProgram

_DESCRIPTION = "description.json"


def of(network: "nn.Module", example: "npt.NDArray[np.uint8]") -> "ExportedProgram":
    """The graph of a network that is in evaluation mode, contiguous and on the CPU, for batches of any size.

    `example` is uint8 [N, C, H, W] with N of at least 2: torch.export treats a batch size of 1 as a constant.
    """
    import torch

    return torch.export.export(network, (torch.from_numpy(example),), dynamic_shapes=[{0: torch.export.Dim.AUTO}])


def save(program: "ExportedProgram", description: Mapping[str, Any], path: Path) -> None:
    """Writes the graph, and beside it in the file what goes in and what comes out."""
    import torch

    text = json.dumps(description, ensure_ascii=False)
    with path.open("wb") as file:  # a path would have to end in .pt2
        torch.export.save(program, file, extra_files={_DESCRIPTION: text})


def load_graph(path: Path) -> "ExportedProgram":
    """The graph in a file of torch.export."""
    import torch

    with warnings.catch_warnings():
        # PyTorch 2.9 keeps weights in the memory that it has read, which nothing else has.
        warnings.filterwarnings("ignore", message="The given buffer is not writable", category=UserWarning)
        return torch.export.load(path)


def read(path: Path) -> "tuple[ExportedProgram, Mapping[str, Any]]":
    """What `save` wrote. Raises PipelineError if the file is damaged, of another program or of another version."""
    try:
        with zipfile.ZipFile(path) as archive:  # of others torch would log a traceback
            (entry,) = [name for name in archive.namelist() if name.endswith(f"/{_DESCRIPTION}")]
            description = json.loads(archive.read(entry))
        return load_graph(path), description
    except Exception as error:  # torch raises nearly anything for a damaged file
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise PipelineError(f"{path} is no .pt2 file of this project ({reason}).") from error


def load(path: Path) -> Loaded:
    """Likewise, ready to predict."""
    import torch

    program, description = read(path)
    graph = program.module()

    def logits(images: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.float32]":
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = graph(torch.from_numpy(images)).numpy()
        return found

    return Loaded(description, logits)
