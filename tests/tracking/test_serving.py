"""Stages record, a process in the background sends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow_runs import client, history, only_run, runs, wait_until
from servers import SECRET

from pipeline.errors import TrackingError
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.tracking import StageTracker, Timing, Tracker
from pipeline.tracking.__main__ import send
from pipeline.tracking.handover import is_served, serving
from pipeline.tracking.outbox import Held, kept
from pipeline.tracking.serving import serve
from pipeline.tracking.store import Store

STAGE = """
import sys, time
from pipeline.files import Project
from pipeline.tracking import StageTracker
from pipeline.outcome import Outcome
with StageTracker(Project.here()) as tracker:
    run = tracker.open("a", name="resnet20")
    with run.batch():
        run.log_params({"train.epochs": 9})
    for step in range(1, int(sys.argv[1]) + 1):
        time.sleep(0.4)
        run.log_metrics({"train.loss": 1 / step}, step=step)
        print(step, flush=True)
    run.finish(Outcome.FINISHED)
print("mlflow" in sys.modules)
"""


def begun_run(project: Project) -> Run:
    """The only run, as soon as MLflow has it."""
    wait_until(lambda: client(project).get_experiment_by_name("pipeline"))
    wait_until(lambda: runs(client(project)))
    return only_run(project)


@pytest.mark.slow
@pytest.mark.background
def test_a_stage_imports_no_mlflow_and_its_records_arrive_while_it_runs(project: Project) -> None:
    command = [sys.executable, "-W", "error", "-c", STAGE, "40"]
    with subprocess.Popen(command, cwd=project.home, stdout=subprocess.PIPE, text=True) as stage:
        wait_until(lambda: history(client(project), begun_run(project), "train.loss"))
        assert stage.poll() is None, "the stage still runs"
        running = only_run(project)
        assert (running.info.status, running.data.params) == ("RUNNING", {"train.epochs": "9"})
        out, _ = stage.communicate(timeout=60)
    assert out.splitlines()[-1] == "False"
    began = time.monotonic()
    send(project)  # as a container does at its end: it waits
    assert time.monotonic() - began < 60
    ended = only_run(project)
    assert (ended.info.status, ended.data.tags["ended"]) == ("FINISHED", "finished")
    assert history(client(project), ended, "train.loss") == [(step, 1 / step) for step in range(1, 41)]
    assert not kept(project.outbox)


@pytest.mark.slow
@pytest.mark.background
def test_the_run_of_a_killed_stage_is_ended_as_interrupted_and_resumes(project: Project) -> None:
    command = [sys.executable, "-c", STAGE, "100"]
    with subprocess.Popen(command, cwd=project.home, stdout=subprocess.PIPE, text=True, start_new_session=True) as one:
        assert one.stdout and [int(one.stdout.readline()) for _ in range(5)] == [1, 2, 3, 4, 5]
        os.kill(one.pid, signal.SIGKILL)
    wait_until(lambda: begun_run(project).info.status == "KILLED")
    with StageTracker(project) as tracker:
        run = tracker.open("a")
        for step in range(1, 8):
            run.log_metrics({"train.loss": 1 / step}, step=step)
    send(project)
    ended = only_run(project)
    assert ended.info.status == "FINISHED"
    assert {step for step, _ in history(client(project), ended, "train.loss")} >= set(range(1, 8))


def test_stages_of_one_run_wait_for_nothing_and_are_sent_in_their_order(project: Project) -> None:
    for stage in ("train", "evaluate", "report"):
        with StageTracker(project) as tracker:
            run = tracker.open("a")
            run.set_tags({"stage": stage})
            run.log_bytes(stage.encode(), f"{stage}.txt")
    assert len(kept(project.outbox, parts=True)) > 3
    serve(project, linger_s=0)
    ended = only_run(project)
    assert (ended.info.status, ended.data.tags["stage"]) == ("FINISHED", "report")
    assert {file.path for file in client(project).list_artifacts(ended.info.run_id)} == {
        f"{stage}.txt" for stage in ("train", "evaluate", "report")
    }
    assert not kept(project.outbox)


def test_two_processes_cannot_record_a_run_at_a_time(project: Project) -> None:
    quick = Timing(holder_s=0.2)
    with StageTracker(project, quick) as tracker, StageTracker(project, quick) as other:
        tracker.open("a")
        with pytest.raises(Held, match="The run a is recorded by another process"):
            other.open("a")
        other.open("b")


def test_one_process_serves_and_what_is_recorded_as_it_ends_is_sent(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.of(project)
    assert not is_served(project, store)
    with serving(project, store):
        assert is_served(project, store)
        serve(project, linger_s=1000)  # a second one ends at once
    # Recorded between the last look of a process and its end, when a stage still finds it serving.
    looks = []

    def last_look(tracker: Tracker, **options: bool) -> list[object]:
        looks.append(True)
        if len(looks) == 1:
            with StageTracker(project) as late:
                late.open("late").set_tags({"stage": "report"})
            return []
        return sent_leftovers(tracker, **options)  # type: ignore[arg-type, return-value]

    sent_leftovers = Tracker.send_leftovers
    monkeypatch.setattr(Tracker, "send_leftovers", last_look)
    serve(project, linger_s=0)
    assert only_run(project).data.tags["stage"] == "report"


@pytest.mark.slow
def test_what_the_process_in_the_background_could_not_do_is_said_by_the_next_stage(
    project: Project, away: Store, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with StageTracker(project) as tracker:
        tracker.open("a").set_tags({"stage": "train"})
    assert capfd.readouterr().err == ""
    with (project.outbox / f"{away.id}.log").open("w") as log:
        environment = os.environ | {"MLFLOW_TRACKING_URI": away.uri}
        command = [sys.executable, "-m", "pipeline.tracking", "--serve"]
        subprocess.run(command, cwd=project.home, env=environment, stderr=log, stdout=log, timeout=60, check=True)
    with StageTracker(project) as tracker:
        tracker.open("a").set_tags({"stage": "evaluate"})
    said = capfd.readouterr().err
    assert f"MLflow at {away} does not answer" in said
    assert "`python -m pipeline.tracking` sends them" in said
    assert SECRET not in said
    assert len(kept(project.outbox)) > 1


def test_a_store_that_no_server_can_be_is_refused_before_a_stage_does_anything(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htp://example.org")
    with pytest.raises(TrackingError, match="must begin with"):
        StageTracker(project)
    assert not project.outbox.exists()


def test_an_interrupted_stage_ends_its_run_as_interrupted(project: Project) -> None:
    with pytest.raises(KeyboardInterrupt), StageTracker(project) as tracker:
        tracker.open("a")
        raise KeyboardInterrupt
    send(project)
    assert only_run(project).data.tags["ended"] == Outcome.INTERRUPTED
