"""Runs to record, among them one with everything that a run can have, and the check that MLflow has it."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow_runs import history
from torch import nn

from pipeline.exporting import mlflow_model
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.records import Meta
from pipeline.tracking import Run, Timing
from pipeline.tracking.outbox import Outbox
from pipeline.tracking.sender import Sender
from pipeline.tracking.store import Store

DIGITS = Meta(
    name="digits",
    classes=tuple("01234"),
    shape=(3, 8, 8),
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    counts={"train": 100, "test": 10},
    digest="sha256:" + "0123456789abcdef" * 4,
    source="https://example.org/digits.zip",
)
EXAMPLE = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)


class Network(nn.Module):
    """Its dropout and batch norm show whether a model is in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.description = DIGITS.description
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 5)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(pixels.float() / 255 - 0.5)
        return logits


def unsent_run(project: Project, key: str, **content: Any) -> tuple[Run, Outbox]:
    """A run that is recorded on disk and not sent, with its outbox; `content` goes into its first operation."""
    store = Store.of(project)
    sender = Sender(store, Timing())
    opening = {"key": key, "name": None, "parent": None, "store": str(store), "experiment": store.experiment}
    outbox = sender.open(project.outbox / f"{key}@{store.id}", **(opening | content))
    return Run(store, outbox, partial(sender.append, outbox), lambda run: None), outbox


def log_model(run: Run, network: nn.Module, folder: Path) -> None:
    """`folder` is for a moment the place of the MLflow model."""
    mlflow_model.save(network, EXAMPLE, folder / "model")
    run.log_saved_model(folder / "model")


def record_everything(run: Run, folder: Path) -> None:
    image = folder / "curves.png"
    image.write_bytes(b"image")
    run.log_params({"train.epochs": 20, "train.threads": None, "train.learning_rate": 0.1, "model.family": "resnet"})
    run.log_metrics({"train.loss": 1.5, "train.accuracy": 0.25}, step=1)
    run.log_metrics({"train.loss": math.nan, "train.accuracy": 0.5}, step=2)
    run.set_tags({"seed": 0, "git.dirty": True})
    run.log_file(image, folder="plots")
    image.unlink()
    run.log_bytes(b"hello", "notes/hello.txt")
    run.log_table({"class": ["cat", "dog"], "precision": np.array([0.5, 1.0])}, "per_class.json")
    run.log_dataset(DIGITS, {"training": 90, "validation": 10}, "training")
    log_model(run, Network(), folder)
    run.finish(Outcome.FINISHED)


def assert_has_everything(mlflow_client: MlflowClient, run: MlflowRun) -> None:
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "train.epochs": "20",
        "train.threads": "null",
        "train.learning_rate": "0.1",
        "model.family": "resnet",
    }
    assert history(mlflow_client, run, "train.accuracy") == [(1, 0.25), (2, 0.5)]
    first, second = history(mlflow_client, run, "train.loss")
    assert first == (1, 1.5)
    assert second[0] == 2 and math.isnan(second[1])
    assert run.data.tags.items() >= {"seed": "0", "git.dirty": "true", "ended": "finished"}.items()
    files = {
        file.path for folder in ("", "plots", "notes") for file in mlflow_client.list_artifacts(run.info.run_id, folder)
    }
    assert files == {"plots", "plots/curves.png", "notes", "notes/hello.txt", "per_class.json"}
    table = Path(mlflow_client.download_artifacts(run.info.run_id, "per_class.json"))
    assert json.loads(table.read_text()) == {"columns": ["class", "precision"], "data": [["cat", 0.5], ["dog", 1.0]]}
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "per_class.json", "type": "table"}]
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", "sha256:0123456789abcdef0123456789abc")
    assert json.loads(dataset.dataset.profile) == {"num_rows": 100, "classes": 5, "training": 90, "validation": 10}
    assert "[-1, 3, 8, 8]" in dataset.dataset.schema
    assert [(tag.key, tag.value) for tag in dataset.tags] == [("mlflow.data.context", "training")]
    (output,) = run.outputs.model_outputs
    (model,) = mlflow_client.search_logged_models([run.info.experiment_id])
    assert model.model_id == output.model_id
    assert model.status == "READY"
