"""A network as an MLflow model on disk: signature, input example, and a graph in place of pickled code."""

import copy
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn


def save(network: "nn.Module", example: "npt.NDArray[np.uint8]", folder: Path) -> None:
    """Writes `network` (on any device), for batches of any size, as an MLflow model into `folder`.

    `example` is uint8 [N, C, H, W] with N of at least 2: torch.export takes a batch of one for a constant.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred", category=UserWarning)
        import mlflow.pytorch
        import torch
        from mlflow.models import Model, infer_signature

        # torch.export writes weights that are channels-last in memory as if they were views of others.
        exported = copy.deepcopy(network).to("cpu").to(memory_format=torch.contiguous_format).eval()
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


def address(folder: Path, run_id: str, model_id: str, location: str) -> None:
    """Writes into the model in `folder` which logged model it is, as `mlflow.pytorch.log_model` does."""
    from mlflow.models import Model

    description = Model.load(folder)
    description.run_id, description.model_id, description.model_uuid = run_id, model_id, model_id
    description.artifact_path = location
    description.save(folder / "MLmodel")
