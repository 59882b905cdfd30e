"""pipeline.tracking with MLflow itself: on SQLite, on a server that goes away, and on things that are no MLflow."""

import gc
import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from torch import nn

from pipeline import tracking
from pipeline.errors import TrackingError
from pipeline.exporting import mlflow_model
from pipeline.files import Project
from pipeline.tracking import Recorded, Run, Tracker, sender
from pipeline.tracking.__main__ import main
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.failures import Unreachable
from pipeline.tracking.outbox import Held, Operation, Outbox, kept, sweep
from pipeline.tracking.store import Store

# MLflow is used here directly too; pipeline.tracking has this filter of its own.
pytestmark = pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")

SECRET = "opensesame"
EXAMPLE = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)


class Network(nn.Module):
    """Dropout and batch norm tell a model in training mode from one in use."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 5)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(pixels.float() / 255 - 0.5)
        return logits


class Undecided(Network):
    """A network that can't be exported: what it does depends on the pixels."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().forward(pixels if pixels.float().mean() > 1 else 255 - pixels)


@pytest.fixture
def project(tmp_path: Path, migrated: Path) -> Project:
    home = tmp_path / "a project with 100 % ünusual näme"
    home.mkdir()
    shutil.copy(migrated, home)
    return Project(home, home)


@pytest.fixture
def away(project: Project, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A server that does not answer: nobody listens at its port."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:{SECRET}@127.0.0.1:{free_port()}")
    return Store.of(project)


def client(project: Project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project.home}/mlflow.db")


def runs(mlflow_client: MlflowClient, experiment: str = "pipeline") -> list[MlflowRun]:
    found = mlflow_client.get_experiment_by_name(experiment)
    assert found
    return list(mlflow_client.search_runs([found.experiment_id], order_by=["start_time ASC"]))


def only_run(project: Project) -> MlflowRun:
    (run,) = runs(client(project))
    return run


def files(mlflow_client: MlflowClient, run: MlflowRun, folder: str | None = None) -> list[str]:
    return sorted(file.path for file in mlflow_client.list_artifacts(run.info.run_id, folder))


def history(mlflow_client: MlflowClient, run: MlflowRun, metric: str) -> list[tuple[int, float]]:
    points = mlflow_client.get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def kept_run(project: Project, key: str, **content: Any) -> Run:
    """A run that is recorded on disk and not sent."""
    store = Store.of(project)
    unstarted = sender.Sender(store)
    opening = {"key": key, "name": None, "parent": None, "store": str(store), "experiment": store.experiment}
    return Run(store, unstarted, unstarted.open(project.outbox / f"{key}@{store.id}", 0, **(opening | content)))


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def record_everything(run: Run, folder: Path) -> None:
    image = folder / "curves.png"
    image.write_bytes(b"image")
    run.log_params({"train.epochs": 20, "train.threads": None, "train.learning_rate": 0.1, "model.family": "resnet"})
    run.log_metrics({"train.loss": 1.5, "train.accuracy": 0.25}, step=1)
    run.log_metrics({"train.loss": math.nan, "train.accuracy": 0.5}, step=2)
    run.set_tags({"seed": 0, "git.dirty": True})
    run.log_file(image, folder="plots")
    image.unlink()
    run.log_text("hello", "notes/hello.txt")
    run.log_table({"class": ["cat", "dog"], "precision": np.array([0.5, 1.0])}, "per_class.json")
    run.log_dataset(
        name="digits",
        digest="sha256:" + "0123456789abcdef" * 4,
        source="https://example.org/digits.zip",
        counts={"training": 90, "validation": 10},
        shape=(3, 8, 8),
        classes=5,
        context="training",
    )
    run.log_model(Network(), EXAMPLE)
    run.finish("finished")


def assert_has_everything(mlflow_client: MlflowClient, run: MlflowRun) -> None:
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "train.epochs": "20",
        "train.threads": "null",
        "train.learning_rate": "0.1",
        "model.family": "resnet",
    }
    assert history(mlflow_client, run, "train.accuracy") == [(1, 0.25), (2, 0.5)]
    first, second = history(mlflow_client, run, "train.loss")
    assert first == (1, 1.5)
    assert second[0] == 2 and math.isnan(second[1])
    assert run.data.tags.items() >= {"seed": "0", "git.dirty": "true", "ended": "finished"}.items()
    files = {
        file.path for folder in ("", "plots", "notes") for file in mlflow_client.list_artifacts(run.info.run_id, folder)
    }
    assert files == {"plots", "plots/curves.png", "notes", "notes/hello.txt", "per_class.json"}
    table = Path(mlflow_client.download_artifacts(run.info.run_id, "per_class.json"))
    assert json.loads(table.read_text()) == {"columns": ["class", "precision"], "data": [["cat", 0.5], ["dog", 1.0]]}
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "per_class.json", "type": "table"}]
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", "sha256:0123456789abcdef0123456789abc")
    assert json.loads(dataset.dataset.profile) == {"num_rows": 100, "classes": 5, "training": 90, "validation": 10}
    assert "[-1, 3, 8, 8]" in dataset.dataset.schema
    assert [(tag.key, tag.value) for tag in dataset.tags] == [("mlflow.data.context", "training")]
    (output,) = run.outputs.model_outputs
    (model,) = mlflow_client.search_logged_models([run.info.experiment_id])
    assert model.model_id == output.model_id
    assert model.status == "READY"


