"""pipeline.tracking.run with MLflow on SQLite: what a run has after it was recorded, paused, resumed."""

import contextlib
import json
import math
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow_runs import client, files, history, only_run, runs, wait_until
from recordings import assert_has_everything, record_everything, unsent_run

from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.tracking import Timing, Tracker, is_gone


def test_a_run_has_what_was_recorded_and_leaves_nothing_behind_and_says_nothing(
    project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Tracker(project) as tracker:
        record_everything(tracker.open("a", name="resnet20 on digits"), tmp_path)
    run = only_run(project)
    assert run.info.run_name == "resnet20 on digits"
    assert_has_everything(client(project), run)
    assert list(project.outbox.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_run_keeps_its_files_below_the_home_whatever_the_working_directory_is(project: Project) -> None:
    with Tracker(project) as tracker:
        tracker.open("a").log_bytes(b"hello", "hello.txt")
    (file,) = (project.home / "mlruns" / "pipeline").rglob("hello.txt")
    assert file.read_text() == "hello"


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.FINISHED, "FINISHED"),
        (Outcome.DIVERGED, "FAILED"),
        (Outcome.OUT_OF_MEMORY, "FAILED"),
        (Outcome.CRASHED, "FAILED"),
        (Outcome.TIMED_OUT, "FAILED"),
        (Outcome.INTERRUPTED, "KILLED"),
        (Outcome.PRUNED, "KILLED"),
    ],
)
def test_a_run_has_a_status_and_a_tag_that_say_how_it_ended(project: Project, outcome: Outcome, status: str) -> None:
    with Tracker(project) as tracker:
        tracker.open("a").finish(outcome)
    run = only_run(project)
    assert (run.info.status, run.data.tags["ended"]) == (status, outcome.value)


@pytest.mark.parametrize(
    ("error", "ended"), [(None, "finished"), (ValueError, "crashed"), (KeyboardInterrupt, "interrupted")]
)
def test_a_run_that_nobody_finished_ends_as_the_block_ended(
    project: Project, error: type[BaseException] | None, ended: str
) -> None:
    def work() -> None:
        with Tracker(project) as tracker:
            tracker.open("a").log_metrics({"loss": 1.0})
            if error:
                raise error

    if error:
        with pytest.raises(error):
            work()
    else:
        work()
    assert only_run(project).data.tags["ended"] == ended


def test_a_run_refuses_records_after_its_end(project: Project) -> None:
    with Tracker(project) as tracker:
        run = tracker.open("a")
        run.finish(Outcome.FINISHED)
        with pytest.raises(RuntimeError, match="open it again"):
            run.log_metrics({"loss": 1.0})


def test_a_run_refuses_a_key_that_is_no_file_name(project: Project) -> None:
    with Tracker(project) as tracker, pytest.raises(ValueError, match="key"):
        tracker.open("../a")


def test_a_run_is_shown_under_its_parent(project: Project) -> None:
    with Tracker(project) as tracker:
        tracker.open("study")
        tracker.open("trial", parent="study").finish(Outcome.PRUNED)
    parent, child = runs(client(project))
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_run_that_is_opened_again_is_running_until_it_ends_again(project: Project) -> None:
    with Tracker(project) as tracker:
        run = tracker.open("a", name="first")
        run.log_metrics({"train.loss": 2.0}, step=1)
        run.finish(Outcome.INTERRUPTED)
    with Tracker(project) as tracker:
        run = tracker.open("a")
        run.log_metrics({"train.loss": 1.0}, step=2)
        wait_until(lambda: len(history(client(project), only_run(project), "train.loss")) == 2)
        halfway = only_run(project)
        assert halfway.info.status == "RUNNING"
        assert "ended" not in halfway.data.tags
        run.finish(Outcome.FINISHED)
    run_after = only_run(project)
    assert run_after.info.run_name == "first"
    assert (run_after.info.status, run_after.data.tags["ended"]) == ("FINISHED", "finished")
    assert history(client(project), run_after, "train.loss") == [(1, 2.0), (2, 1.0)]


def test_a_run_can_be_opened_again_in_the_same_process(project: Project) -> None:
    with Tracker(project) as tracker:
        tracker.open("a").finish(Outcome.FINISHED)
        tracker.open("a").log_metrics({"evaluate.accuracy": 0.5}, step=1)
    run = only_run(project)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"evaluate.accuracy": 0.5})


def test_a_run_has_no_metric_twice_although_it_was_recorded_again(project: Project) -> None:
    for values in ({1: 2.0, 2: math.nan}, {1: 2.0, 2: math.nan, 3: 1.0}, {3: 0.5}):
        with Tracker(project) as tracker:
            run = tracker.open("a")
            for step, value in values.items():
                run.log_metrics({"train.loss": value}, step=step)
    points = history(client(project), only_run(project), "train.loss")
    assert [step for step, _ in points] == [1, 2, 3, 3]
    assert [value for _, value in points if not math.isnan(value)] == [2.0, 0.5, 1.0]


