"""A network as an MLflow model on disk: a graph and readable code in place of a pickle, signature, input example."""

import copy
import tempfile
import uuid
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.exporting import program, served_code

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

_PROGRAM = Path("data", "model.pt2")


def save(network: "nn.Module", example: "npt.NDArray[np.uint8]", folder: Path) -> None:
    """Writes `network` (on any device) as an MLflow model into `folder`. The model takes batches of any size.

    The description of a pipeline.networks.Classifier becomes the metadata of the model, and is in its graph.

    `example` is uint8 [N, C, H, W] with N of at least 2: torch.export treats a batch size of 1 as a constant. Raises
    what torch.export raises for a network that it can't export; `reason` shortens it.
    """
    graph = Graph(network, example)
    graph.save(network.state_dict(), folder)


class Graph:
    """The exported graph of a network, which can be written with the weights of any network of the same architecture.

    Exporting takes seconds; writing the graph with other weights takes a tenth of a second.

    mlflow.pytorch loads the graph, and mlflow.pyfunc what served.py makes of it.
    """

    def __init__(self, network: "nn.Module", example: "npt.NDArray[np.uint8]", like: "Graph | None" = None) -> None:
        """Exports the network; `network` and `example` are those of `save`.

        `like` is a graph for the same input and the same classes, of any architecture: what is written beside it is
        reused, which saves the time for making it.
        """
        self._description: Mapping[str, Any] = getattr(network, "description", {})
        if like:
            # As mlflow.pytorch.save_model of MLflow 3.17 exports, without writing what is beside the graph.
            self._texts: dict[str, bytes] = like._texts
            self._program = program.of(ready(network), example)
            return
        with tempfile.TemporaryDirectory(prefix="graph-") as temporary:
            folder = Path(temporary, "model")
            _save(ready(network), example, folder)
            self._program = program.load_graph(folder / _PROGRAM)
            self._texts = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self._texts |= served_code.files()

    def save(self, weights: "Mapping[str, Tensor]", folder: Path) -> None:
        """Writes an MLflow model into `folder`. `weights` is a network's state_dict.

        Raises ValueError if the names or shapes of the weights differ from the graph's.
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
        for name, content in {_PROGRAM.as_posix(): b"", **self._texts}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        program.save(self._program, self._description, folder / _PROGRAM)
        model = Model.load(folder)
        model.metadata = dict(self._description) or None
        model.model_uuid = uuid.uuid4().hex
        model.utc_time_created = str(datetime.now(UTC).replace(tzinfo=None))
        model.save(folder / "MLmodel")


def _save(network: "nn.Module", example: "npt.NDArray[np.uint8]", folder: Path) -> None:
    """Writes an MLflow model with both flavors, without the code that the flavor python_function runs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred", category=UserWarning)
        import mlflow.pyfunc
        import mlflow.pytorch
    from mlflow.models import Model, ModelSignature, infer_signature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Map

    answer = Schema(
        [
            ColSpec(DataType.string, "label"),
            ColSpec(DataType.double, "probability"),
            ColSpec(Map(DataType.double), "probabilities"),
        ]
    )
    mlflow.pytorch.save_model(
        network,
        folder,
        signature=ModelSignature(infer_signature(example).inputs, answer),
        input_example=example,
        # Otherwise MLflow finds them out by loading the model in another process.
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "numpy", "pillow")],
        serialization_format="pt2",
    )
    model = Model.load(folder)
    # MLflow would turn requests into arrays of the signature before the model sees them, and refuse image files. It
    # leaves them alone where the model checks them by type hints; served.py checks them by itself.
    model.signature._is_signature_from_type_hint = True
    mlflow.pyfunc.add_to_model(
        model,
        loader_module="mlflow.pyfunc.model",
        code=served_code.FOLDER,
        model_code_path=served_code.SCRIPT,
        artifacts={"graph": {"path": _PROGRAM.as_posix(), "uri": _PROGRAM.as_posix()}},
        conda_env="conda.yaml",
        python_env="python_env.yaml",
    )
    model.save(folder / "MLmodel")


def ready(network: "nn.Module") -> "nn.Module":
    """A copy for torch.export: in evaluation mode, on the CPU, and contiguous.

    torch.export.save would write weights that are channels-last in memory as views of other tensors.
    """
    import torch

    return copy.deepcopy(network).to("cpu").to(memory_format=torch.contiguous_format).eval()


def reason(error: Exception) -> str:
    """The first line of the error of an export. The further lines are about torch's internals."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def address(folder: Path, run_id: str, model_id: str, location: str) -> None:
    """Writes into the model in `folder` the ids and the location under which MLflow logs it.

    `mlflow.pytorch.log_model` writes the same.
    """
    from mlflow.models import Model

    description = Model.load(folder)
    description.run_id, description.model_id, description.model_uuid = run_id, model_id, model_id
    description.artifact_path = location
    description.save(folder / "MLmodel")
