"""pipeline.tracking.outbox: what survives kills and a full disk, and what the next process does with it."""

import json
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mlflow_runs import client, history, only_run, runs
from recordings import assert_has_everything, record_everything, unsent_run

from pipeline.errors import TrackingError
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.tracking import Timing, Tracker
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.outbox import PART, Held, Operation, Outbox, sweep
from pipeline.tracking.parts import Parts
from pipeline.tracking.store import Store


def test_an_outbox_whose_process_was_killed_while_creating_or_removing_it_leaves_nothing(project: Project) -> None:
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


def test_an_outbox_that_was_sent_is_removed_by_the_next_process(project: Project) -> None:
    run, outbox = unsent_run(project, "a")
    run.finish(Outcome.FINISHED)
    outbox.sent(len(outbox.peek()))
    outbox.close()
    with Tracker(project) as tracker:
        assert not tracker.send_leftovers()
    assert not list(project.outbox.iterdir())


def test_operations_that_are_delivered_twice_have_the_effect_of_once(project: Project, tmp_path: Path) -> None:
    run, outbox = unsent_run(project, "a")
    record_everything(run, tmp_path)
    lines = [json.loads(line) for line in outbox.journal.read_text().splitlines()]
    assert outbox.opening
    for _ in range(2):
        delivery = Delivery(Store.of(project))  # another process knows nothing of this one
        delivery.connect()
        for line in lines:
            for _ in range(2):
                delivery.deliver(outbox.folder, outbox.opening, [Operation(**line)])
    outbox.close()
    assert_has_everything(client(project), only_run(project))


def test_a_journal_that_a_crash_cut_at_any_byte_of_its_last_line_is_readable(tmp_path: Path) -> None:
    whole = Outbox(tmp_path / "whole@0", 0)
    whole.append("metrics", values={"loss": 1.0}, step=1)
    size = whole.journal.stat().st_size
    whole.append("metrics", values={"loss": 0.5}, step=2)
    whole.close()
    content = whole.journal.read_bytes()
    for length in range(size, len(content)):
        (tmp_path / "cut@0").mkdir()
        (tmp_path / "cut@0" / "journal.jsonl").write_bytes(content[:length])
        repaired = Outbox(tmp_path / "cut@0", 0)
        assert repaired.recorded_count == 1
        repaired.append("metrics", values={"loss": 0.25}, step=3)
        steps = []
        while waiting := repaired.peek():
            steps.append(waiting[0].content["step"])
            repaired.sent(1)
        assert steps == [1, 3]
        repaired.remove()


def test_an_outbox_without_its_journal_counts_as_removed(tmp_path: Path) -> None:
    folder = tmp_path / "a@0"
    folder.mkdir()
    (folder / "sent").write_text("1")
    outbox = Outbox(folder, 0)
    outbox.append("metrics", values={"loss": 1.0}, step=1)
    outbox.close()
    again = Outbox(folder, 0)
    assert again.waiting == 1
    again.close()


def test_a_full_disk_is_an_error_and_leaves_the_journal_readable(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "a@0", 0)
    outbox.append("metrics", values={"loss": 1.0}, step=1)

    # No file may grow by more than 7 bytes: what a full disk is to a program.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (outbox.journal.stat().st_size + 7, hard))
    try:
        with pytest.raises(TrackingError, match="the disk is full"):
            outbox.append("metrics", values={"loss": 1.0}, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    outbox.append("metrics", values={"loss": 1.0}, step=3)
    outbox.close()
    again = Outbox(tmp_path / "a@0", 0)
    again.close()
    assert outbox.recorded_count == again.recorded_count == 2


def test_an_outbox_is_refused_to_a_second_process_by_the_name_of_the_first(
    project: Project,
) -> None:
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
                Tracker(project, timing=Timing(holder_s=0.2)) as tracker,
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


def test_the_outbox_of_a_killed_process_is_continued_and_the_run_is_the_same(project: Project) -> None:
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
        for step in range(1, 10):  # some again
            run.log_metrics({"train.loss": 1 / step}, step=step)
    run_after = only_run(project)
    recorded = history(client(project), run_after, "train.loss")
    assert recorded == [(step, 1 / step) for step in range(1, max(9, len(recorded)) + 1)]
    assert (run_after.info.status, run_after.data.params) == ("FINISHED", {"train.epochs": "9"})


def test_the_outbox_of_a_dead_process_is_sent_and_its_run_ended_as_interrupted(project: Project) -> None:
    run, outbox = unsent_run(project, "dead")
    run.log_metrics({"train.loss": 1.0}, step=1)
    outbox.close()
    with Tracker(project) as tracker:
        living = tracker.open("living")
        tracker.send_leftovers()
        living.finish(Outcome.FINISHED)
    dead, living_after = runs(client(project))
    assert (dead.info.status, dead.data.tags["ended"]) == ("KILLED", "interrupted")
    assert dead.data.metrics == {"train.loss": 1.0}
    assert living_after.info.status == "FINISHED"
    assert list(project.outbox.iterdir()) == []


def test_a_new_part_waits_while_the_sending_process_takes_its_lock_for_a_remnant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    folder = tmp_path / "key@store"
    taken = Outbox(folder.with_name(f"{folder.name}{PART}1"), wait_s=0)
    release = threading.Timer(0.3, taken.remove)
    release.start()
    parts = Parts(folder, wait_s=5, key="key")
    release.join()
    assert parts.folder == taken.folder
    assert parts.folder.is_dir()
    parts.close()
