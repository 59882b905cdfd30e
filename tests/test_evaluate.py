import csv
import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from deliveries import deliver

from pipeline import config, evaluate, networks, train
from pipeline.batches.images import load_images
from pipeline.evaluation.metrics import score
from pipeline.evaluation.test_set import predict_test_set
from pipeline.files import Project
from pipeline.records import load_meta


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def evaluated(project: Project, change: Callable[[str, str], None]) -> Project:
    """The example, trained for three epochs and evaluated."""
    change("epochs: 6", "epochs: 3")
    change("threads: null", "threads: 1")
    train.train(project)
    evaluate.evaluate(project)
    return project


def test_the_stage_writes_figures_that_agree_with_each_other(evaluated: Project) -> None:
    metrics = json.loads(evaluated.metrics.read_text())
    meta = load_meta(evaluated.meta)
    predictions = rows(evaluated.predictions)
    probabilities = np.load(evaluated.probabilities)
    test = load_images(evaluated.test_data, meta)
    assert list(metrics) == ["train", "evaluate"]
    assert len(predictions) == len(probabilities) == len(test.labels) == 359
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert [row["actual"] for row in predictions] == [meta.classes[label] for label in test.labels]
    right = np.mean([row["actual"] == row["predicted"] for row in predictions])
    assert metrics["evaluate"]["accuracy"] == pytest.approx(right)
    assert right > 0.6
    matrix = np.array([[int(row[name]) for name in meta.classes] for row in rows(evaluated.confusion_matrix)])
    assert matrix.sum() == 359
    assert np.trace(matrix) / 359 == pytest.approx(right)
    assert [int(row["support"]) for row in rows(evaluated.per_class)] == matrix.sum(axis=1).tolist()
    last = rows(evaluated.history)[-1]
    assert metrics["train"]["validation_accuracy"] == float(last["validation_accuracy"])
    assert metrics["train"]["epochs"] == 3
    assert 0 < metrics["evaluate"]["accuracy_low"] < right < metrics["evaluate"]["accuracy_high"] < 1


def test_the_mistakes_kept_are_the_most_certain_ones_with_their_images(evaluated: Project) -> None:
    meta = load_meta(evaluated.meta)
    test = load_images(evaluated.test_data, meta)
    probabilities = np.load(evaluated.probabilities)
    kept = np.load(evaluated.mistakes)
    wrong = probabilities.argmax(axis=1) != test.labels
    assert len(kept["index"]) == min(24, wrong.sum())
    assert (kept["actual"] != kept["predicted"]).all()
    assert np.array_equal(kept["images"], test.pixels[kept["index"]])
    assert (
        kept["confidence"].tolist()
        == sorted(probabilities.max(axis=1)[wrong].tolist(), reverse=True)[: len(kept["index"])]
    )


def test_evaluating_again_gives_the_same_files(evaluated: Project) -> None:
    paths = (evaluated.predictions, evaluated.probabilities, evaluated.per_class, evaluated.mistakes)
    before = [path.read_bytes() for path in paths]
    evaluate.evaluate(evaluated)
    assert [path.read_bytes() for path in paths] == before


