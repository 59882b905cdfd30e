"""python -m pipeline.tracking."""

from pathlib import Path

import pytest
from mlflow_runs import client, only_run
from recordings import assert_has_everything, record_everything, unsent_run
from servers import SECRET

from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.tracking import StageTracker
from pipeline.tracking.__main__ import main
from pipeline.tracking.outbox import Outbox, kept
from pipeline.tracking.store import Store


@pytest.fixture(autouse=True)
def working_directory(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.home)


def test_the_command_sends_what_is_left(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, outbox = unsent_run(project, "a", name="resnet20 on digits")
    record_everything(run, tmp_path)
    outbox.close()
    assert main(["--list"]) == 0
    assert "a (resnet20 on digits): 11 operations, opened 2" in capsys.readouterr().out
    assert main([]) == 0
    assert "MLflow at mlflow.db has all that was recorded." in capsys.readouterr().out
    assert_has_everything(client(project), only_run(project))
    assert main([]) == 0
    assert capsys.readouterr().out == "MLflow at mlflow.db has all that was recorded.\n"


def test_the_command_fails_if_the_store_is_away_and_keeps_everything(
    project: Project, away: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run, outbox = unsent_run(project, "a")
    run.finish(Outcome.FINISHED)
    outbox.close()
    assert main([]) == 1
    printed = capsys.readouterr()
    assert "error: Runs that could not be sent whole: 1 of 1." in printed.err
    assert SECRET not in printed.out + printed.err
    assert [outbox.waiting for outbox in kept(project.outbox)] == [2]


def test_the_command_waits_for_a_process_in_the_background_that_starts_at_that_moment(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with StageTracker(project) as tracker:
        tracker.open("a").set_tags({"stage": "train"})
    handed_over, _ = kept(project.outbox)
    background = Outbox(handed_over.folder, wait_s=0)  # it has the part
    looks = []

    def served(*_: object) -> bool:
        looks.append(True)
        if len(looks) == 4:
            background.close()
        return 1 < len(looks) < 4  # at the first look it had not started

    monkeypatch.setattr("pipeline.tracking.__main__.is_served", served)
    assert main([]) == 1, "it gave up, and left both parts"
    assert len(looks) == 4
    assert "could not be sent whole: 2 of 2" in capsys.readouterr().err
    assert main([]) == 0
    assert only_run(project).data.tags["stage"] == "train"


def test_the_command_leaves_alone_runs_that_wait_for_another_store(
    project: Project, away: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, outbox = unsent_run(project, "a")
    outbox.close()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert f"for {away}, experiment pipeline" in printed
    assert SECRET not in printed
    assert [outbox.waiting for outbox in kept(project.outbox)] == [1]