class TestARun:
    def test_has_what_was_recorded_and_leaves_nothing_behind_and_says_nothing(
        self, project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with Tracker(project) as tracker:
            record_everything(tracker.open("a", name="resnet20 on digits"), tmp_path)
        run = only_run(project)
        assert run.info.run_name == "resnet20 on digits"
        assert_has_everything(client(project), run)
        assert list(project.outbox.iterdir()) == []
        assert capfd.readouterr() == ("", "")

    def test_keeps_its_files_below_the_home_whatever_the_working_directory_is(self, project: Project) -> None:
        with Tracker(project) as tracker:
            tracker.open("a").log_text("hello", "hello.txt")
        (file,) = (project.home / "mlruns" / "pipeline").rglob("hello.txt")
        assert file.read_text() == "hello"

    @pytest.mark.parametrize(
        ("ended", "status"),
        [
            ("finished", "FINISHED"),
            ("diverged", "FAILED"),
            ("out of memory", "FAILED"),
            ("crashed", "FAILED"),
            ("timed out", "FAILED"),
            ("interrupted", "KILLED"),
            ("pruned", "KILLED"),
        ],
    )
    def test_tells_why_it_ended(self, project: Project, ended: str, status: str) -> None:
        with Tracker(project) as tracker:
            tracker.open("a").finish(ended)
        run = only_run(project)
        assert (run.info.status, run.data.tags["ended"]) == (status, ended)

    @pytest.mark.parametrize(
        ("error", "ended"), [(None, "finished"), (ValueError, "crashed"), (KeyboardInterrupt, "interrupted")]
    )
    def test_that_nobody_finished_is_ended_by_what_ended_the_block(
        self, project: Project, error: type[BaseException] | None, ended: str
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

    def test_refuses_an_unknown_ending_and_anything_after_the_ending(self, project: Project) -> None:
        with Tracker(project) as tracker:
            run = tracker.open("a")
            with pytest.raises(ValueError, match="got 'done'"):
                run.finish("done")
            run.finish("finished")
            with pytest.raises(RuntimeError, match="open it again"):
                run.log_metrics({"loss": 1.0})

    def test_refuses_a_key_that_is_no_file_name(self, project: Project) -> None:
        with Tracker(project) as tracker, pytest.raises(ValueError, match="key"):
            tracker.open("../a")

    def test_stands_under_its_parent(self, project: Project) -> None:
        with Tracker(project) as tracker:
            tracker.open("study")
            tracker.open("trial", parent="study").finish("pruned")
        parent, child = runs(client(project))
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id

    def test_that_is_opened_again_is_running_and_then_complete(self, project: Project) -> None:
        with Tracker(project) as tracker:
            run = tracker.open("a", name="first")
            run.log_metrics({"train.loss": 2.0}, step=1)
            run.finish("interrupted")
        with Tracker(project) as tracker:
            run = tracker.open("a")
            assert run.logged_steps == {1}
            run.log_metrics({"train.loss": 1.0}, step=2)
            assert run.logged_steps == {1, 2}
            wait_until(lambda: len(history(client(project), only_run(project), "train.loss")) == 2)
            halfway = only_run(project)
            assert halfway.info.status == "RUNNING"
            assert "ended" not in halfway.data.tags
            run.finish("finished")
        run_after = only_run(project)
        assert run_after.info.run_name == "first"
        assert (run_after.info.status, run_after.data.tags["ended"]) == ("FINISHED", "finished")
        assert history(client(project), run_after, "train.loss") == [(1, 2.0), (2, 1.0)]

    def test_can_be_opened_again_in_the_same_process(self, project: Project) -> None:
        with Tracker(project) as tracker:
            tracker.open("a").finish("finished")
            tracker.open("a").log_metrics({"evaluate.accuracy": 0.5}, step=1)
        run = only_run(project)
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"evaluate.accuracy": 0.5})

    def test_has_no_metric_twice_though_it_was_recorded_again(self, project: Project) -> None:
        for values in ({1: 2.0, 2: math.nan}, {1: 2.0, 2: math.nan, 3: 1.0}, {3: 0.5}):
            with Tracker(project) as tracker:
                run = tracker.open("a")
                for step, value in values.items():
                    run.log_metrics({"train.loss": value}, step=step)
        points = history(client(project), only_run(project), "train.loss")
        assert [step for step, _ in points] == [1, 2, 3, 3]
        assert [value for _, value in points if not math.isnan(value)] == [2.0, 0.5, 1.0]

    def test_takes_more_params_and_metrics_than_mlflow_takes_at_once(self, project: Project) -> None:
        with Tracker(project) as tracker:
            run = tracker.open("a")
            run.log_params({f"p{number}": number for number in range(250)})
            run.log_metrics({f"m{number}": number for number in range(1100)}, step=1)
        data = only_run(project).data
        assert (len(data.params), len(data.metrics)) == (250, 1100)

    def test_goes_on_after_what_mlflow_refuses(self, project: Project, capfd: pytest.CaptureFixture[str]) -> None:
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

    def test_that_is_paused_is_scheduled_without_an_end_and_goes_on_later(self, project: Project) -> None:
        with Tracker(project) as tracker:
            for process in range(2):
                for leg in range(2):
                    run = tracker.open("a", name="trial 0")
                    run.log_metrics({"train.loss": 1.0}, step=1 + leg + 2 * process)
                    run.finish("paused")
                    wait_until(lambda: not tracker.waiting)
                    paused = only_run(project)
                    assert (paused.info.status, paused.info.end_time) == ("SCHEDULED", None)
                    assert "ended" not in paused.data.tags
                    assert list(project.outbox.iterdir()) == []
            run = tracker.open("a")
            wait_until(lambda: only_run(project).info.status == "RUNNING")
            run.finish("finished")
        run_after = only_run(project)
        assert (run_after.info.status, run_after.data.tags["ended"]) == ("FINISHED", "finished")
        assert run_after.info.end_time
        assert [step for step, _ in history(client(project), run_after, "train.loss")] == [1, 2, 3, 4]

    def test_that_was_paused_has_no_metric_twice_though_it_was_recorded_again(self, project: Project) -> None:
        with Tracker(project) as tracker:
            for values in ({1: 2.0, 2: 1.0}, {2: 1.0, 3: 0.5}, {2: 1.0, 3: 0.25}):
                run = tracker.open("a")
                for step, value in values.items():
                    run.log_metrics({"train.loss": value}, step=step)
                run.finish("paused")
                wait_until(lambda: not tracker.waiting)
        assert history(client(project), only_run(project), "train.loss") == [(1, 2.0), (2, 1.0), (3, 0.25), (3, 0.5)]

    @pytest.mark.parametrize(("ended", "status"), [("paused", "SCHEDULED"), ("pruned", "KILLED")])
    def test_that_paused_and_went_on_before_it_was_sent_is_sent_as_one(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, ended: str, status: str
    ) -> None:
        run = kept_run(project, "a")
        opening = run._outbox.opening
        assert opening
        for step in (1, 2, 3):
            if step > 1:
                run._outbox.append("open", **opening.content)
                run.finished = False
            run.log_metrics({"train.loss": 1 / step}, step=step)
            run.finish("paused" if step < 3 else ended)
        run._outbox.close()
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

    def test_has_no_metric_twice_though_it_was_recorded_again_before_it_was_sent(self, project: Project) -> None:
        run = kept_run(project, "a")
        opening = run._outbox.opening
        assert opening
        for steps in ([1, 2], [1, 2, 3]):
            if run.finished:  # as a process does that follows one that was killed
                time.sleep(0.002)  # a later time makes it another record to MLflow
                run._outbox.append("open", **opening.content)
                run.finished = False
            for step in steps:
                run.log_metrics({"train.loss": 1 / step}, step=step)
            run.finish("paused")
        run._outbox.close()
        with Tracker(project) as tracker:
            tracker.send_leftovers()
        assert history(client(project), only_run(project), "train.loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]

    def test_takes_what_is_recorded_together_with_one_wait_for_the_disk(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
            run.finish("crashed")
        data = only_run(project).data
        assert (data.params, data.metrics) == ({"train.epochs": "1"}, {"train.loss": 1.0})

    def test_ends_in_mlflow_too_when_ctrl_c_comes_while_something_is_written(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
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
        with Tracker(project) as tracker:
            run = tracker.open("a")
            assert not run.logged_steps

    def test_that_is_new_costs_no_search_unless_the_first_attempt_may_have_arrived(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sender, "_DELAYS_S", (0.01,))
        searches: list[Any] = []
        search_runs, create_run = MlflowClient.search_runs, MlflowClient.create_run

        def lost_answer(*arguments: Any, **options: Any) -> MlflowRun:
            run: MlflowRun = create_run(*arguments, **options)
            if options["run_name"] == "second" and len(searches) == 0:
                raise OSError("Connection reset by peer")
            return run

        monkeypatch.setattr(MlflowClient, "create_run", lost_answer)
        with Tracker(project) as tracker, monkeypatch.context() as counted:
            counted.setattr(
                MlflowClient,
                "search_runs",
                lambda *given, **more: searches.append(given) or search_runs(*given, **more),
            )
            tracker.open("a", name="first", new=True).finish("finished")
            wait_until(lambda: not tracker.waiting)
            assert len(searches) == 0
            tracker.open("b", name="second", new=True).finish("finished")
            wait_until(lambda: not tracker.waiting)
            assert len(searches) == 1
        assert [run.info.run_name for run in runs(client(project))] == ["first", "second"]

    def test_has_its_latest_confusion_matrix_as_an_image_and_a_table(self, project: Project) -> None:
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


class TestASearch:
    """Many runs under one parent, recorded by one process."""

    def test_sends_what_was_recorded_meanwhile_at_once(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
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
            run.finish("finished")
        assert sum(requests) == 200
        assert len(requests) <= 20  # of over 100 records; how many depends on how long each took to send
        run_after = only_run(project)
        assert len(history(client(project), run_after, "train.loss")) == 100
        assert run_after.data.tags["step"] == "100"

    def test_can_ask_what_mlflow_has_of_its_runs(self, project: Project) -> None:
        with Tracker(project) as tracker:
            tracker.open("study")
            tracker.open("other")
            for number, ended in enumerate(("finished", "pruned", "paused", None)):
                run = tracker.open(f"trial-{number}", parent="study")
                for step in range(1, number + 1):
                    run.log_metrics({"train.validation_accuracy": 0.5}, step=step)
                if ended:
                    run.finish(ended)
            tracker.open("stranger", parent="other")
            wait_until(lambda: not tracker.waiting)
            assert tracker.children("study") == {
                "trial-0": Recorded("FINISHED", "finished", 0),
                "trial-1": Recorded("KILLED", "pruned", 1),
                "trial-2": Recorded("SCHEDULED", "paused", 2),
                "trial-3": Recorded("RUNNING", None, 3),
            }
            assert tracker.children("nobody") == {}

    def test_can_ask_for_more_runs_than_mlflow_tells_at_once(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
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
                tracker.open(f"trial-{number}", parent="study", new=True).finish("finished")
            wait_until(lambda: not tracker.waiting)
            pages.clear()
            assert set(tracker.children("study") or ()) == {f"trial-{number}" for number in range(8)}
        assert len(pages) == 3

    def test_asks_nothing_of_a_store_that_is_away(self, project: Project, away: Store) -> None:
        with Tracker(project) as tracker:
            tracker.open("study")
            assert tracker.children("study") is None

    @pytest.mark.slow
    def test_keeps_nothing_of_runs_that_ended(self, project: Project) -> None:
        process = psutil.Process()

        def record(tracker: Tracker, numbers: range) -> tuple[int, int]:
            for number in numbers:
                run = tracker.open(f"trial-{number}", parent="study", new=True)
                run.log_metrics({"train.validation_accuracy": 0.5}, step=1)
                run.log_text("hello", "hello.txt")
                run.finish("paused")
                run = tracker.open(f"trial-{number}")
                run.log_metrics({"train.validation_accuracy": 0.5}, step=2)
                run.finish("pruned")
                wait_until(lambda: not tracker.waiting, pause_s=0.01)
            gc.collect()
            ours = sum(str(type(kept).__module__).startswith("pipeline.") for kept in gc.get_objects())
            return process.num_fds(), ours

        with Tracker(project) as tracker:
            tracker._sender._closing = True  # no waiting for company
            tracker.open("study")
            before = record(tracker, range(20))
            after = record(tracker, range(20, 120))
            assert len(tracker._runs) <= 2
            assert set(tracker._sender._delivery._runs) == {"study"}
        assert after[0] <= before[0] + 2
        assert after[1] <= before[1] + 2

    def test_needs_few_open_files_though_the_store_is_away_and_is_sent_in_order(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sender, "_KEPT_OPEN", 4)
        monkeypatch.setattr(sender, "_DELAYS_S", (0.01,))
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
        with Tracker(project) as tracker:
            study = tracker.open("study")
            before = process.num_fds()
            for number in range(40):
                tracker.open(f"trial-{number}", parent="study").finish("paused")
            again = tracker.open("trial-30")
            again.log_metrics({"train.loss": 1.0}, step=1)
            again.finish("pruned")
            study.finish("finished")
            assert process.num_fds() <= before + 3 * 6
            assert tracker.waiting == 2 + 2 * 40 + 3
            returned.set()
        found = runs(client(project))
        (parent,) = (run for run in found if run.data.tags["pipeline.key"] == "study")
        children = [run for run in found if run is not parent]
        # The one that went on is sent with what it was before, under the time of that.
        assert list(dict.fromkeys(sent)) == [
            "study",
            *(f"trial-{number}" for number in range(40) if number != 30),
            "trial-30",
        ]
        began = {child.data.tags["pipeline.key"]: child.info.start_time for child in children}
        times = [began[f"trial-{number}"] for number in range(40)]
        assert times == sorted(times), "several may have begun in the same millisecond"
        assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
        assert [child.info.status for child in children].count("SCHEDULED") == 39
        assert [child.data.tags["pipeline.key"] for child in children if child.data.metrics] == ["trial-30"]
        assert list(project.outbox.iterdir()) == []

    @pytest.mark.slow
    def test_loses_nothing_while_another_process_locks_the_database(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with Tracker(project) as tracker:
            run = tracker.open("a", name="trial 0")
            wait_until(lambda: not tracker.waiting)
            longest = 0.0
            with closing(sqlite3.connect(project.home / "mlflow.db", isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                for step in range(1, 61):
                    before = time.monotonic()
                    run.log_metrics({"train.loss": 1 / step}, step=step)
                    longest = max(longest, time.monotonic() - before)
                    time.sleep(0.1)
                assert tracker.waiting == 60
                connection.execute("ROLLBACK")
            assert longest < 1
            run.finish("finished")
        run_after = only_run(project)
        assert history(client(project), run_after, "train.loss") == [(step, 1 / step) for step in range(1, 61)]
        assert run_after.info.status == "FINISHED"
        assert "lacks" not in capfd.readouterr().err


class TestAModel:
    @pytest.fixture
    def location(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
        """The URI of the model of a run, and MLflow's environment set so that it finds it."""
        torch.manual_seed(0)
        self.network = Network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network(torch.from_numpy(EXAMPLE))  # so that the batch norm has statistics
        with Tracker(project) as tracker:
            tracker.open("a").log_model(self.network, EXAMPLE)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.home}/mlflow.db")
        (output,) = only_run(project).outputs.model_outputs
        return f"models:/{output.model_id}"

    def test_gives_the_networks_logits_for_any_number_of_images(self, location: str) -> None:
        assert self.network.training, "the network is left as it is"
        self.network.eval()
        graph, function = mlflow.pytorch.load_model(location), mlflow.pyfunc.load_model(location)
        for count in (1, 2, 5):
            images = np.random.default_rng(count).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
            with torch.no_grad():
                expected = self.network(torch.from_numpy(images))
                torch.testing.assert_close(graph(torch.from_numpy(images)), expected)
            np.testing.assert_allclose(function.predict(images), expected.numpy(), rtol=1e-5, atol=1e-6)

    def test_has_signature_example_and_no_pickle(self, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
        function = mlflow.pyfunc.load_model(location)
        inputs, outputs = function.metadata.signature.inputs, function.metadata.signature.outputs
        assert [(item.type, item.shape) for item in inputs] == [(np.dtype("uint8"), (-1, 3, 8, 8))]
        assert [(item.type, item.shape) for item in outputs] == [(np.dtype("float32"), (-1, 5))]
        np.testing.assert_array_equal(function.input_example, EXAMPLE)
        assert function.model_config["device"] == "cpu", "where there is a GPU too"
        monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        mlflow.pytorch.load_model(location)

    def test_that_cannot_be_exported_is_said_and_costs_no_more(
        self, project: Project, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with Tracker(project) as tracker:
            run = tracker.open("a")
            run.log_model(Undecided(), EXAMPLE)
            run.log_metrics({"loss": 1.0})
        assert capfd.readouterr().err.splitlines()[-1].startswith("The model can't be exported for MLflow")
        run_after = only_run(project)
        assert run_after.data.metrics == {"loss": 1.0}
        assert not run_after.outputs.model_outputs

    def test_that_was_saved_is_there_once_though_it_was_given_again(self, project: Project, tmp_path: Path) -> None:
        with Tracker(project) as tracker:
            for number in range(3):
                mlflow_model.save(Network(), EXAMPLE, tmp_path / "model")
                run = tracker.open("a")
                run.log_saved_model(tmp_path / "model")
                run.finish("interrupted")
                if number:
                    wait_until(lambda: not tracker.waiting)
        (output,) = only_run(project).outputs.model_outputs
        assert client(project).get_logged_model(output.model_id).status == "READY"
        assert not list((project.home / ".outbox").rglob("model*"))

    def test_can_be_registered_under_an_alias_that_moves(
        self, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pixels = torch.from_numpy(EXAMPLE)
        for number, key in enumerate(("a", "b")):
            torch.manual_seed(number)
            network = Network()
            mlflow_model.save(network, EXAMPLE, tmp_path / key)
            with Tracker(project) as tracker:
                run = tracker.open(key)
                run.log_saved_model(tmp_path / key)
                assert not (tmp_path / key).exists()
                run.register_model("digits-search", "best")
            with monkeypatch.context() as patched:
                patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.home}/mlflow.db")
                loaded = mlflow.pytorch.load_model("models:/digits-search@best")
            with torch.no_grad():
                torch.testing.assert_close(loaded(pixels), network.eval()(pixels))
        (second, first) = client(project).search_model_versions("name = 'digits-search'")
        assert (first.version, second.version) == (1, 2)
        assert [run.info.run_id for run in runs(client(project))] == [first.run_id, second.run_id]

    def test_is_registered_once_though_it_is_delivered_twice(self, project: Project) -> None:
        run = kept_run(project, "a")
        run.log_model(Network(), EXAMPLE)
        run.register_model("digits-search", "best")
        outbox = run._outbox
        lines = [json.loads(line) for line in outbox._journal.read_text().splitlines()]
        assert outbox.opening
        for _ in range(2):
            delivery = Delivery(Store.of(project))
            delivery.connect()
            for line in lines:
                delivery.deliver(outbox.folder, outbox.opening, [Operation(**line)])
        outbox.close()
        (version,) = client(project).search_model_versions("name = 'digits-search'")
        assert client(project).get_model_version_by_alias("digits-search", "best").version == version.version == 1

    def test_that_the_run_lacks_is_not_registered_and_said_so(
        self, project: Project, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with Tracker(project) as tracker:
            run = tracker.open("a", name="trial 0")
            with pytest.raises(ValueError, match="got 'a/b'"):
                run.register_model("a/b", "best")
            run.register_model("digits-search", "best")
        assert capfd.readouterr().err == "MLflow did not take the register of the run trial 0: the run has no model\n"

    @pytest.mark.slow
    def test_that_another_process_wrote_is_logged_without_torch(self, project: Project) -> None:
        mlflow_model.save(Network(), EXAMPLE, project.home / "model")
        code = (
            "import sys; from pathlib import Path\n"
            "from pipeline.files import Project; from pipeline.tracking import Tracker\n"
            "with Tracker(Project(Path.cwd(), Path.cwd())) as tracker:\n"
            "    run = tracker.open('a')\n"
            "    run.log_confusion_matrix([[1, 0], [0, 1]], ['cat', 'dog'])\n"
            "    run.log_saved_model(Path('model'))\n"
            "    run.register_model('digits-search', 'best')\n"
            "print([name for name in ('torch', 'matplotlib') if name in sys.modules])\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=project.home, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("[]\n", "")
        assert only_run(project).outputs.model_outputs


class TestTheOutbox:
    def test_that_a_kill_met_while_it_was_made_or_removed_leaves_nothing(self, project: Project) -> None:
        for key in ("made", "removed", "unlocked", "held", "kept"):
            outbox = Outbox(project.outbox / f"{key}@store", wait_s=0)
            if key == "held":
                held = outbox
                continue
            if key == "kept":
                outbox.append("open", key="kept", name=None)
            outbox.close()
        (project.outbox / "removed@store" / "journal.jsonl").unlink()
        shutil.rmtree(project.outbox / "unlocked@store")
        sweep(project.outbox)
        left = ["held@store", "held@store.lock", "kept@store", "kept@store.lock"]
        assert sorted(path.name for path in project.outbox.iterdir()) == left
        assert held.is_held
        held.remove()

    def test_that_was_sent_whole_is_removed_by_the_next_process(self, project: Project) -> None:
        run = kept_run(project, "a")
        run.finish("finished")
        run._outbox.sent(len(run._outbox.peek()))
        run._outbox.close()
        with Tracker(project) as tracker:
            assert not tracker.send_leftovers()
        assert not list(project.outbox.iterdir())

    def test_sends_every_operation_twice_with_the_effect_of_once(self, project: Project, tmp_path: Path) -> None:
        run = kept_run(project, "a")
        record_everything(run, tmp_path)
        outbox = run._outbox
        lines = [json.loads(line) for line in outbox._journal.read_text().splitlines()]
        assert outbox.opening
        for _ in range(2):
            delivery = Delivery(Store.of(project))  # another process knows nothing of this one
            delivery.connect()
            for line in lines:
                for _ in range(2):
                    delivery.deliver(outbox.folder, outbox.opening, [Operation(**line)])
        outbox.close()
        assert_has_everything(client(project), only_run(project))

    def test_can_be_torn_at_any_byte_of_its_last_line(self, tmp_path: Path) -> None:
        whole = Outbox(tmp_path / "whole@0", 0)
        whole.append("metrics", values={"loss": 1.0}, step=1)
        size = whole._journal.stat().st_size
        whole.append("metrics", values={"loss": 0.5}, step=2)
        whole.close()
        content = whole._journal.read_bytes()
        for length in range(size, len(content)):
            (tmp_path / "torn@0").mkdir()
            (tmp_path / "torn@0" / "journal.jsonl").write_bytes(content[:length])
            mended = Outbox(tmp_path / "torn@0", 0)
            assert mended.steps == {1}
            mended.append("metrics", values={"loss": 0.25}, step=3)
            steps = []
            while waiting := mended.peek():
                steps.append(waiting[0].content["step"])
                mended.sent(1)
            assert steps == [1, 3]
            mended.remove()

    def test_that_is_half_removed_counts_as_none(self, tmp_path: Path) -> None:
        folder = tmp_path / "a@0"
        folder.mkdir()
        (folder / "sent").write_text("1")
        outbox = Outbox(folder, 0)
        outbox.append("metrics", values={"loss": 1.0}, step=1)
        outbox.close()
        again = Outbox(folder, 0)
        assert again.waiting == 1
        again.close()

    def test_on_a_full_disk_is_an_error_and_stays_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        outbox = Outbox(tmp_path / "a@0", 0)
        outbox.append("metrics", values={"loss": 1.0}, step=1)

        class Full:
            def write(self, line: bytes) -> int:
                with outbox._journal.open("ab") as file:
                    return file.write(line[:7])

            def fileno(self) -> int:
                return writer.fileno()

        writer = outbox._writer
        with monkeypatch.context() as patched, pytest.raises(TrackingError, match="the disk is full"):
            patched.setattr(outbox, "_writer", Full())
            outbox.append("metrics", values={"loss": 1.0}, step=2)
        outbox.append("metrics", values={"loss": 1.0}, step=3)
        outbox.close()
        again = Outbox(tmp_path / "a@0", 0)
        again.close()
        assert outbox.steps == again.steps == {1, 3}

    def test_is_refused_to_a_second_process_which_is_told_who_has_it(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tracking, "_HOLDER_S", 0.2)
        folder = project.outbox / f"a@{Store.of(project).id}"
        code = (
            "import sys, time; from pathlib import Path; from pipeline.tracking.outbox import Outbox\n"
            "outbox = Outbox(Path(sys.argv[1]), 0)\n"
            "outbox.append('open', key='a', name='a', parent=None)\n"
            "print('ready', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
            try:
                assert holder.stdout and holder.stdout.readline() == "ready\n"
                with (
                    Tracker(project) as tracker,
                    pytest.raises(Held, match=f"process {holder.pid} on {socket.gethostname()}"),
                ):
                    tracker.open("a")
                with Tracker(project) as tracker:
                    (held,) = tracker.send_leftovers()
                    assert held.key == "a"
            finally:
                holder.kill()
        with Tracker(project) as tracker:
            tracker.open("a")
        assert only_run(project).info.run_name == "a"

    @pytest.mark.slow
    def test_survives_a_process_that_was_killed_while_it_made_the_database(self, project: Project) -> None:
        code = (
            "from pipeline.files import Project\nfrom pipeline.tracking import Tracker\n"
            "Tracker(Project.here()).open('first')\n"
        )
        (project.root / "mlflow.db").unlink()
        for _ in range(4):
            with subprocess.Popen([sys.executable, "-c", code], cwd=project.root) as killed:
                # While the tables are made: from the first sign of a file to the last.
                while not list(project.root.glob("mlflow.db*")) and killed.poll() is None:
                    time.sleep(0.005)
                time.sleep(0.3)
                killed.kill()
        with Tracker(project) as tracker:
            tracker.open("second").finish("finished")
        assert [run.info.status for run in runs(client(project))][:1] == ["FINISHED"]
        assert not list(project.root.glob("mlflow.db.part*"))

    def test_of_a_killed_process_is_taken_up_and_the_run_is_the_same(self, project: Project) -> None:
        code = (
            "import time; from pathlib import Path\n"
            "from pipeline.files import Project; from pipeline.tracking import Tracker\n"
            "with Tracker(Project(Path.cwd(), Path.cwd())) as tracker:\n"
            "    run = tracker.open('a', name='resnet20')\n"
            "    run.log_params({'train.epochs': 9})\n"
            "    for step in range(1, 10_000):\n"
            "        run.log_metrics({'train.loss': 1 / step}, step=step)\n"
            "        print(step, flush=True)\n"
            "        time.sleep(0.01)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code], cwd=project.home, stdout=subprocess.PIPE, text=True
        ) as killed:
            assert killed.stdout and [int(killed.stdout.readline()) for _ in range(5)] == [1, 2, 3, 4, 5]
            killed.kill()
        with Tracker(project) as tracker:
            run = tracker.open("a", name="resnet20")
            run.log_params({"train.epochs": 9})
            assert run.logged_steps >= {1, 2, 3, 4, 5}
            last = max(run.logged_steps) + 4
            for step in range(1, last + 1):
                if step not in run.logged_steps:
                    run.log_metrics({"train.loss": 1 / step}, step=step)
        run_after = only_run(project)
        assert history(client(project), run_after, "train.loss") == [(step, 1 / step) for step in range(1, last + 1)]
        assert (run_after.info.status, run_after.data.params) == ("FINISHED", {"train.epochs": "9"})

    def test_left_by_a_dead_process_is_sent_and_its_run_ended_as_interrupted(self, project: Project) -> None:
        run = kept_run(project, "dead")
        run.log_metrics({"train.loss": 1.0}, step=1)
        run._outbox.close()
        with Tracker(project) as tracker:
            living = tracker.open("living")
            tracker.send_leftovers()
            living.finish("finished")
        dead, living_after = runs(client(project))
        assert (dead.info.status, dead.data.tags["ended"]) == ("KILLED", "interrupted")
        assert dead.data.metrics == {"train.loss": 1.0}
        assert living_after.info.status == "FINISHED"
        assert list(project.outbox.iterdir()) == []


class TestTheCommandLine:
    @pytest.fixture(autouse=True)
    def here(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(project.home)

    def test_sends_what_is_left(self, project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = kept_run(project, "a", name="resnet20 on digits")
        record_everything(run, tmp_path)
        run._outbox.close()
        assert main(["--list"]) == 0
        assert "a (resnet20 on digits): 11 operations, opened 2" in capsys.readouterr().out
        assert main([]) == 0
        assert "MLflow at mlflow.db has all that was recorded." in capsys.readouterr().out
        assert_has_everything(client(project), only_run(project))
        assert main([]) == 0
        assert capsys.readouterr().out == "Runs that wait for mlflow.db, experiment pipeline: 0\n"

    def test_fails_if_the_store_is_away_and_keeps_everything(
        self, project: Project, away: Store, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = kept_run(project, "a")
        run.finish("finished")
        run._outbox.close()
        assert main([]) == 1
        printed = capsys.readouterr()
        assert "error: Runs that could not be sent whole: 1 of 1." in printed.err
        assert SECRET not in printed.out + printed.err
        assert [outbox.waiting for outbox in kept(project.outbox)] == [2]

    def test_leaves_alone_what_waits_for_another_store(
        self, project: Project, away: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        kept_run(project, "a")._outbox.close()
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        assert main([]) == 0
        printed = capsys.readouterr().out
        assert f"for {away}, experiment pipeline" in printed
        assert SECRET not in printed
        assert [outbox.waiting for outbox in kept(project.outbox)] == [1]


class TestAStoreThatIsAway:
    def test_costs_nothing_but_a_line_and_shows_its_password_to_nobody(
        self, project: Project, away: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with Tracker(project) as tracker:
            run = tracker.open("a")
            assert run.logged_steps == set()
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

    def test_that_hangs_holds_up_neither_the_work_nor_its_end(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sender, "_ANSWER_S", 0.5)
        monkeypatch.setattr(sender, "_SILENCE_S", 0.5)
        with closing(socket.create_server(("127.0.0.1", 0))) as listening:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}")
            begun = time.monotonic()
            with Tracker(project) as tracker:
                run = tracker.open("a")
                for step in range(20):
                    run.log_metrics({"loss": 1.0}, step=step)
            assert time.monotonic() - begun < 5
        assert "lacks 22 of the recorded operations" in capfd.readouterr().err

    def test_that_is_slow_holds_up_no_record_and_the_end_of_an_interrupted_process_for_seconds_only(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tracking, "_INTERRUPTED_PATIENCE_S", 0.3)
        answering = threading.Event()
        deliver = Delivery.deliver
        monkeypatch.setattr(Delivery, "deliver", lambda *given, **more: answering.wait(30) and deliver(*given, **more))
        longest = 0.0
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt), Tracker(project) as tracker:
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
        assert tracker._sender._thread
        tracker._sender._thread.join()  # touches nothing any more, though it has got its answer
        assert [outbox.waiting for outbox in kept(project.outbox)] == [52]

    @pytest.mark.parametrize(
        ("scheme", "told"),
        [("http", "(too many 503 error responses)"), ("https", "API request to https://***@127.0.0.1")],
    )
    def test_that_cannot_work_shows_no_password_either(
        self,
        project: Project,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        scheme: str,
        told: str,
    ) -> None:
        with answering(503, f"{SECRET} is too busy") as port:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://me:{SECRET}@127.0.0.1:{port}")
            with Tracker(project) as tracker:
                tracker.open("a")
        away_line, kept_line = capfd.readouterr().err.splitlines()
        assert f"MLflow at {scheme}://***@127.0.0.1:{port} does not answer" in away_line
        assert told in away_line
        assert SECRET not in away_line + kept_line

    def test_is_asked_again_until_it_answers(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sender, "_DELAYS_S", (0.01,))
        failures = iter([None, None, None])
        log_batch = MlflowClient.log_batch

        def flaky(*arguments: Any, **options: Any) -> None:
            for _ in failures:
                raise OSError("Connection reset by peer")
            log_batch(*arguments, **options)

        monkeypatch.setattr(MlflowClient, "log_batch", flaky)
        with Tracker(project) as tracker:
            run = tracker.open("a")
            run.log_metrics({"loss": 1.0}, step=1)
            wait_until(lambda: runs(client(project)) and only_run(project).data.metrics == {"loss": 1.0})
        away_line, back_line = capfd.readouterr().err.splitlines()
        assert away_line.startswith("MLflow at mlflow.db does not answer (connection reset)")
        assert back_line.startswith("MLflow at mlflow.db answers again")
        assert only_run(project).info.status == "FINISHED"

    def test_once_is_not_spoken_of(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
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
    def test_in_the_middle_of_a_training_gets_everything_when_it_is_back(
        self, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        port, folder = free_port(), tmp_path / "server"
        folder.mkdir()
        shutil.copy(project.home / "mlflow.db", folder)
        uri = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setattr(sender, "_DELAYS_S", (0.2,))
        with Tracker(project) as tracker:
            with server(folder, port):
                run = tracker.open("a", name="resnet20")
                run.log_metrics({"train.epoch": 1.0}, step=1)
                wait_until(lambda: runs(MlflowClient(uri)) and runs(MlflowClient(uri))[0].data.metrics)
            run.log_metrics({"train.epoch": 2.0}, step=2)
            wait_until(lambda: tracker._sender._failures > 1)
            with server(folder, port):
                wait_until(lambda: len(history(MlflowClient(uri), runs(MlflowClient(uri))[0], "train.epoch")) == 2)
            # Gone again, and this time for good: the rest stays on disk.
            record_everything(run, tmp_path)
        lines = capfd.readouterr().err.splitlines()
        assert [" ".join(line.partition(uri)[2].split()[:3]) for line in lines] == [
            "does not answer",
            "answers again: what",
            "does not answer",
            "lacks 10 of",
        ]
        monkeypatch.chdir(project.home)
        with server(folder, port):
            assert main([]) == 0
            (run_after,) = runs(MlflowClient(uri))
            assert history(MlflowClient(uri), run_after, "train.epoch") == [(1, 1.0), (2, 2.0)]
            assert_has_everything(MlflowClient(uri), run_after)
        assert list(project.outbox.iterdir()) == []


class TestAStoreThatCannotBeUsed:
    @pytest.mark.parametrize(
        ("uri", "told"),
        [
            ("mlruns", "must begin with http://"),
            ("file:./mlruns", "must begin with http://"),
            (f"htp://me:{SECRET}@host", "must begin with http://"),
            ("http://", "must be http://host"),
            (f"http://me:{SECRET}@host:port", "must be http://host"),
            (f"http://me:a/{SECRET}@host", "got http://\\*\\*\\*@host"),
            ("sqlite:////no/such/folder/mlflow.db", "no folder /no/such/folder"),
            ("sqlite:///notes.txt", "is not an SQLite database"),
        ],
    )
    def test_is_told_before_anything_is_asked(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, uri: str, told: str
    ) -> None:
        (project.home / "notes.txt").write_text("This is no database.")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(TrackingError, match=told) as raised:
            Tracker(project)
        assert SECRET not in str(raised.value)

    @pytest.mark.parametrize(
        ("status", "body", "told"),
        [
            (401, f"There is no me with {SECRET}.", "There is no me with"),
            (403, json.dumps({"error_code": "PERMISSION_DENIED", "message": "not yours"}), "not yours"),
            (404, "Not Found", "404"),
            (200, "<html>a page</html>", "valid JSON"),
        ],
    )
    def test_is_told_as_soon_as_it_answers_so(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, status: int, body: str, told: str
    ) -> None:
        with answering(status, body) as port:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}")
            with pytest.raises(TrackingError, match=told) as raised, Tracker(project) as tracker:
                tracker.open("a")
        assert f"http://***@127.0.0.1:{port}" in str(raised.value)
        assert SECRET not in str(raised.value)
        assert not project.outbox.exists()

    def test_is_told_of_a_damaged_database(self, project: Project) -> None:
        database = project.home / "mlflow.db"
        content = bytearray(database.read_bytes())
        content[100:] = b"\xff" * (len(content) - 100)
        database.write_bytes(content)
        with pytest.raises(TrackingError, match=r"mlflow\.db: "), Tracker(project) as tracker:
            tracker.open("a")

    def test_is_told_of_a_deleted_experiment_with_the_way_out(self, project: Project) -> None:
        with Tracker(project) as tracker:
            tracker.open("a")
        (experiment,) = client(project).search_experiments(filter_string="name = 'pipeline'")
        client(project).delete_experiment(experiment.experiment_id)
        with (
            pytest.raises(TrackingError, match="mlflow experiments restore --experiment-id 1"),
            Tracker(project) as tracker,
        ):
            tracker.open("b")


class TestTheLocalStore:
    def test_has_an_experiment_of_its_own_though_mlflow_ui_made_the_database(self, project: Project) -> None:
        database = project.home / "mlflow.db"
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
        with Tracker(project) as tracker:
            tracker.open("a").log_text("hello", "hello.txt")
        assert files(client(project), only_run(project)) == ["hello.txt"]
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def test_takes_the_experiment_that_the_environment_names(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine/and yours")
        with Tracker(project) as tracker:
            tracker.open("a").log_text("hello", "hello.txt")
        (run,) = runs(client(project), "mine/and yours")
        assert files(client(project), run) == ["hello.txt"]

    def test_finds_its_files_after_the_project_was_moved(self, project: Project, tmp_path: Path) -> None:
        with Tracker(project) as tracker:
            tracker.open("a").log_text("hello", "hello.txt")
        moved = Project(tmp_path / "moved", tmp_path / "moved")
        shutil.move(project.home, moved.home)
        with Tracker(moved) as tracker:
            tracker.open("b").log_text("hello", "hello.txt")
        for run in runs(client(moved)):
            assert files(client(moved), run) == ["hello.txt"]
        assert not project.home.exists()

    @pytest.mark.slow
    def test_is_made_once_by_processes_that_start_together(self, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path\n"
            "from pipeline.files import Project; from pipeline.tracking import Tracker\n"
            "with Tracker(Project(Path.cwd(), Path.cwd())) as tracker:\n"
            "    tracker.open(sys.argv[1]).log_metrics({'loss': 1.0}, step=1)\n"
        )
        processes = [
            subprocess.Popen([sys.executable, "-c", code, str(number)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
            for number in range(3)
        ]
        assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0)] * 3
        assert [run.info.status for run in runs(MlflowClient(f"sqlite:///{tmp_path}/mlflow.db"))] == ["FINISHED"] * 3


def wait_until(true: Callable[[], object], timeout_s: float = 60, pause_s: float = 0.05) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(pause_s)


@contextmanager
def answering(status: int, body: str) -> Iterator[int]:
    """The port of a server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield http.server_port
        http.shutdown()
        thread.join()


@contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """A real MLflow server with its store in `folder`, killed at the end."""
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (
        (folder / "log").open("ab") as log,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or _answers(port))
            assert process.poll() is None, (folder / "log").read_text()
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _answers(port: int) -> bool:
    try:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
            return True
    except OSError:
        return False
