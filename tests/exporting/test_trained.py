"""What a training leaves behind for its model in MLflow."""

import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from pipeline import config, networks, records
from pipeline.exporting import trained
from pipeline.records import Meta

CODE = """
from torch import nn
def build(model, meta, channels: int = 3):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, channels), nn.Linear(channels, len(meta.classes)))
"""


@pytest.mark.slow
def test_the_model_of_a_users_network_needs_nothing_that_may_change_after_the_training(
    meta: Meta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    (project / "mypackage").mkdir(parents=True)
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (project / "mypackage" / "nets.py").write_text(CODE)
    (project / "params.yaml").write_text('model: {family: "mypackage.nets:build", extra: {channels: 5}}\n')
    settings = config.load(project / "params.yaml")
    network = networks.build(settings.model, meta, seed=0)
    networks.save(network, project / "model.safetensors")
    records.write(meta, project / "meta.json")
    example = np.random.default_rng(0).integers(0, 256, (2, *meta.shape), dtype=np.uint8)
    trained.keep(tmp_path / "kept", project / "model.safetensors", project / "meta.json", settings.model, example)
    for path in ("mypackage/nets.py", "params.yaml", "model.safetensors", "meta.json"):
        (project / path).unlink()
    assert trained.make(tmp_path / "kept", tmp_path / "model") is None
    with torch.no_grad():
        model = mlflow.pytorch.load_model(str(tmp_path / "model"))
        torch.testing.assert_close(model(torch.from_numpy(example)), network.eval()(torch.from_numpy(example)))