def test_a_missing_model_or_one_of_other_values_is_told_with_what_to_do(
    evaluated: Project, change: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    change("width: 4", "width: 16")
    assert evaluate.main([]) == 1
    error = capsys.readouterr().err
    assert "does not hold the network of params.yaml" in error
    assert "model.width: it was 4, it is 16" in error
    assert len(error.splitlines()) == 3
    change("width: 16", "width: 4")
    weights = networks.build(
        config.load(evaluated.params).model.model_copy(update={"width": 8}), load_meta(evaluated.meta), 0
    )
    networks.save(weights, evaluated.model)
    assert evaluate.main([]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert "size mismatch for network." in error
    assert error.count("size mismatch") == 1
    evaluated.model.unlink()
    assert evaluate.main([]) == 1
    assert "model.safetensors is missing: run `dvc repro`" in capsys.readouterr().err
    evaluated.run.unlink()
    assert evaluate.main([]) == 1
    assert "run.json is missing: run `dvc repro`" in capsys.readouterr().err


def test_figures_with_flips_and_of_folds_stand_beside_the_plain_ones_under_names_of_their_own(
    evaluated: Project, change: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = json.loads(evaluated.metrics.read_text())
    assert "tta_flip" not in plain["evaluate"]
    assert "folds" not in plain["train"]
    change("tta: none", "tta: flip")
    record = json.loads(evaluated.run.read_text())
    record["folds"] = {"count": 3, "validation_accuracy": [0.8, 0.9, 1.0], "mean": 0.9, "sd": 0.1}
    evaluated.run.write_text(json.dumps(record))
    evaluate.evaluate(evaluated)
    metrics = json.loads(evaluated.metrics.read_text())
    flip = metrics["evaluate"].pop("tta_flip")
    folds = metrics["train"].pop("folds")
    for section in (plain["evaluate"], metrics["evaluate"]):
        section.pop("images_per_second")  # no two times are alike
    assert metrics == plain
    assert set(flip) == {"accuracy", "accuracy_low", "accuracy_high", "top5_accuracy", "macro_f1", "nll", "ece"}
    assert folds == {"count": 3, "validation_accuracy_mean": 0.9, "validation_accuracy_sd": 0.1}
    assert f"tta_flip: test accuracy {flip['accuracy']:.2%}" in capsys.readouterr().out

    settings = config.load(evaluated.params)
    pair = [predict_test_set(evaluated, settings.model, evaluated.model, settings, flip=flip) for flip in (False, True)]
    for (probabilities, labels), figures in zip(pair, (plain["evaluate"], flip), strict=True):
        assert (probabilities.argmax(axis=1) == labels).mean() == pytest.approx(figures["accuracy"])
        assert score(probabilities, labels, 15).nll == pytest.approx(figures["nll"])
    assert pair[0][0].dtype == np.float64
    np.testing.assert_allclose(pair[0][0], np.load(evaluated.probabilities), rtol=1e-6)
    assert plain["evaluate"]["nll"] != pytest.approx(flip["nll"])  # a mirrored digit is another image

    deliver(evaluated.home)
    client = mlflow.MlflowClient(f"sqlite:///{evaluated.home / 'mlflow.db'}")
    [run] = client.search_runs([client.get_experiment_by_name("pipeline").experiment_id])
    logged = run.data.metrics
    assert logged["evaluate.tta_flip.accuracy"] == pytest.approx(flip["accuracy"])
    assert logged["evaluate.accuracy"] == pytest.approx(plain["evaluate"]["accuracy"])


def test_the_model_is_calibrated_and_the_figures_before_are_beside(
    project: Project, change: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    change("epochs: 6", "epochs: 1")
    found = []
    for temperature in (1.0, 2.0):
        monkeypatch.setattr("pipeline.training.cross_validation.temperature", lambda *_, value=temperature: value)
        train.train(project)
        evaluate.evaluate(project)
        found.append(json.loads(project.metrics.read_text())["evaluate"])
    plain, calibrated = found
    assert plain["uncalibrated"] == {"nll": plain["nll"], "ece": plain["ece"]}
    assert calibrated["uncalibrated"] == pytest.approx(plain["uncalibrated"], rel=1e-3)
    assert calibrated["accuracy"] == plain["accuracy"]
    assert calibrated["nll"] != pytest.approx(plain["nll"], rel=0.01)
    assert json.loads(project.run.read_text())["temperature"] == 2


def test_the_macs_are_those_that_the_training_counted(evaluated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    # Counting them imports PyTorch's compiler, which takes a second. The record of an older version has none.
    counted = json.loads(evaluated.metrics.read_text())["evaluate"]["macs"]
    calls: list[int] = []
    monkeypatch.setattr("pipeline.networks.macs", lambda *_: calls.append(0) or counted + 1)
    evaluate.evaluate(evaluated)
    assert json.loads(evaluated.metrics.read_text())["evaluate"]["macs"] == counted == 48544
    assert not calls
    record = json.loads(evaluated.run.read_text())
    evaluated.run.write_text(json.dumps({key: value for key, value in record.items() if key != "macs"}))
    evaluate.evaluate(evaluated)
    assert json.loads(evaluated.metrics.read_text())["evaluate"]["macs"] == counted + 1
