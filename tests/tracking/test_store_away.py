"""Stores that do not answer: nothing is delayed, nothing is lost, no password is shown."""

import shutil
import socket
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow_runs import client, history, only_run, runs, wait_until
from recordings import assert_has_everything, record_everything
from servers import SECRET, answering, free_port, mlflow_server

from pipeline.files import Project
from pipeline.tracking import Timing, Tracker
from pipeline.tracking.__main__ import main
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.outbox import kept
from pipeline.tracking.store import Store


def test_a_store_that_is_away_costs_one_line_and_no_text_shows_its_password(
    project: Project, away: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Tracker(project) as tracker:
        run = tracker.open("a")
        run.log_params({"data.url": f"https://me:{SECRET}@example.org/data.zip"})
        record_everything(run, tmp_path)
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
    away_line, kept_line = capfd.readouterr().err.splitlines()
    assert away_line.startswith(f"MLflow at {away} does not answer (connection refused)")
    assert kept_line.startswith(f"MLflow at {away} lacks 12 of the recorded operations, which are kept in")
    assert "`python -m pipeline.tracking`" in kept_line
    assert str(away).startswith("http://***@127.0.0.1:")
    everything = [away_line, kept_line, repr(away)]
    everything += [file.read_text(errors="replace") for file in project.outbox.rglob("*") if file.is_file()]
    assert not [text for text in everything if SECRET in text]


def test_a_store_that_hangs_delays_neither_the_work_nor_its_end(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    timing = Timing(answer_s=0.5, away_patience_s=0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}")
        begun = time.monotonic()
        with Tracker(project, timing=timing) as tracker:
            run = tracker.open("a")
            for step in range(20):
                run.log_metrics({"loss": 1.0}, step=step)
        assert time.monotonic() - begun < 5
    assert "lacks 22 of the recorded operations" in capfd.readouterr().err


def test_a_store_that_is_slow_delays_no_record_and_an_interrupted_process_by_seconds_only(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = Timing(interrupted_patience_s=0.3)
    answering = threading.Event()
    deliver = Delivery.deliver
    monkeypatch.setattr(Delivery, "deliver", lambda *given, **more: answering.wait(30) and deliver(*given, **more))
    longest = 0.0
    begun = time.monotonic()
    threads = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt), Tracker(project, timing=timing) as tracker:
        run = tracker.open("a")
        for step in range(50):
            before = time.monotonic()
            run.log_metrics({"loss": 1.0}, step=step)
            longest = max(longest, time.monotonic() - before)
        begun = time.monotonic()
        raise KeyboardInterrupt
    assert longest < 0.5
    assert time.monotonic() - begun < 3
    answering.set()
    for thread in set(threading.enumerate()) - threads:
        thread.join()  # it got its answer, but must change nothing any more
    assert [outbox.waiting for outbox in kept(project.outbox)] == [52]


@pytest.mark.parametrize(
    ("scheme", "shown"),
    [("http", "(too many 503 error responses)"), ("https", "API request to https://***@127.0.0.1")],
)
def test_the_errors_of_a_store_show_no_password(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    scheme: str,
    shown: str,
) -> None:
    with answering(503, f"{SECRET} is too busy") as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://me:{SECRET}@127.0.0.1:{port}")
        with Tracker(project) as tracker:
            tracker.open("a")
    away_line, kept_line = capfd.readouterr().err.splitlines()
    assert f"MLflow at {scheme}://***@127.0.0.1:{port} does not answer" in away_line
    assert shown in away_line
    assert SECRET not in away_line + kept_line


def test_a_store_that_is_away_gets_everything_when_it_answers_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failures = iter([None, None, None])
    log_batch = MlflowClient.log_batch

    def flaky(*arguments: Any, **options: Any) -> None:
        for _ in failures:
            raise OSError("Connection reset by peer")
        log_batch(*arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", flaky)
    with Tracker(project, timing=Timing(retry_delays_s=(0.01,))) as tracker:
        run = tracker.open("a")
        run.log_metrics({"loss": 1.0}, step=1)
        wait_until(lambda: runs(client(project)) and only_run(project).data.metrics == {"loss": 1.0})
    away_line, back_line = capfd.readouterr().err.splitlines()
    assert away_line.startswith("MLflow at mlflow.db does not answer (connection reset)")
    assert back_line.startswith("MLflow at mlflow.db answers again")
    assert only_run(project).info.status == "FINISHED"


def test_a_single_failure_is_not_mentioned(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failures = iter([None])
    log_batch = MlflowClient.log_batch

    def hiccup(*arguments: Any, **options: Any) -> None:
        for _ in failures:
            raise OSError("Connection reset by peer")
        log_batch(*arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", hiccup)
    with Tracker(project) as tracker:
        tracker.open("a").log_metrics({"loss": 1.0}, step=1)
    assert only_run(project).data.metrics == {"loss": 1.0}
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_server_that_goes_away_during_a_training_gets_everything_when_it_is_back(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    port, folder = free_port(), tmp_path / "server"
    folder.mkdir()
    shutil.copy(project.home / "mlflow.db", folder)
    uri = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    lines: list[str] = []

    def is_said_to_be_away() -> bool:
        lines.extend(capfd.readouterr().err.splitlines())
        return bool(lines)

    with Tracker(project, timing=Timing(retry_delays_s=(0.2,))) as tracker:
        with mlflow_server(folder, port):
            run = tracker.open("a", name="resnet20")
            run.log_metrics({"train.epoch": 1.0}, step=1)
            wait_until(lambda: runs(MlflowClient(uri)) and runs(MlflowClient(uri))[0].data.metrics)
        run.log_metrics({"train.epoch": 2.0}, step=2)
        wait_until(is_said_to_be_away)
        with mlflow_server(folder, port):
            wait_until(lambda: len(history(MlflowClient(uri), runs(MlflowClient(uri))[0], "train.epoch")) == 2)
        # The server is gone again, for good: the rest stays on disk.
        record_everything(run, tmp_path)
    lines += capfd.readouterr().err.splitlines()
    assert [" ".join(line.partition(uri)[2].split()[:3]) for line in lines] == [
        "does not answer",
        "answers again: what",
        "does not answer",
        "lacks 10 of",
    ]
    monkeypatch.chdir(project.home)
    with mlflow_server(folder, port):
        assert main([]) == 0
        (run_after,) = runs(MlflowClient(uri))
        assert history(MlflowClient(uri), run_after, "train.epoch") == [(1, 1.0), (2, 2.0)]
        assert_has_everything(MlflowClient(uri), run_after)
    assert kept(project.outbox) == []
    assert [path for path in project.outbox.iterdir() if path.is_dir()] == []
