"""A search that is killed at random leaves what an undisturbed one leaves, in Optuna, in MLflow and in results/tune."""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chaos import disturbed, mlflow_ledger, optuna_ledger, results_ledger

KILLS = 20
# One worker, since what a sampler knows when it is asked depends on the order in which several ones report.
COMMAND = [
    *(sys.executable, "-m", "pipeline.tune", "--trials", "8", "--workers", "1"),
    *(
        "--set",
        "tune.retries=20",
        "--set",
        "train.epochs=6",
        "--set",
        "tune.confirm=2",
        "--set",
        "tune.confirm_seeds=2",
    ),
]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # 340 s alone on two cores, 600 s beside the other tests
def test_a_search_through_twenty_kills_leaves_what_an_undisturbed_one_leaves(_digits: Path, tmp_path: Path) -> None:
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    for root in (calm, wild):
        shutil.copytree(_digits, root)
    subprocess.run([*COMMAND, "--study", "calm"], cwd=calm, check=True, stdout=subprocess.DEVNULL)
    kills = 0
    # A fast machine may have finished a study before it was killed so often: then another one is begun.
    for number in itertools.count():
        study = f"wild-{number}"
        kills += disturbed([*COMMAND, "--study", study], wild, seed=number, kills=KILLS - kills)
        for phase in ("", ".confirmation"):
            assert optuna_ledger(wild, study + phase) == optuna_ledger(calm, "calm" + phase)
        assert results_ledger(wild) == results_ledger(calm)
        left, expected = mlflow_ledger(wild, study), mlflow_ledger(calm, "calm")
        assert left.keys() == expected.keys()
        for name, run in expected.items():
            for part, content in run.items():
                assert left[name][part] == content, f"{study}: {part} of {name}"
        if kills >= KILLS:
            break
    assert not list(wild.rglob("checkpoint.pt*"))
    assert not list((wild / ".outbox").iterdir())
