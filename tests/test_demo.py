"""Walks `make demo`'s loop in a temporary clone, then what a DVC user does next."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from commands import run
from deliveries import deliver
from places import REPOSITORY

from pipeline import config

# One process of pytest-xdist's for all of them: they share the clone.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("demo")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as a clone would have it if it were committed."""
    root = tmp_path_factory.mktemp("clone") / "pipeline"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, root / name)
    run(root, "git", "init", "--quiet", code=root)
    run(root, "git", "add", ".", code=root)
    run(root, "git", "commit", "--quiet", "--message", "A clone", code=root)
    return root


@pytest.fixture(scope="module")
def printed(clone: Path) -> str:
    """What `make demo` printed, with the environment that the tests run in."""
    environment = Path(sys.executable).parent.parent
    return run(clone, "make", f"--old-file={environment}/.installed", "demo", f"VENV={environment}", code=clone)


def test_a_fresh_clone_has_no_metrics_to_compare_with(clone: Path) -> None:
    assert "evaluate." not in run(clone, "dvc", "metrics", "diff", code=clone)


def test_the_demo_shows_what_one_changed_value_brought(printed: str, clone: Path) -> None:
    for text in ("$ dvc repro", "$ dvc params diff", "$ dvc metrics diff", "demo/results/report/index.html"):
        assert text in printed
    difference = printed.partition("$ dvc metrics diff")[2].partition("== 4.")[0]
    for metric in ("evaluate.parameters", "evaluate.nll", "train.validation_loss"):
        assert metric in difference
    assert printed.count("Running stage 'download'") == 1
    metrics = json.loads((clone / "demo" / "metrics.json").read_text())
    assert metrics["evaluate"]["accuracy"] > 0.9
    assert (clone / "demo" / "results" / "report" / "index.html").stat().st_size > 10_000


def test_the_demo_leaves_the_root_untouched(printed: str, clone: Path) -> None:
    assert run(clone, "git", "status", "--porcelain", code=clone) == ""
    assert not [
        name for name in ("mlflow.db", "metrics.json", "dvc.lock", "data", "results") if (clone / name).exists()
    ]
    assert [path.name for path in (clone / "mlruns").iterdir()] == [".gitignore"]


def test_each_repro_is_one_finished_run_in_mlflow_with_all_that_was_recorded(printed: str, clone: Path) -> None:
    deliver(clone / "demo")
    client = mlflow.MlflowClient(f"sqlite:///{clone / 'demo' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pipeline")
    runs = client.search_runs([experiment.experiment_id], "metrics.`evaluate.accuracy` > 0")
    last, second, first = runs
    assert (first.data.params["model.width"], second.data.params["model.width"]) == ("4", "16")
    metrics = json.loads((clone / "demo" / "metrics.json").read_text())
    for run_ in runs:
        assert (run_.info.status, run_.data.tags["ended"]) == ("FINISHED", "finished")
        plots = {artifact.path for artifact in client.list_artifacts(run_.info.run_id, "plots")}
        names = ("learning_curves", "confusion_matrix", "training_speed", "accuracies", "reliability", "coverage")
        assert plots >= {f"plots/{name}.png" for name in names}
        assert len(client.get_run(run_.info.run_id).outputs.model_outputs) == 1
        for tag in ("git.commit", "dvc.data", "seed", "device.type", "version.torch", "data.digest"):
            assert run_.data.tags[tag]
    assert last.data.metrics["evaluate.accuracy"] == metrics["evaluate"]["accuracy"]
    assert (first.data.tags["git.dirty"], second.data.tags["git.dirty"]) == ("false", "true")


def test_the_demos_search_ends_with_a_winner_whose_values_are_trained(printed: str, clone: Path) -> None:
    demo = clone / "demo"
    best = config.read_yaml(demo / "results" / "tune" / "best.yaml")
    assert best["validation_accuracy"]["seeds"] == 3
    values = config.load(demo / "params.yaml").values()
    assert {name: values[name] for name in best["values"]} == best["values"]
    trained = json.loads((demo / "results" / "train" / "run.json").read_text())["values"]
    assert {name: trained[name] for name in best["values"]} == best["values"]
    with (demo / "results" / "tune" / "trials.csv").open() as file:
        assert len(file.readlines()) == 11


def test_the_search_finds_something_better_than_what_it_began_with(printed: str, clone: Path) -> None:
    # Trial 0 has the values that the search began with: if it won, the walk would end with nothing changed.
    assert config.read_yaml(clone / "demo" / "results" / "tune" / "best.yaml")["trial"] != 0
    after_the_search = printed.partition("== 4.")[2]
    assert "train.learning_rate" in after_the_search.partition("$ dvc params diff")[2]
    assert "evaluate.accuracy" in after_the_search.partition("$ dvc metrics diff")[2]
    assert "This result is better by" in after_the_search


def test_the_demo_ends_with_the_page_of_its_search(printed: str, clone: Path) -> None:
    page = (clone / "demo" / "results" / "report" / "index.html").read_text(encoding="utf-8")
    assert "The study main: 10 of 10 trials" in page
    assert "more than at commit" in page or "percentage points more" in page
    compared = (clone / "demo" / "results" / "compare" / "index.html").read_text(encoding="utf-8")
    assert "Which images flipped?" in compared


def test_a_second_repro_runs_nothing(printed: str, clone: Path) -> None:
    assert "Data and pipelines are up to date." in run(clone / "demo", "dvc", "repro", code=clone)


def test_plots_are_declared_for_dvc(printed: str, clone: Path) -> None:
    shown = json.loads(run(clone / "demo", "dvc", "plots", "show", "--json", code=clone))
    assert not shown.get("errors")
    images = {f"results/report/{name}.png" for name in ("learning_curves", "confusion_matrix")}
    assert set(shown["data"]) == {"loss", "accuracy", "learning_rate", "confusion_matrix", *images}
    assert "validation_loss" in str(shown["data"]["loss"][0]["content"])
    assert "predicted" in str(shown["data"]["confusion_matrix"][0]["content"])


def test_an_experiment_with_another_value_runs_what_depends_on_it(printed: str, clone: Path) -> None:
    demo = clone / "demo"
    out = run(demo, "dvc", "exp", "run", "-S", "train.epochs=3", code=clone)
    assert "epoch   3/3" in out
    assert "Stage 'download' didn't change, skipping" in out
    assert json.loads((demo / "metrics.json").read_text())["train"]["epochs"] == 3


def test_an_experiment_in_a_temporary_copy_records_in_the_projects_own_store(printed: str, clone: Path) -> None:
    demo = clone / "demo"
    deliver(demo)
    client = mlflow.MlflowClient(f"sqlite:///{demo / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pipeline").experiment_id
    before = len(client.search_runs([experiment]))
    run(demo, "dvc", "exp", "run", "--temp", "-S", "train.epochs=2", code=clone)
    deliver(demo)
    assert len(client.search_runs([experiment])) == before + 1


def test_a_changed_evaluation_adds_to_the_run_of_its_training(printed: str, clone: Path) -> None:
    demo = clone / "demo"
    deliver(demo)
    client = mlflow.MlflowClient(f"sqlite:///{demo / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pipeline").experiment_id
    before = len(client.search_runs([experiment]))
    config.write_values(demo / "params.yaml", {"evaluate.calibration_bins": 10})
    out = run(demo, "dvc", "repro", code=clone)
    assert "Stage 'train' didn't change, skipping" in out
    deliver(demo)
    runs = client.search_runs([experiment])
    assert len(runs) == before
    assert "10" in {found.data.tags.get("evaluate.calibration_bins") for found in runs}
