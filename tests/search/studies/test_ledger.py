import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
from searches import SPACE

from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.search.studies.journal import Damaged, journal, mend
from pipeline.search.studies.ledger import Ledger, Owned
from pipeline.search.studies.storage import studies

VALUES = {"train.learning_rate": 0.1, "train.momentum": 0.5}


def opened(path: Path) -> Ledger:
    return Ledger(journal(path), "study")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "optuna.journal"


def test_a_trial_is_read_as_it_was_left(path: Path) -> None:
    ledger = opened(path)
    trial = ledger.enter(VALUES, SPACE.distributions, 3, seed=17)
    for epoch, accuracy in enumerate((0.5, 0.25, 0.75), start=1):
        ledger.score(trial, epoch, accuracy)
    trial.elapsed_s = 1.5
    assert opened(path).trials[0].state == "running"  # not everything is recorded yet
    ledger.reach(trial, 3)
    (again,) = opened(path).trials
    assert again == trial
    assert (again.state, again.scores, again.values, again.attributes["seed"]) == (
        "paused",
        [0.5, 0.25, 0.75],
        VALUES,
        17,
    )
    ledger.send(trial, 9)
    (again,) = opened(path).trials
    assert (again.state, again.until) == ("running", 9)
    ledger.reach(trial, 3)  # an owner records what was reached after the next order
    (again,) = opened(path).trials
    assert (again, again.state, again.until) == (trial, "running", 9)


def test_a_journal_is_locked_by_one_process_and_free_when_that_one_is_killed(path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pipeline.search.studies.journal import journal\n"
        "storage = journal(Path(sys.argv[1]))\n"
        "storage._backend._kernel_lock.acquire()\n"
        "print('locked', flush=True)\n"
        "time.sleep(600)\n"
    )
    opened(path)
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "locked\n"
        noted = threading.Thread(target=lambda: opened(path).note(who="the next one"), daemon=True)
        noted.start()
        noted.join(0.5)
        assert noted.is_alive()
        holder.kill()
        noted.join(60)
    assert not noted.is_alive()
    assert opened(path).about == {"who": "the next one"}


@pytest.mark.parametrize(
    ("outcome", "state", "optuna_state", "value"),
    [
        (Outcome.FINISHED, "finished", "COMPLETE", 0.5),
        (Outcome.PRUNED, "pruned", "PRUNED", 0.5),
        (Outcome.DIVERGED, "failed", "FAIL", None),
        (Outcome.OUT_OF_MEMORY, "failed", "FAIL", None),
        (Outcome.CRASHED, "failed", "FAIL", None),
        (Outcome.TIMED_OUT, "failed", "FAIL", None),
    ],
)
def test_an_end_stands_where_optunas_own_tools_look_for_it(
    path: Path, outcome: Outcome, state: str, optuna_state: str, value: float | None
) -> None:
    ledger = opened(path)
    trial = ledger.enter(VALUES, SPACE.distributions, 3, seed=1)
    ledger.score(trial, 1, 0.5)
    ledger.end(trial, outcome, "because")
    (again,) = opened(path).trials
    assert (again.state, again.outcome, again.why) == (state, outcome, "because")
    (frozen,) = optuna.load_study(study_name="study", storage=journal(path)).trials
    assert (frozen.state.name, frozen.value, frozen.params) == (optuna_state, value, VALUES)
    assert frozen.intermediate_values == {1: 0.5}
    assert frozen.user_attrs["ended"] == outcome.value


def test_crashes_count_until_an_epoch_lies_between_them(path: Path) -> None:
    ledger = opened(path)
    trial = ledger.enter(VALUES, SPACE.distributions, 3, seed=1)
    ledger.crash(trial)
    ledger.crash(trial)
    assert opened(path).trials[0].crashes == 2
    ledger.score(trial, 1, 0.5)
    assert trial.crashes == opened(path).trials[0].crashes == 0


def test_a_trial_is_entered_whole_or_not_at_all(path: Path) -> None:
    ledger = opened(path)
    before = path.read_bytes()
    ledger.enter(VALUES, SPACE.distributions, 3, seed=1)
    line = path.read_bytes()[len(before) :]
    assert line.count(b"\n") == 1
    for cut in range(len(line)):
        path.write_bytes(before + line[:cut])
        assert opened(path).trials == []


def test_a_torn_last_line_is_cut_off_before_anything_is_written_behind_it(path: Path) -> None:
    ledger = opened(path)
    trial = ledger.enter(VALUES, SPACE.distributions, 3, seed=1)
    ledger.score(trial, 1, 0.5)
    with path.open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"torn')
    again = opened(path)
    again.score(again.trials[0], 2, 0.6)
    assert opened(path).trials[0].scores == [0.5, 0.6]
    assert all(json.loads(line) for line in path.read_text().splitlines())


TORN = [b'{"op_code": 4, "wor', b'{"op_code":8,"worker_id":"torn{"op_code":8}', b"\0" * 5000, b"\xff\xfe", b"null", b""]


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("end", [b"\n", b"\n\0\0", b'\n{"op_code"'])
def test_damaged_whole_lines_at_the_end_are_cut_off_too(path: Path, torn: bytes, end: bytes) -> None:
    ledger = opened(path)
    trial = ledger.enter(VALUES, SPACE.distributions, 3, seed=1)
    ledger.score(trial, 1, 0.5)
    before = path.read_bytes()
    path.write_bytes(before + torn + end)
    again = opened(path)
    assert path.read_bytes() == before
    again.score(again.trials[0], 2, 0.6)
    assert opened(path).trials[0].scores == [0.5, 0.6]


