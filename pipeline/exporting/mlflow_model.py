"""A network as an MLflow model on disk: signature, input example, and a graph in place of pickled code."""

import copy
import tempfile
import uuid
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

_PROGRAM = Path("data", "model.pt2")


def save(network: "nn.Module", example: "npt.NDArray[np.uint8]", folder: Path) -> None:
    """Writes `network` (on any device), for batches of any size, as an MLflow model into `folder`.

    `example` is uint8 [N, C, H, W] with N of at least 2: torch.export takes a batch of one for a constant.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred", category=UserWarning)
        import mlflow.pytorch
        import torch
        from mlflow.models import Model, infer_signature

        exported = _ready(network)
        with torch.no_grad():
            logits = exported(torch.from_numpy(example)).numpy()
        mlflow.pytorch.save_model(
            exported,
            folder,
            signature=infer_signature(example, logits),
            input_example=example,
            # Else MLflow looks for them, by loading the model in another process.
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "numpy")],
            serialization_format="pt2",
        )
    description = Model.load(folder)
    # An exported graph stays on its device; where there is a GPU MLflow would ask for it there.
    description.flavors["python_function"]["config"] = {"device": "cpu"}
    description.save(folder / "MLmodel")


class Graph:
    """The exported graph of a network, to be written with the weights of other networks that were built alike.

    To export takes seconds; to write what was exported with other weights, a tenth of one.
    """

    def __init__(self, network: "nn.Module", example: "npt.NDArray[np.uint8]", like: "Graph | None" = None) -> None:
        """Takes what `save` takes, and as much time; less with a graph of the same input and the same classes."""
        import torch

        if like:
            # What MLflow does itself (mlflow.pytorch.save_model), without the description, which is the same.
            self._texts: dict[str, bytes] = like._texts
            self._program = torch.export.export(
                _ready(network), (torch.from_numpy(example),), dynamic_shapes=[{0: torch.export.Dim.AUTO}]
            )
            return
        with tempfile.TemporaryDirectory(prefix="graph-") as temporary:
            folder = Path(temporary, "model")
            save(network, example, folder)
            self._program = torch.export.load(folder / _PROGRAM)
            self._texts = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def save(self, weights: "Mapping[str, Tensor]", folder: Path) -> None:
        """Writes an MLflow model into `folder`. `weights` is a network's state_dict.

        Raises ValueError if the names or shapes of the weights are not the graph's.
        """
        import torch
        from mlflow.models import Model

        own = self._program.state_dict
        if {name: tensor.shape for name, tensor in own.items()} != {
            name: tensor.shape for name, tensor in weights.items()
        }:
            raise ValueError("the weights are not those of the network that was exported")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(weights[name])
        (folder / _PROGRAM).parent.mkdir(parents=True)
        for name, content in self._texts.items():
            (folder / name).write_bytes(content)
        torch.export.save(self._program, folder / _PROGRAM)
        description = Model.load(folder)
        description.model_uuid = uuid.uuid4().hex
        description.utc_time_created = str(datetime.now(UTC).replace(tzinfo=None))
        description.save(folder / "MLmodel")


def _ready(network: "nn.Module") -> "nn.Module":
    """A copy for torch.export: in use, on the CPU, and contiguous.

    Weights that are channels-last in memory would be written as if they were views of others.
    """
    import torch

    return copy.deepcopy(network).to("cpu").to(memory_format=torch.contiguous_format).eval()


def reason(error: Exception) -> str:
    """The first line of what an export says of a network that it can't export: the rest speaks of torch's inside."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def address(folder: Path, run_id: str, model_id: str, location: str) -> None:
    """Writes into the model in `folder` which logged model it is, as `mlflow.pytorch.log_model` does."""
    from mlflow.models import Model

    description = Model.load(folder)
    description.run_id, description.model_id, description.model_uuid = run_id, model_id, model_id
    description.artifact_path = location
    description.save(folder / "MLmodel")
