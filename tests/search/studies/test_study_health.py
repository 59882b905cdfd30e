"""Checks of Optuna's journal and of the folders of studies."""

from pathlib import Path

import pytest
from searches import SPACE

from pipeline.files import Project
from pipeline.findings import Finding, Weight
from pipeline.outcome import Outcome
from pipeline.search.engines.store import Store
from pipeline.search.studies import health
from pipeline.search.studies.ledger import Ledger


@pytest.fixture
def begun(tmp_path: Path) -> Project:
    """A study with a paused trial and a finished one, whose owner has ended."""
    project = Project(tmp_path, tmp_path)
    with Ledger.open(project, "main") as ledger:
        ledger.note(key="0123")
        for number in range(2):
            trial = ledger.enter({"train.learning_rate": 0.1}, SPACE.distributions, 3, seed=1)
            folder = project.study_folder("main") / "trials" / f"{number:04}"
            folder.mkdir(parents=True)
            ledger.score(trial, 1, 0.5)
            if number:
                ledger.end(trial, Outcome.FINISHED)
                (folder / "model.safetensors").touch()
            else:
                (folder / "checkpoint.pt").touch()
    return project


def findings(project: Project) -> list[Finding]:
    return [one for one in health.studies(project) if isinstance(one, Finding)]


def test_a_study_that_was_stopped_is_a_note_with_the_command_that_resumes_it(begun: Project) -> None:
    before = {path: path.read_bytes() for path in begun.home.rglob("*") if path.is_file()}
    (finding,) = findings(begun)
    assert (finding.weight, finding.remedy) == (Weight.NOTE, "python -m pipeline.tune --resume-only")
    assert {path: path.read_bytes() for path in begun.home.rglob("*") if path.is_file()} == before


def test_checkpoints_in_a_store_are_looked_for_there_and_a_store_that_can_not_be_used_is_an_error(
    begun: Project,
) -> None:
    store = Store(f"file://{begun.home}/store") / "main-0123" / "trials" / "0000"
    begun.params.write_text(f"tune:\n  checkpoints: file://{begun.home}/store\n")
    (begun.study_folder("main") / "trials" / "0000" / "checkpoint.pt").unlink()
    assert "has lost the checkpoints of 1 unfinished trial (trials/0000)" in findings(begun)[0].what
    (store / "only" / "checkpoint.pt").write(b"checkpoint")
    (finding,) = findings(begun)
    assert finding.weight is Weight.NOTE
    begun.params.write_text("tune:\n  checkpoints: bogus://store\n")
    (finding,) = findings(begun)
    assert (finding.weight, finding.where) == (Weight.ERROR, "tune.checkpoints")
    assert "Protocol not known: bogus" in finding.what


def test_the_store_is_the_one_that_the_study_was_given(begun: Project) -> None:
    with Ledger.open(begun, "main") as ledger:
        ledger.note(given=[f"tune.checkpoints=file://{begun.home}/store"])
    (begun.study_folder("main") / "trials" / "0000" / "checkpoint.pt").unlink()
    store = Store(f"file://{begun.home}/store") / "main-0123" / "trials" / "0000"
    (store / "only" / "checkpoint.pt").write(b"checkpoint")
    assert [finding.weight for finding in findings(begun)] == [Weight.NOTE]
    with Ledger.open(begun, "main") as ledger:
        ledger.note(given=["tune.checkpoints=bogus://store"])
    (finding,) = findings(begun)
    assert (finding.weight, finding.where) == (Weight.ERROR, "the study main")


def test_lost_checkpoints_and_weights_are_named(begun: Project) -> None:
    for file in begun.study_folder("main").glob("trials/*/*"):
        file.unlink()
    lost, weightless, _ = findings(begun)
    assert lost.what == "the study main has lost the checkpoints of 1 unfinished trial (trials/0000)"
    assert "python -m pipeline.tune --resume-only trains them again from the first epoch" in lost.remedy
    assert weightless.what.startswith("the study main has lost the weights of 1 finished trial (trials/0001)")


def test_a_study_that_runs_is_left_alone(begun: Project) -> None:
    for file in begun.study_folder("main").glob("trials/*/*"):
        file.unlink()
    with Ledger.open(begun, "main"):
        assert not findings(begun)


def test_a_damaged_line_is_named_and_nothing_is_cut_off(begun: Project) -> None:
    journal = begun.optuna_journal
    lines = journal.read_bytes().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if b'"op_code":7' in line.replace(b" ", b""))
    lines[number] = lines[number][:-4] + b"\n"
    journal.write_bytes(b"".join(lines))
    (finding,) = findings(begun)
    assert finding.weight is Weight.ERROR
    assert finding.what == f"line {number + 1} of Optuna's journal is damaged, which is of the study main"
    lines[0] = b"hello\n"
    journal.write_bytes(b"".join(lines))
    (finding,) = findings(begun)
    assert finding.what == f"Line 1 of {journal} is damaged, and no study can be read without it"
    assert finding.remedy.startswith("put a copy of the file from before in its place")
    assert journal.read_bytes() == b"".join(lines)


def test_an_incomplete_end_is_a_note_and_stays(begun: Project) -> None:
    with begun.optuna_journal.open("ab") as file:
        file.write(b'{"op_code": 6')
    size = begun.optuna_journal.stat().st_size
    cut, _ = findings(begun)
    assert (cut.weight, cut.what[:18]) == (Weight.NOTE, "the last 13 bytes ")
    assert begun.optuna_journal.stat().st_size == size


def test_optuna_and_mlflow_are_compared(begun: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.health.recorded_keys", lambda project: {"study-4567": "study other"})
    whats = [finding.what for finding in findings(begun)]
    assert "MLflow has no run of the study main" in whats
    assert "MLflow has 1 run of studies that Optuna's journal does not have: study other" in whats
    monkeypatch.setattr("pipeline.tracking.health.recorded_keys", lambda project: {"study-0123": "study main"})
    assert [finding.weight for finding in findings(begun)] == [Weight.NOTE]


def test_the_folder_of_a_study_without_its_journal_is_named(begun: Project) -> None:
    begun.optuna_journal.unlink()
    (finding,) = findings(begun)
    assert finding.what == ".studies/ has the trials of main, but Optuna's journal has no such study"
    assert finding.remedy.endswith("rm -r .studies/main")