@pytest.mark.parametrize("torn", TORN)
def test_a_damaged_line_in_the_middle_that_all_ids_may_depend_on_is_named_with_its_remedy(
    path: Path, torn: bytes
) -> None:
    ledger = opened(path)
    ledger.enter(VALUES, SPACE.distributions, 3, seed=1)
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(first + b"\n" + torn + b"\n" + rest)
    before = path.read_bytes()
    with pytest.raises(Damaged, match=rf"Line 2 of {path} is damaged.*`mv optuna.journal optuna.journal.damaged`"):
        opened(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_journal_is_left_as_it_is(path: Path) -> None:
    path.write_text("trial,accuracy\n1,0.5\n")
    with pytest.raises(Damaged, match="Line 1 of "):
        opened(path)
    assert path.read_text() == "trial,accuracy\n1,0.5\n"


def test_a_damaged_line_of_one_trial_leaves_the_other_studies_usable(path: Path) -> None:
    damaged, sound = Ledger(journal(path), "damaged"), Ledger(journal(path), "sound")
    for ledger in (damaged, sound):
        trial = ledger.enter(VALUES, SPACE.distributions, 3, seed=1)
        ledger.score(trial, 1, 0.5)
    lines = path.read_bytes().splitlines()
    number = next(n for n, line in enumerate(lines) if b'"op_code":7' in line and b'"trial_id":0' in line)
    path.write_bytes(b"\n".join([*lines[:number], lines[number][:-9] + b"\0" * 9, *lines[number + 1 :], b""]))
    again = Ledger(journal(path), "sound")
    again.check()
    again.score(again.trials[0], 2, 0.6)
    assert Ledger(journal(path), "sound").trials[0].scores == [0.5, 0.6]
    with pytest.raises(Damaged, match=rf"Line {number + 1} of optuna.journal.*--study damaged --delete"):
        Ledger(journal(path), "damaged").check()
    Ledger(journal(path), "damaged").delete()
    assert [study.study_name for study in journal(path).get_all_studies()] == ["sound"]


@pytest.mark.parametrize("torn", [b"", b"x", b"x" * 200_000])
@pytest.mark.parametrize("whole", [b"", b"{}\n", b"{}\n" * 50_000])
def test_mending_keeps_all_whole_lines_of_files_of_any_size(tmp_path: Path, whole: bytes, torn: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(whole + torn)
    mend(path)
    assert path.read_bytes() == whole


def test_a_write_that_fails_leaves_no_half_a_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = opened(path)
    trial = ledger.enter(VALUES, SPACE.distributions, 3, seed=1)
    before = path.read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        # What Optuna's journal does when the disk is full: part of a line, then an error.
        patch.setattr(json, "dumps", lambda *_, **__: "half a line\nand half another")
        with pytest.raises(OSError, match="No space left"):
            ledger.score(trial, 1, 0.5)
    after = path.read_bytes()
    assert after.startswith(before)
    assert after.endswith(b"\n")


def test_a_second_owner_is_refused_with_the_name_of_the_first(project: Project) -> None:
    with Ledger.open(project, "night"):
        code = (
            "from pipeline.files import Project\nfrom pipeline.search.studies.ledger import Ledger, Owned\n"
            "try:\n    Ledger.open(Project.here(), 'night')\nexcept Owned as error:\n    print(error)\n"
            "with Ledger.open(Project.here(), 'day'):\n    print('free')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=project.root, capture_output=True, text=True, check=True
        )
    refused, free = done.stdout.splitlines()
    assert f"The study night is owned by process {os.getpid()} on " in refused
    assert "another name" in refused
    assert free == "free"
    with Ledger.open(project, "night"):
        pass


def test_studies_are_named_and_deleted_with_their_confirmation(project: Project) -> None:
    assert list(studies(project)) == []
    with Ledger.open(project, "a") as ledger:
        ledger.beside(".confirmation")
        ledger.note(key="x")
    with Ledger.open(project, "b"):
        pass
    assert sorted(studies(project)) == ["a", "a.confirmation", "b"]
    with Ledger.open(project, "a") as ledger:
        assert ledger.about == {"key": "x"}
        ledger.delete()
    assert list(studies(project)) == ["b"]


def test_owned_is_an_error_that_a_user_can_act_on() -> None:
    from pipeline.errors import PipelineError

    assert issubclass(Owned, PipelineError)


def test_what_is_put_off_is_stored_in_one_go_and_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = opened(path)
    trial = ledger.enter(VALUES, SPACE.distributions, 3, seed=1)
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), sync(file)))
    with ledger.putting_off():
        for epoch in (1, 2, 3):
            ledger.score(trial, epoch, 0.1 * epoch)
        ledger.reach(trial, 3)
        assert opened(path).trials[0].scores == []
        ledger.save()
        assert len(synced) == 1
        assert opened(path).trials == [trial]
        ledger.send(trial, 9)
        ledger.score(trial, 4, 0.4)
    assert opened(path).trials == [trial]
    assert len(synced) == 2


def test_the_end_of_a_trial_is_stored_at_once(path: Path) -> None:
    ledger = opened(path)
    trial = ledger.enter(VALUES, SPACE.distributions, 3, seed=1)
    with ledger.putting_off():
        ledger.score(trial, 1, 0.5)
        ledger.end(trial, Outcome.PRUNED)
        assert opened(path).trials[0].outcome is Outcome.PRUNED
        assert opened(path).trials[0].scores == [0.5]