def test_a_run_takes_more_params_and_metrics_than_mlflow_takes_at_once(project: Project) -> None:
    with Tracker(project) as tracker:
        run = tracker.open("a")
        run.log_params({f"p{number}": number for number in range(250)})
        run.log_metrics({f"m{number}": number for number in range(1100)}, step=1)
    data = only_run(project).data
    assert (len(data.params), len(data.metrics)) == (250, 1100)


def test_a_run_continues_after_records_that_mlflow_refuses(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    with Tracker(project) as tracker:
        run = tracker.open("a", name="resnet20")
        run.log_params({"train.epochs": 1})
        run.log_params({"train.epochs": 2})
        run.log_params({"train.epochs": 3})
        run.log_metrics({"loss": 1.0}, step=1)
    run_after = only_run(project)
    assert run_after.data.params == {"train.epochs": "1"}
    assert run_after.data.metrics == {"loss": 1.0}
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("MLflow did not take the params of the run resnet20: ")
    assert list(project.outbox.iterdir()) == []


def test_a_run_that_is_paused_is_scheduled_without_an_end_and_resumes_later(project: Project) -> None:
    with Tracker(project) as tracker:
        for process in range(2):
            for leg in range(2):
                run = tracker.open("a", name="trial 0")
                run.log_metrics({"train.loss": 1.0}, step=1 + leg + 2 * process)
                run.finish(Outcome.PAUSED)
                wait_until(lambda: not tracker.waiting)
                paused = only_run(project)
                assert (paused.info.status, paused.info.end_time) == ("SCHEDULED", None)
                assert "ended" not in paused.data.tags
                assert list(project.outbox.iterdir()) == []
        run = tracker.open("a")
        wait_until(lambda: only_run(project).info.status == "RUNNING")
        run.finish(Outcome.FINISHED)
    run_after = only_run(project)
    assert (run_after.info.status, run_after.data.tags["ended"]) == ("FINISHED", "finished")
    assert run_after.info.end_time
    assert [step for step, _ in history(client(project), run_after, "train.loss")] == [1, 2, 3, 4]


def test_a_run_that_was_paused_has_no_metric_twice_although_it_was_recorded_again(project: Project) -> None:
    with Tracker(project) as tracker:
        for values in ({1: 2.0, 2: 1.0}, {2: 1.0, 3: 0.5}, {2: 1.0, 3: 0.25}):
            run = tracker.open("a")
            for step, value in values.items():
                run.log_metrics({"train.loss": value}, step=step)
            run.finish(Outcome.PAUSED)
            wait_until(lambda: not tracker.waiting)
    assert history(client(project), only_run(project), "train.loss") == [(1, 2.0), (2, 1.0), (3, 0.25), (3, 0.5)]


@pytest.mark.parametrize(("outcome", "status"), [(Outcome.PAUSED, "SCHEDULED"), (Outcome.PRUNED, "KILLED")])
def test_a_run_that_paused_and_resumed_before_it_was_sent_is_sent_in_one_request(
    project: Project, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, status: str
) -> None:
    run, outbox = unsent_run(project, "a")
    opening = outbox.opening
    assert opening
    for step in (1, 2, 3):
        if step > 1:
            outbox.append("open", **opening.content)
            run.finished = False
        run.log_metrics({"train.loss": 1 / step}, step=step)
        run.finish(Outcome.PAUSED if step < 3 else outcome)
    outbox.close()
    sent = []
    log_batch = MlflowClient.log_batch
    monkeypatch.setattr(
        MlflowClient,
        "log_batch",
        lambda *arguments, **options: sent.append(1) or log_batch(*arguments, **options),
    )
    with Tracker(project) as tracker:
        tracker.send_leftovers()
    assert len(sent) == 1
    assert only_run(project).info.status == status
    assert history(client(project), only_run(project), "train.loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_a_run_has_no_metric_twice_although_it_was_recorded_again_before_it_was_sent(project: Project) -> None:
    run, outbox = unsent_run(project, "a")
    opening = outbox.opening
    assert opening
    for steps in ([1, 2], [1, 2, 3]):
        if run.finished:  # as a process does that follows one that was killed
            time.sleep(0.002)  # a later time makes it another record to MLflow
            outbox.append("open", **opening.content)
            run.finished = False
        for step in steps:
            run.log_metrics({"train.loss": 1 / step}, step=step)
        run.finish(Outcome.PAUSED)
    outbox.close()
    with Tracker(project) as tracker:
        tracker.send_leftovers()
    assert history(client(project), only_run(project), "train.loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_a_run_writes_a_batch_with_one_fsync(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(file) or fsync(file))
    with Tracker(project) as tracker:
        run = tracker.open("a")
        synced.clear()
        with pytest.raises(ZeroDivisionError), run.batch():
            run.log_params({"train.epochs": 1})
            run.log_metrics({"train.loss": 1.0}, step=1)
            run.set_tags({"seed": 1 // 0})
        assert len(synced) == 1
        run.finish(Outcome.CRASHED)
    data = only_run(project).data
    assert (data.params, data.metrics) == ({"train.epochs": "1"}, {"train.loss": 1.0})


def test_a_run_ends_in_mlflow_too_when_ctrl_c_comes_while_something_is_written(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Tracker(project) as tracker:
        run = tracker.open("a")
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", interrupted)
            run.log_metrics({"train.loss": 1.0}, step=1)
    assert only_run(project).info.status == "KILLED"
    assert not list(project.outbox.glob("*"))
    assert not only_run(project).data.metrics


def test_a_new_run_is_not_searched_for_unless_the_first_attempt_may_have_arrived(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[Any] = []
    search_runs, create_run = MlflowClient.search_runs, MlflowClient.create_run

    def lost_answer(*arguments: Any, **options: Any) -> MlflowRun:
        run: MlflowRun = create_run(*arguments, **options)
        if options["run_name"] == "second" and len(searches) == 0:
            raise OSError("Connection reset by peer")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", lost_answer)
    with Tracker(project, timing=Timing(retry_delays_s=(0.01,))) as tracker, monkeypatch.context() as counted:
        counted.setattr(
            MlflowClient,
            "search_runs",
            lambda *given, **more: searches.append(given) or search_runs(*given, **more),
        )
        tracker.open("a", name="first", new=True).finish(Outcome.FINISHED)
        wait_until(lambda: not tracker.waiting)
        assert len(searches) == 0
        tracker.open("b", name="second", new=True).finish(Outcome.FINISHED)
        wait_until(lambda: not tracker.waiting)
        assert len(searches) == 1
    assert [run.info.run_name for run in runs(client(project))] == ["first", "second"]


def test_a_run_has_its_latest_confusion_matrix_as_an_image_and_a_table(project: Project) -> None:
    with Tracker(project) as tracker:
        run = tracker.open("a")
        run.log_confusion_matrix([[1, 0], [0, 1]], ["cat", "dog"])
        wait_until(lambda: not tracker.waiting)
        run.log_confusion_matrix([[8, 2], [1, 9]], ["cat", "dog"])
        run.log_bytes(b"image", "plots/curves.png")
    run_after = only_run(project)
    assert files(client(project), run_after) == ["confusion_matrix.json", "confusion_matrix.png", "plots"]
    assert files(client(project), run_after, "plots") == ["plots/curves.png"]
    table = mlflow.artifacts.download_artifacts(
        run_id=run_after.info.run_id,
        artifact_path="confusion_matrix.json",
        tracking_uri=f"sqlite:///{project.home}/mlflow.db",
    )
    assert json.loads(Path(table).read_text()) == {
        "columns": ["actual \\ predicted", "cat", "dog"],
        "data": [["cat", 8, 2], ["dog", 1, 9]],
    }
    tagged = json.loads(run_after.data.tags["mlflow.loggedArtifacts"])
    assert tagged == [{"path": "confusion_matrix.json", "type": "table"}]


@pytest.mark.parametrize("for_good", [False, True])
def test_the_children_of_a_deleted_run_move_to_the_run_that_takes_its_place(project: Project, for_good: bool) -> None:
    with Tracker(project) as tracker:
        tracker.open("study-1", name="study")
        for key in ("study-1-trial-0000", "study-1-trial-0001"):
            tracker.open(key, parent="study-1").finish(Outcome.FINISHED)
        tracker.open("study-10").finish(Outcome.FINISHED)
        tracker.open("study-10-trial-0000", parent="study-10").finish(Outcome.FINISHED)
    mlflow_client = client(project)
    parent = next(run for run in runs(mlflow_client) if run.data.tags["pipeline.key"] == "study-1")
    mlflow_client.delete_run(parent.info.run_id)
    if for_good:
        with contextlib.closing(sqlite3.connect(project.home / "mlflow.db")) as database, database:
            for table in ("tags", "runs"):
                database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (parent.info.run_id,))
    for _ in range(2):
        with Tracker(project) as tracker:
            tracker.open("study-1", name="study")
            tracker.open("study-1-trial-0002", parent="study-1").finish(Outcome.FINISHED)
    found = {run.data.tags["pipeline.key"]: run for run in runs(client(project))}
    assert len(found) == 6
    for key in ("study-1-trial-0000", "study-1-trial-0001", "study-1-trial-0002"):
        assert found[key].data.tags["mlflow.parentRunId"] == found["study-1"].info.run_id
    assert found["study-10-trial-0000"].data.tags["mlflow.parentRunId"] == found["study-10"].info.run_id


def test_a_run_that_mlflow_lacks_is_noticed_without_mlflow(project: Project) -> None:
    assert is_gone(project, "study-1")
    with Tracker(project) as tracker:
        tracker.open("study-1").finish(Outcome.FINISHED)
    assert not is_gone(project, "study-1")
    assert is_gone(project, "study-2")
    client(project).delete_run(only_run(project).info.run_id)
    assert is_gone(project, "study-1")
    (project.home / "mlflow.db").write_bytes(b"SQLite format 3\0 no more")
    assert not is_gone(project, "study-1")
