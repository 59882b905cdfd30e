"""A network as a graph of torch.export (.pt2), which holds numbers and operations, and no code."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.exporting.loaded import Loaded

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch.export import ExportedProgram

_DESCRIPTION = "description.json"


def save(program: "ExportedProgram", description: Mapping[str, Any], path: Path) -> None:
    """Writes the graph, and beside it in the file what goes in and what comes out."""
    import torch

    text = json.dumps(description, ensure_ascii=False)
    torch.export.save(program, path, extra_files={_DESCRIPTION: text})


def load(path: Path) -> Loaded:
    """Raises PipelineError if the file is damaged, of another program or of another version."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:  # of others torch would log a traceback
            (entry,) = [name for name in archive.namelist() if name.endswith(f"/{_DESCRIPTION}")]
            description = json.loads(archive.read(entry))
        graph = torch.export.load(path).module()
    except Exception as error:  # torch raises nearly anything for a damaged file
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise PipelineError(f"{path} is no .pt2 file of this project ({reason}).") from error

    def logits(images: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.float32]":
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = graph(torch.from_numpy(images)).numpy()
        return found

    return Loaded(description, logits)
