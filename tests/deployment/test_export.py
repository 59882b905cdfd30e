"""python -m pipeline.export: each file is read by what reads it elsewhere, and compared with the network."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pytest
import torch
from deliveries import deliver

from pipeline import config, export, networks, predict, train
from pipeline.evaluation.comparing import read_part
from pipeline.exporting import mlflow_model
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.records import load_meta
from pipeline.tracking import Tracker


@pytest.fixture
def trained(project: Project, change: Callable[[str, str], None]) -> Project:
    """The example after an epoch."""
    change("epochs: 6", "epochs: 1")
    change("threads: null", "threads: 1")
    train.train(project)
    return project


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.deployment.checking._MEASURED_S", 0.0)


def artifacts(project: Project) -> dict[str, Any]:
    """The runs by name: status and files."""
    client = mlflow.MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("pipeline").experiment_id])
    return {
        run.info.run_name: (run.info.status, {file.path for file in client.list_artifacts(run.info.run_id)})
        for run in runs
    }


@pytest.mark.slow
def test_each_format_predicts_what_the_network_predicts_and_the_card_says_so(
    trained: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    forms = ("onnx", "int8", "pt2", "safetensors")
    assert export.main(["--threads", "1", *(word for form in forms for word in ("--format", form))]) == 0
    said = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in said.splitlines()[1:6]}
    assert set(lines) == {"network", *forms}
    assert "Compared on all 143 images of the validation part." in said
    folder = Path("results/export")
    names = {"model.onnx", "model.int8.onnx", "model.pt2", "model.safetensors", "MODEL_CARD.md"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "model.safetensors").read_bytes() == trained.model.read_bytes()

    network = networks.restore(trained.model)
    for count in (1, 2, 7):
        images = np.random.default_rng(count).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(["logits"], {"images": images})[0], expected, rtol=1e-4, atol=1e-4)
        graph = torch.export.load(folder / "model.pt2").module()
        torch.testing.assert_close(graph(torch.from_numpy(images)), torch.from_numpy(expected))
    assert json.loads(session.get_modelmeta().custom_metadata_map["description"]) == network.description
    for form in ("onnx", "pt2", "safetensors"):
        assert float(lines[form][4]) < 1e-5 and lines[form][5] == "0"
    quantised = onnxruntime.InferenceSession(folder / "model.int8.onnx", providers=["CPUExecutionProvider"])
    part = read_part(trained, config.load(trained.params), load_meta(trained.meta), "validation")
    images = part.pixels(0, len(part))
    found = quantised.run(None, {"images": images})[0].argmax(axis=1)
    assert lines["int8"][3] == f"{(found == part.labels).mean():.2%}"
    with torch.no_grad():
        before = network(torch.from_numpy(images)).argmax(1).numpy()
    assert lines["network"][3] == f"{(before == part.labels).mean():.2%}"
    assert int(lines["int8"][5]) == (before != found).sum() < 20

    text = (folder / "MODEL_CARD.md").read_text()
    (trained.root / "head.yaml").write_text(text.split("---\n")[1])
    head = config.read_yaml(trained.root / "head.yaml")
    assert head["datasets"] == ["digits"] and head["license"] == "unknown" and head["metrics"] == ["accuracy"]
    assert head["tags"] == ["image-classification", "resnet", *forms]
    assert len(head["model-index"][0]["results"]) == 4
    for words in ("## Intended use", "1,295 images, train.epochs 1", "| int8 | ", load_meta(trained.meta).digest):
        assert words in text
    deliver(trained.home)
    ((status, files),) = artifacts(trained).values()
    assert status == "FINISHED" and "MODEL_CARD.md" in files

    image = trained.root / "a.png"
    from PIL import Image

    Image.fromarray(images[0, 0]).save(image)
    answers = []
    for ending in ("onnx", "pt2", "safetensors"):
        assert predict.main([str(image), "--csv", "--top", "1", "--model", f"results/export/model.{ending}"]) == 0
        answers.append(capsys.readouterr().out.splitlines()[-1].rpartition(",")[0])
    assert len(set(answers)) == 1


@pytest.mark.slow
def test_the_card_of_a_registered_model_goes_to_its_run_whose_outcome_stays(
    trained: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    example = np.load(trained.training_data / "images.npy")[:2].transpose(0, 3, 1, 2).copy()
    mlflow_model.save(networks.restore(trained.model), example, trained.root / "model")
    with Tracker(trained) as tracker:
        run = tracker.open("trial", name="trial 7")
        run.log_saved_model(trained.root / "model")
        run.register_model("digits-main", "best")
        run.finish(Outcome.PRUNED)
    arguments = ["--model", "models:/digits-main@best", "--format", "pt2", "--on", "test", "--output", "there/best.pt2"]
    assert export.main(arguments) == 0
    assert "Compared on all 359 images of the test part." in capsys.readouterr().out
    assert sorted(path.name for path in Path("there").iterdir()) == ["MODEL_CARD.md", "best.pt2"]
    assert "The network is models:/digits-main@best." in Path("there/MODEL_CARD.md").read_text()
    deliver(trained.home)
    status, files = artifacts(trained)["trial 7"]
    assert status == "KILLED" and files == {"MODEL_CARD.md"}
    assert export.main(["--model", "models:/digits-main@best", "--format", "safetensors"]) == 0
    assert Path("results/export/model.safetensors").read_bytes() == trained.model.read_bytes()


def test_a_missing_package_is_a_sentence_with_its_command(
    trained: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if "onnx" in name else real(name))
    assert export.main([]) == 1
    assert capsys.readouterr().err == (
        "error: ONNX needs onnx and onnxscript and onnxruntime: pip install -e '.[export]'\n"
    )


def test_what_can_not_be_exported_is_refused_by_a_sentence(
    trained: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main(["--format", "safetensors", "--output", "model.onnx"]) == 1
    assert "--output must end in .safetensors for safetensors, got model.onnx." in capsys.readouterr().err
    content = json.loads(trained.meta.read_text())
    trained.meta.write_text(json.dumps(content | {"digest": "sha256:other"}))
    assert export.main(["--format", "pt2"]) == 1
    assert "but data/ holds digits with the digest sha256:other" in capsys.readouterr().err
    trained.model.unlink()
    assert export.main(["--format", "pt2"]) == 1
    assert "model.safetensors is missing" in capsys.readouterr().err
    assert not Path("results/export").exists()


def test_the_validation_part_of_a_cross_validation_is_that_of_its_first_fold(
    project: Project, change: Callable[[str, str], None]
) -> None:
    change("folds: null", "folds: 5")
    meta = load_meta(project.meta)
    part = read_part(project, config.load(project.params), meta, "validation")
    assert len(part) == pytest.approx(meta.counts["train"] / 5, abs=1)
