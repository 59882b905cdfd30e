import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from chaos import mlflow_ledger, optuna_ledger
from optuna.storages import InMemoryStorage
from rich.console import Console

from pipeline import config, study
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.records import Epoch
from pipeline.search.space.space import Space
from pipeline.search.studies.grid import GridSpec, Measured
from pipeline.search.studies.grid_results import FIGURES, GridResults
from pipeline.search.studies.ledger import Ledger

QUICK = ("--set", "train.epochs=2", "--set", "tune.models=none")

SMALL = """study:
  depth:
    space:
      model.family: [plain, resnet]
      model.depth: [8, 14]
    values: {model.family: plain, model.depth: 8, train.batch_size: 32}
  width:
    space:
      model.width: [2, 4]
    values: {}
"""


def declare(root: Path, text: str = SMALL) -> None:
    """Puts other studies into a project's params.yaml."""
    path = root / "params.yaml"
    path.write_text(path.read_text().partition("\nstudy:\n")[0] + "\n" + text)


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.study", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def test_a_grid_is_a_search_of_all_combinations_with_the_values_that_it_declares(project: Project) -> None:
    declare(project.root)
    own = config.load(project.params)
    settings = GridSpec.of(project, "depth", {"train.epochs": 3, "tune.models": "none"}).settings
    assert (settings.tune.sampler, settings.tune.scheduler, settings.tune.confirm) == ("grid", "none", 0)
    assert settings.tune.trials == 4
    assert Space.of(settings).names == ("model.family", "model.depth")
    assert (own.train.batch_size, settings.train.batch_size) == (64, 32)
    assert (settings.train.epochs, settings.tune.models, settings.model.family) == (3, "none", "plain")


