from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline import records
from pipeline.errors import DataError, PipelineError
from pipeline.outcome import Outcome
from pipeline.records import EvaluateFigures, FoldFigures, Meta, Metrics, Scores, TrainFigures

SCORES = Scores(accuracy=0.5, accuracy_low=0.4, accuracy_high=0.6, macro_f1=0.5, nll=1.0, ece=0.1)
METRICS = Metrics(
    TrainFigures(3, 0.5, 0.8, 0.6, 0.75, 1000.0, FoldFigures(2, 0.75, 0.01)),
    EvaluateFigures(**asdict(SCORES), parameters=10, macs=20, images_per_second=30, tta_flip=SCORES),
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path, meta: Meta) -> None:
    records.write(meta, tmp_path / "meta.json")
    assert records.load_meta(tmp_path / "meta.json") == meta
    records.write(METRICS, tmp_path / "metrics.json")
    assert records.read(Metrics, tmp_path / "metrics.json", stage="evaluate") == METRICS


def test_figures_that_are_not_there_are_neither_in_metrics_json_nor_in_mlflow(tmp_path: Path) -> None:
    without = Metrics(replace(METRICS.train, folds=None), replace(METRICS.evaluate, tta_flip=None))
    records.write(without, tmp_path / "metrics.json")
    assert "null" not in (tmp_path / "metrics.json").read_text()
    assert records.flat(without.evaluate, "evaluate").keys() == {
        f"evaluate.{name}"
        for name in (
            *("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "nll", "ece"),
            *("parameters", "macs", "images_per_second"),
        )
    }
    assert records.flat(METRICS.evaluate, "evaluate")["evaluate.tta_flip.nll"] == 1.0


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"digest": "sha256:0",', "", "meta.json has no digest, another version of this project wrote it: run `dvc"),
        ('"stripes"', "7", "meta.json is damaged (name: Input should be a valid string): run `dvc repro`"),
        ('"stripes"', "", "meta.json is damaged (Invalid JSON: "),
        ('"low",', "7,", "meta.json is damaged (classes.0: "),
    ],
)
def test_a_file_that_is_damaged_or_of_another_version_gets_a_sentence(
    tmp_path: Path, meta: Meta, old: str, new: str, sentence: str
) -> None:
    path = tmp_path / "meta.json"
    records.write(meta, path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError) as error:
        records.load_meta(path)
    assert sentence in str(error.value)


def test_a_missing_file_is_named_with_the_stage_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"metrics.json is missing: run `dvc repro`, or `python -m pipeline"):
        records.read(Metrics, tmp_path / "metrics.json", stage="evaluate")


def test_an_outcome_knows_what_follows_from_it() -> None:
    assert {one.value: (one.optuna_state, one.mlflow_status) for one in Outcome} == {
        "finished": ("COMPLETE", "FINISHED"),
        "pruned": ("PRUNED", "KILLED"),
        "diverged": ("FAIL", "FAILED"),
        "out of memory": ("FAIL", "FAILED"),
        "impossible": ("FAIL", "FAILED"),
        "crashed": ("FAIL", "FAILED"),
        "timed out": ("FAIL", "FAILED"),
        "interrupted": ("RUNNING", "KILLED"),
        "paused": ("RUNNING", "SCHEDULED"),
    }
    assert {one for one in Outcome if one.is_retried} == {Outcome.CRASHED, Outcome.TIMED_OUT}
    assert {one for one in Outcome if one.is_infeasible} == {
        Outcome.DIVERGED,
        Outcome.OUT_OF_MEMORY,
        Outcome.IMPOSSIBLE,
    }
