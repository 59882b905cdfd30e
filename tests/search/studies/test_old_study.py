"""A study that an earlier version began resumes with this one.

old_study/ is what `python -m pipeline.tune` with OPTIONS left when Ctrl-C stopped it, of the version before keys such
as model.halving and train.hard_share were removed: trial 0 is finished, trial 1 paused at epoch 3 of 6, trial 2
interrupted after epoch 2 of its first 3, and trial 3 has not begun. Its params.yaml has the removed keys with values
without effect. The worker was suspended for 30 s in an epoch of trial 1 and of trial 2, so that the times in their
checkpoints are longer than any new training of them.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chaos import mlflow_ledger, optuna_ledger

from pipeline.files import Project
from pipeline.search.studies.epochs import read_epochs

OLD = Path(__file__).parent / "old_study"
OPTIONS = {
    "train.epochs": 6,
    "tune.scheduler": "asha",
    "tune.first_rung": 3,
    "tune.budget": 3,
    "tune.confirm": 1,
    "tune.confirm_seeds": 1,
    "tune.models": "none",
}
SUSPENDED_S = 30


@pytest.mark.slow
def test_a_study_of_an_earlier_version_resumes_from_its_checkpoints_and_finishes(
    project: Project, migrated: Path
) -> None:
    shutil.copy(migrated, project.home)
    shutil.copy(OLD / "params.yaml", project.params)
    shutil.copy(OLD / "journal.jsonl", project.optuna_journal)
    trials = project.study_folder("main") / "trials"
    shutil.copytree(OLD / "trials", trials)
    before = optuna_ledger(project.root, "main")
    epochs_before = [read_epochs(trials / f"{number:04}") for number in range(3)]
    assert [(trial["state"], len(trial["intermediate"])) for trial in before] == [
        ("COMPLETE", 6),
        ("RUNNING", 3),
        ("RUNNING", 2),
    ]

    command = [sys.executable, "-m", "pipeline.tune", "--trials", "4", "--workers", "1"]
    command += [word for name, value in OPTIONS.items() for word in ("--set", f"{name}={value}")]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr

    after = optuna_ledger(project.root, "main")
    assert after[0] == before[0]
    for old, new in zip(before, after, strict=False):
        assert (new["number"], new["params"], new["seed"]) == (old["number"], old["params"], old["seed"])
        assert new["intermediate"].items() >= old["intermediate"].items()
    assert [(trial["ended"], len(trial["intermediate"])) for trial in after] == [
        ("finished", 6),
        ("finished", 6),
        ("pruned", 3),
        ("pruned", 3),
    ]
    for number in (1, 2):
        epochs = read_epochs(trials / f"{number:04}")
        known = epochs_before[number]
        assert {epoch: epochs[epoch] for epoch in known} == known
        # A training from the beginning would take a few seconds in all.
        assert all(
            epochs[epoch].elapsed_s > known[len(known)].elapsed_s > SUSPENDED_S for epoch in set(epochs) - set(known)
        )
        lines = (trials / f"{number:04}" / "epochs.jsonl").read_text().split()
        assert len([line for line in lines if line == '{"number":']) == len(epochs), "no epoch is recorded twice"
    assert not list(trials.rglob("checkpoint.pt*"))
    study = json.loads(project.study.read_text())
    assert (study["trials"], study["winner"]) == (4, 1)
    runs = mlflow_ledger(project.root)
    assert runs["study"]["status"] == "FINISHED"
    assert [runs[f"trial {number}"]["ended"] for number in range(4)] == [trial["ended"] for trial in after]