def test_a_value_that_is_set_wins_over_the_one_that_the_study_declares(project: Project) -> None:
    declare(project.root)
    assert GridSpec.of(project, "depth", {"train.batch_size": 16}).settings.train.batch_size == 16


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dept"], "study.dept is not a grid of params.yaml; there are depth, width."),
        (["depth", "--set", "train.epoch=9"], "train.epoch is not a key; did you mean train.epochs?"),
        (["depth", "--set", "model.depth=8"], "--set model.depth: the study depth varies it"),
        (["depth", "--set", "tune.trials=3"], "--set tune.trials: a study trains all combinations to the end"),
        (["depth", "--set", "space.model.width=[2, 4]"], "what the study depth varies is in params.yaml"),
        (["depth", "--set", "data.name=cifar10"], "data/ holds digits, but data.name is cifar10"),
    ],
)
def test_an_impossible_request_is_refused_with_a_sentence_and_nothing_is_begun(
    project: Project, arguments: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(project.root)
    assert study.main(arguments) == 1
    assert sentence in capsys.readouterr().err
    assert not (project.home / ".studies").exists()
    assert not (project.home / "mlflow.db").exists()


def test_a_grid_of_nothing_is_refused(project: Project) -> None:
    declare(project.root, "study:\n  none:\n    space: {}\n    values: {}\n")
    with pytest.raises(ConfigError, match=r"study.none.space is empty: name at least one key to vary"):
        GridSpec.of(project, "none", {})


@pytest.mark.parametrize("arguments", [[], ["a/b"], ["depth", "--workers", "none"]])
def test_a_wrong_argument_is_refused(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        study.main(arguments)
    assert exit.value.code == 2
    assert "python -m pipeline.study: error: " in capsys.readouterr().err


def test_the_studies_of_params_yaml_are_listed(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    declare(project.root)
    assert study.main(["--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"study": "depth", "varies": ["model.family", "model.depth"], "combinations": 4, "states": {}},
        {"study": "width", "varies": ["model.width"], "combinations": 2, "states": {}},
    ]
    assert study.main(["--list"]) == 0
    assert "not begun" in capsys.readouterr().out


class Grid:
    """A grid whose study is in memory, with epochs of its trials on disk, and its ending."""

    def __init__(self, project: Project, name: str) -> None:
        spec = GridSpec.of(project, name, {"train.epochs": 2})
        self.project, self.name, self.space = project, name, Space.of(spec.settings)
        self.output = StringIO()
        console = Console(file=self.output, width=160)
        self.ending = GridResults(project, spec, console, lambda *_: Measured(0.25, 1234, 56789))
        self.ledger = Ledger(InMemoryStorage(), f"grid-{name}")
        self.none = Ledger(InMemoryStorage(), "none")

    def add(self, accuracies: Sequence[float], outcome: Outcome | None = Outcome.FINISHED) -> None:
        """The next trial, with the validation accuracy of each epoch; training is 0.1 better."""
        values = self.space.grid()[len(self.ledger.trials)]
        trial = self.ledger.enter(values, self.space.distributions, 2, seed=1)
        folder = self.project.study_folder(self.ledger.name) / "trials" / f"{trial.number:04}"
        folder.mkdir(parents=True)
        epochs = [
            Epoch(number, 0.1, 1.0, accuracy + 0.1, 1.0, accuracy, 100.0 * number, 1.5 * number)
            for number, accuracy in enumerate(accuracies, 1)
        ]
        (folder / "epochs.jsonl").write_text("".join("\n" + json.dumps(asdict(epoch)) for epoch in epochs))
        for epoch in epochs:
            self.ledger.score(trial, epoch.number, epoch.validation_accuracy)
        if outcome:
            self.ledger.end(trial, outcome, None if outcome is Outcome.FINISHED else "the loss was nan")
        if outcome is Outcome.FINISHED:
            self.ending._measure(trial)

    def written(self) -> list[dict[str, str]]:
        self.ending.save_results(self.ledger, self.none)
        return table(self.project.grid_table(self.name))


@pytest.fixture
def depth(project: Project) -> Grid:
    declare(project.root)
    return Grid(project, "depth")


def test_the_table_has_a_row_per_trial_and_the_errors_of_the_last_epoch(depth: Grid) -> None:
    depth.add([0.5, 0.8])
    depth.add([0.3], Outcome.DIVERGED)
    depth.add([0.4], None)
    first, second, third = depth.written()
    assert list(first) == ["trial", "ended", "model.family", "model.depth", *FIGURES]
    assert first == {
        "trial": "0",
        "ended": "finished",
        "model.family": "plain",
        "model.depth": "8",
        "parameters": "1234",
        "macs": "56789",
        "epochs": "2",
        "training_error": "0.1",
        "validation_error": "0.2",
        "test_error": "0.25",
        "elapsed_s": "3.0",
        "images_per_second": "150.0",
        "why": "",
    }
    assert (second["ended"], second["test_error"], second["why"]) == ("diverged", "", "the loss was nan")
    assert (third["ended"], third["test_error"], third["validation_error"]) == ("running", "", "0.6")
    curves = table(depth.project.grid_curves("depth"))
    assert [(row["trial"], row["epoch"], row["validation_error"]) for row in curves] == [
        ("0", "1", "0.5"),
        ("0", "2", "0.2"),
        ("1", "1", "0.7"),
        ("2", "1", "0.6"),
    ]


def test_failed_trials_are_reported_with_what_to_do(depth: Grid) -> None:
    depth.add([0.5, 0.8])
    depth.add([], Outcome.CRASHED)
    depth.written()
    depth.ending.print_summary(depth.ledger, depth.none)
    output = depth.output.getvalue()
    assert "1 of 2 combinations failed: the column why of results/study/depth/results.csv says of what" in output
    assert "results/study/depth has results.csv, curves.csv, degradation.png" in output
    assert "dvc repro  " in output, "without metrics.json there is no page yet"
    depth.project.metrics.write_text("{}")
    depth.ending.print_summary(depth.ledger, depth.none)
    assert "dvc repro -f -s report" in depth.output.getvalue()


def test_a_grid_of_which_all_trials_failed_is_an_error(depth: Grid) -> None:
    for _ in range(2):
        depth.add([], Outcome.CRASHED)
    depth.written()
    with pytest.raises(PipelineError, match=r"2 of 2 combinations failed: .* results/study/depth/results\.csv"):
        depth.ending.print_summary(depth.ledger, depth.none)


def test_a_grid_of_neither_depth_nor_family_has_only_the_table(project: Project) -> None:
    declare(project.root)
    width = Grid(project, "width")
    figure = project.grid_figure("width")
    figure.parent.mkdir(parents=True)
    figure.write_bytes(b"of another grid of this name")
    width.add([0.5, 0.8])
    assert width.written()[0]["model.width"] == "2"
    assert not figure.exists()


def test_the_figure_of_families_alone_and_of_depths_alone_is_drawn(project: Project) -> None:
    declare(
        project.root,
        "study:\n  families:\n    space: {model.family: [resnet, plain]}\n    values: {}\n"
        "  depths:\n    space: {model.depth: [8, 14]}\n    values: {}\n"
        "  many:\n    space: {model.family: [resnet, plain], model.width: [4, 8, 16]}\n    values: {}\n",
    )
    for name, drawn in (("families", True), ("depths", True), ("many", False)):
        one = Grid(project, name)
        for _ in one.space.grid():
            one.add([0.5, 0.8])
        one.written()
        assert project.grid_figure(name).exists() == drawn, name


@pytest.fixture(scope="module")
def studied(_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the study `depth` is over; what it printed as JSON is in study.out. To be left as it is."""
    root = tmp_path_factory.mktemp("studied") / "project"
    shutil.copytree(_digits, root)
    declare(root)
    done = run(root, "depth", *QUICK, "--json")
    (root / "study.out").write_text(done.stdout)
    return root


def errors_of(root: Path) -> list[tuple[str, ...]]:
    """What a study measured, without its times."""
    columns = ("trial", "ended", "model.family", "model.depth", "training_error", "validation_error", "test_error")
    rows = table(Project(root, root).grid_table("depth"))
    return [tuple(row[column] for column in columns) for row in rows]


@pytest.mark.slow
def test_a_study_leaves_the_same_in_optuna_in_mlflow_and_in_its_table(studied: Path) -> None:
    trials = optuna_ledger(studied, "grid-depth")
    runs = mlflow_ledger(studied, "grid-depth")
    rows = table(Project(studied, studied).grid_table("depth"))
    assert [(row["model.family"], row["model.depth"]) for row in rows] == [
        ("plain", "8"),
        ("plain", "14"),
        ("resnet", "8"),
        ("resnet", "14"),
    ]
    printed = json.loads((studied / "study.out").read_text())
    assert printed["study"] == "depth"
    for trial, row, printed_row in zip(trials, rows, printed["trials"], strict=True):
        assert trial["state"] == "COMPLETE"
        assert {key: str(value) for key, value in trial["params"].items()} == {key: row[key] for key in trial["params"]}
        assert float(row["validation_error"]) == pytest.approx(1 - trial["value"], abs=1e-6)
        child = runs[f"trial {trial['number']}"]
        ((step, accuracy),) = child["metrics"]["evaluate.accuracy"]
        assert (step, child["status"]) == (2, "FINISHED")
        assert float(row["test_error"]) == printed_row["test_error"] == pytest.approx(1 - accuracy, abs=1e-6)
    assert set(runs["study"]["artifacts"]) == {"results.csv", "curves.csv", "degradation.png"}
    assert runs["study"]["status"] == "FINISHED"
    assert not (studied / "results" / "tune").exists()


@pytest.mark.slow
def test_the_test_error_is_that_of_the_trials_weights_on_the_test_set(studied: Path) -> None:
    from pipeline.evaluation.test_set import predict_test_set

    project = Project(studied, studied)
    settings = GridSpec.of(project, "depth", {"train.device": "cpu", "train.threads": 1}).settings
    for row in table(project.grid_table("depth"))[1:3]:
        values: dict[str, Any] = {"model.family": row["model.family"], "model.depth": int(row["model.depth"])}
        weights = studied / ".studies" / "grid-depth" / "trials" / f"{int(row['trial']):04}" / "model.safetensors"
        network = settings.with_values(values).model
        probabilities, labels = predict_test_set(project, network, weights, settings)
        assert float(row["test_error"]) == pytest.approx((probabilities.argmax(axis=1) != labels).mean(), abs=1e-6)
    assert len({row["parameters"] for row in table(project.grid_table("depth"))}) == 2


@pytest.mark.slow
def test_the_same_command_again_measures_nothing_and_a_changed_value_is_not_mixed_in(studied: Path) -> None:
    before = errors_of(studied), optuna_ledger(studied, "grid-depth")
    shutil.rmtree(studied / "results" / "study")
    hidden = studied / "data" / "hidden"
    (studied / "data" / "test").rename(hidden)
    try:
        done = run(studied, "depth", *QUICK)
    finally:
        hidden.rename(studied / "data" / "test")
    assert "The study depth is over: all its 4 combinations are trained." in done.stdout
    assert (errors_of(studied), optuna_ledger(studied, "grid-depth")) == before
    refused = subprocess.run(
        [sys.executable, "-m", "pipeline.study", "depth"], cwd=studied, capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "values train.epochs: it was 2, it is 6" in refused.stderr
    assert "`python -m pipeline.tune --study grid-depth --delete` removes this one" in refused.stderr


@pytest.mark.slow
def test_a_study_that_was_killed_resumes_and_measures_what_one_that_was_not_measures(
    studied: Path, project: Project
) -> None:
    declare(project.root)
    command = [sys.executable, "-m", "pipeline.study", "depth", *QUICK]
    trials = project.study_folder("grid-depth") / "trials"
    with (project.root / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        try:
            while not list(trials.glob("*/model.safetensors")):
                assert process.poll() is None, (project.root / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    run(project.root, "depth", *QUICK)
    assert errors_of(project.root) == errors_of(studied)
