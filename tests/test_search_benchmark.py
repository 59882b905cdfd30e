"""benchmarks/search.py with methods of other libraries."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest
from places import REPOSITORY
from searches import EPOCHS, SPACE, curve, owner

from pipeline.search.engines.simulated import SimulatedEngine

BENCHMARKS = REPOSITORY / "benchmarks"


def compared(methods: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "search.py"), "--tasks", "digits", "--methods", methods, *options]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("search_others")


@pytest.mark.parametrize(("method", "package"), [("syne_asha", "syne_tune"), ("smac_multifidelity", "smac")])
def test_a_method_without_its_library_says_how_to_install_it(tmp_path: Path, method: str, package: str) -> None:
    (tmp_path / f"{package}.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = compared(f"tpe,{method}", PYTHONPATH=path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert 'pip install -e ".[bench]"' in done.stderr


@pytest.mark.parametrize(
    ("script", "options", "sentence"),
    [
        ("search", ["--seeds", "0"], "must be a whole number of at least 1, got 0"),
        (
            "search_real",
            ["resnet20", "--folder", "work", "--trials", "0"],
            "must be a whole number of at least 1, got 0",
        ),
        ("search_real", ["resnet20", "--folder", "work", "--budget", "0"], "--budget must be a number over 0, got 0"),
        ("search_real", ["resnet20", "--folder", "work"], "--data must name cifar-10-python.tar.gz."),
        ("curves", ["crossing", "--folder", "work", "--data", "none"], "--data must name cifar-10-python.tar.gz."),
    ],
)
def test_a_wrong_option_is_refused_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    options: Sequence[str],
    sentence: str,
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.chdir(tmp_path)
    try:
        code = import_module(script).main(options)
    except SystemExit as exit:
        code = exit.code
    assert code
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_only_the_new_epochs_of_a_training_that_goes_on_cost(others: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = import_module("search").tasks_of(["digits"], None)["tables"][0]

    class Pausing:
        """Pauses a training after three epochs, begins another, goes on with the first, and then has no more."""

        def __init__(self) -> None:
            curves: Sequence[Any] = [curve for curve in task.curves if len(curve) == task.epochs]
            first, second = (others.Training(None, curve.tolist(), until=task.epochs) for curve in curves[:2])
            self.first, self.asked = first, iter([first, second, first])

        def ask(self) -> Any:
            return next(self.asked, None)

        def trained(self, training: Any) -> bool:
            return training.done not in (3, task.epochs) if training is self.first else training.done < 3

        def failed(self, training: Any) -> None:
            raise AssertionError

    library = Pausing()
    found = others.searched(library, task, epochs=30 * task.epochs, workers=1)
    assert found.after == [None] * (task.epochs + 2) + [library.first.accuracies[-1]]


def test_optuna_in_the_place_of_a_scheduler_prunes_and_keeps_to_the_budget(others: Any, tmp_path: Path) -> None:
    scheduler = import_module("search_real").OptunasScheduler(SPACE, EPOCHS, 0)
    search = owner(tmp_path, engine=SimulatedEngine(curve, workers=2), scheduler=scheduler, trials=30, budget=15)
    search.run()
    trials = search.ledger.trials
    assert trials[0].values == SPACE.own
    assert sum(len(trial.scores) for trial in trials) <= 15 * EPOCHS
    assert {trial.state for trial in trials} == {"finished", "pruned"}
    asked = scheduler._study.trials
    assert [SPACE.snapped(trial.params) for trial in asked] == [trial.values for trial in trials]
    assert [trial.value for trial in asked if trial.state.name == "COMPLETE"] == [
        trial.scores[-1] for trial in trials if trial.state == "finished"
    ]


def test_a_row_is_taken_once(others: Any) -> None:
    space = import_module("search").tasks_of(["digits"], None)["tables"][0].space(0)
    untried = others.Untried(space, most=len(space.rows) + 1)
    taken = [untried.taken(space.fixed) for _ in space.rows]
    assert taken[0] == space.fixed
    assert sorted(map(str, taken)) == sorted(map(str, space.rows))
    assert untried.taken(space.fixed) is None


def test_no_more_configurations_are_taken_than_allowed(others: Any) -> None:
    untried = others.Untried(import_module("search").tasks_of(["digits"], None)["tables"][0].space(0), most=1)
    assert untried.taken(untried.space.fixed) == untried.space.fixed
    assert untried.taken(untried.space.fixed) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("methods", "package", "releases"),
    [
        ("syne_asha,syne_bohb,syne_bore,syne_cqr", "syne-tune", range(16, 99)),
        ("syne_mobster,syne_hypertune,syne_dyhpo", "syne-tune", range(14)),
        ("smac_multifidelity,smac_multifidelity_free", "smac", range(99)),
    ],
)
def test_a_method_of_another_library_finds_something(methods: str, package: str, releases: range) -> None:
    try:
        release = int(metadata.version(package).split(".")[1])
    except metadata.PackageNotFoundError:
        release = -1
    if release not in releases:
        pytest.skip(f"needs another {package}: see benchmarks/search_others.py")
    done = compared(methods, "--seeds", "1", "--trials", "10", "--workers", "2", "--json")
    assert done.returncode == 0, done.stderr
    regrets = json.loads(done.stdout)["regrets"]["tables"]
    assert list(regrets) == methods.split(",")
    assert all(of_tasks["digits"][0][-1] != 1 for of_tasks in regrets.values())  # 1: no training reached its end
