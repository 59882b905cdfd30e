"""Many runs under one parent, recorded by one process, as a search records them."""

import gc
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow_runs import client, history, only_run, runs, wait_until
from sqlalchemy import Engine, event

from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.tracking import Recorded, Timing, Tracker
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.failures import Unreachable
from pipeline.tracking.outbox import Operation
from pipeline.tracking.sender import HELD_AT_ONCE
from pipeline.tracking.store import Store


def test_records_that_wait_are_sent_in_few_requests(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[int] = []
    log_batch = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, metrics: Any, params: Any, tags: Any, **options: Any) -> None:
        requests.append(len(metrics))
        log_batch(self, run_id, metrics, params, tags, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    with Tracker(project) as tracker:
        run = tracker.open("a")
        run.log_params({"train.epochs": 1})
        for step in range(1, 101):
            run.log_metrics({"train.loss": 1 / step, "train.accuracy": 0.5}, step=step)
            run.set_tags({"step": step})
        run.finish(Outcome.FINISHED)
    assert sum(requests) == 200
    assert len(requests) <= 20  # of over 100 records; how many depends on how long each took to send
    run_after = only_run(project)
    assert len(history(client(project), run_after, "train.loss")) == 100
    assert run_after.data.tags["step"] == "100"


def test_the_children_of_a_run_are_reported_as_mlflow_has_them(project: Project) -> None:
    with Tracker(project) as tracker:
        tracker.open("study")
        tracker.open("other")
        for number, outcome in enumerate((Outcome.FINISHED, Outcome.PRUNED, Outcome.PAUSED, None)):
            run = tracker.open(f"trial-{number}", parent="study")
            for step in range(1, number + 1):
                run.log_metrics({"train.validation_accuracy": 0.5}, step=step)
            if outcome:
                run.finish(outcome)
        tracker.open("stranger", parent="other")
        wait_until(lambda: not tracker.waiting)
        assert tracker.children("study") == {
            "trial-0": Recorded("FINISHED", "finished", 0, False),
            "trial-1": Recorded("KILLED", "pruned", 1, False),
            "trial-2": Recorded("SCHEDULED", "paused", 2, False),
            "trial-3": Recorded("RUNNING", None, 3, False),
        }
        assert tracker.children("nobody") == {}


def test_children_are_reported_completely_although_mlflow_pages_its_answer(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    search_runs = MlflowClient.search_runs
    pages: list[Any] = []

    def paged(*arguments: Any, **options: Any) -> Any:
        pages.append(options.get("page_token"))
        return search_runs(*arguments, **options | {"max_results": min(options["max_results"], 3)})

    monkeypatch.setattr(MlflowClient, "search_runs", paged)
    with Tracker(project) as tracker:
        tracker.open("study")
        for number in range(8):
            tracker.open(f"trial-{number}", parent="study", new=True).finish(Outcome.FINISHED)
        wait_until(lambda: not tracker.waiting)
        pages.clear()
        assert set(tracker.children("study") or ()) == {f"trial-{number}" for number in range(8)}
    assert len(pages) == 3


def test_children_are_unknown_while_the_store_is_away(project: Project, away: Store) -> None:
    with Tracker(project) as tracker:
        tracker.open("study")
        assert tracker.children("study") is None


@pytest.mark.slow
def test_runs_that_ended_leave_neither_objects_nor_open_files(project: Project) -> None:
    process = psutil.Process()

    def record(tracker: Tracker, numbers: range) -> tuple[int, int]:
        for number in numbers:
            run = tracker.open(f"trial-{number}", parent="study", new=True)
            run.log_metrics({"train.validation_accuracy": 0.5}, step=1)
            run.log_bytes(b"hello", "hello.txt")
            run.finish(Outcome.PAUSED)
            run = tracker.open(f"trial-{number}")
            run.log_metrics({"train.validation_accuracy": 0.5}, step=2)
            run.finish(Outcome.PRUNED)
            wait_until(lambda: not tracker.waiting, pause_s=0.01)
        gc.collect()
        ours = sum(str(type(kept).__module__).startswith("pipeline.") for kept in gc.get_objects())
        return process.num_fds(), ours

    with Tracker(project, timing=Timing(linger_s=0)) as tracker:
        tracker.open("study")
        before = record(tracker, range(20))
        after = record(tracker, range(20, 120))
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1] + 2


def test_a_store_that_is_away_costs_few_open_files_and_gets_the_runs_in_order(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = HELD_AT_ONCE + 20
    resumed = count - 5  # beyond those that are held
    returned = threading.Event()
    sent: list[str] = []
    deliver = Delivery.deliver

    def gone(delivery: Delivery, folder: Path, opening: Operation, *arguments: Any, **options: Any) -> None:
        if not returned.is_set():
            raise Unreachable("connection refused")
        sent.append(opening.content["key"])
        deliver(delivery, folder, opening, *arguments, **options)

    monkeypatch.setattr(Delivery, "deliver", gone)
    process = psutil.Process()
    with Tracker(project, timing=Timing(retry_delays_s=(0.01,))) as tracker:
        study = tracker.open("study")
        before = process.num_fds()
        for number in range(count):
            tracker.open(f"trial-{number}", parent="study").finish(Outcome.PAUSED)
        again = tracker.open(f"trial-{resumed}")
        again.log_metrics({"train.loss": 1.0}, step=1)
        again.finish(Outcome.PRUNED)
        study.finish(Outcome.FINISHED)
        assert process.num_fds() <= before + 3 * (HELD_AT_ONCE + 2)
        assert tracker.waiting == 2 + 2 * count + 3
        returned.set()
    found = runs(client(project))
    (parent,) = (run for run in found if run.data.tags["pipeline.key"] == "study")
    children = [run for run in found if run is not parent]
    assert list(dict.fromkeys(sent)) == ["study", *(f"trial-{number}" for number in range(count))]
    began = {child.data.tags["pipeline.key"]: child.info.start_time for child in children}
    times = [began[f"trial-{number}"] for number in range(count)]
    assert times == sorted(times), "several may have begun in the same millisecond"
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert [child.info.status for child in children].count("SCHEDULED") == count - 1
    assert [child.data.tags["pipeline.key"] for child in children if child.data.metrics] == [f"trial-{resumed}"]
    assert list(project.outbox.iterdir()) == []


@pytest.fixture
def impatient_database() -> Iterator[None]:
    """MLflow waits 0.1 s for a lock of SQLite, in place of 20 s."""

    def shorten(connection: Any, cursor: Any, statement: str, *given: Any) -> tuple[str, Any]:
        return statement.replace("busy_timeout = 20000", "busy_timeout = 100"), given[0]

    event.listen(Engine, "before_cursor_execute", shorten, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorten)


def test_nothing_is_lost_while_another_process_locks_the_database(
    project: Project, impatient_database: None, capfd: pytest.CaptureFixture[str]
) -> None:
    said = ""

    def is_said_to_be_away() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "does not answer" in said

    with Tracker(project, timing=Timing(retry_delays_s=(0.01,))) as tracker:
        run = tracker.open("a", name="trial 0")
        wait_until(lambda: not tracker.waiting)
        longest = 0.0
        with closing(sqlite3.connect(project.home / "mlflow.db", isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for step in range(1, 61):
                before = time.monotonic()
                run.log_metrics({"train.loss": 1 / step}, step=step)
                longest = max(longest, time.monotonic() - before)
            wait_until(is_said_to_be_away)
            assert tracker.waiting == 60
            connection.execute("ROLLBACK")
        assert longest < 1
        run.finish(Outcome.FINISHED)
    run_after = only_run(project)
    assert history(client(project), run_after, "train.loss") == [(step, 1 / step) for step in range(1, 61)]
    assert run_after.info.status == "FINISHED"
    assert "locked" in said
    assert "lacks" not in capfd.readouterr().err
