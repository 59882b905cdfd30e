"""Studies in PostgreSQL."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from extras import needed
from places import QUICK_STUDY
from postgres import Server, free_port, postgres

from pipeline import config
from pipeline.audit.reproduction import Request, reproduced
from pipeline.files import Project
from pipeline.findings import Finding, Weight
from pipeline.outcome import Outcome
from pipeline.search.studies import health
from pipeline.search.studies.database import Database
from pipeline.search.studies.ledger import Ledger, Owned
from pipeline.search.studies.storage import studies

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("postgres")]


@pytest.fixture(scope="module")
def _server() -> Iterator[Server]:
    needed("psycopg")
    with postgres() as server:
        yield server


@pytest.fixture
def server(_server: Server, project: Project) -> Server:
    """A running server whose address stands in the project's params.yaml."""
    if _server.process is None:
        _server.start()
    config.write_values(project.params, {"tune.storage": _server.url})
    return _server


def test_what_a_ledger_stores_is_there_for_the_next_owner(server: Server, project: Project) -> None:
    with Ledger.open(project, "night") as ledger:
        ledger.note(key="abc")
        trial = ledger.enter({}, {}, until=3, seed=5)
        for epoch, accuracy in enumerate((0.5, 0.6, 0.7), 1):
            ledger.score(trial, epoch, accuracy)
        ledger.reach(trial, 3)
        with pytest.raises(Owned, match="The study night"):
            Ledger.open(project, "night")
        ledger.end(trial, Outcome.FINISHED)
    assert list(studies(project)) == ["night"]
    assert not project.optuna_journal.exists()
    with Ledger.open(project, "night") as again:
        assert again.about["key"] == "abc"
        (found,) = again.trials
        assert (found.scores, found.outcome, found.attributes["seed"]) == ([0.5, 0.6, 0.7], Outcome.FINISHED, 5)
        again.delete()


def test_the_lock_of_a_killed_owner_on_another_machine_is_free_at_once(
    server: Server, project: Project, tmp_path: Path
) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom pipeline.files import Project\n"
        "from pipeline.search.studies.ledger import Ledger\n"
        "home = Path(sys.argv[1])\nledger = Ledger.open(Project(home, home), 'night')\n"
        "print('owned', flush=True)\ntime.sleep(600)\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "params.yaml").write_bytes(project.params.read_bytes())
    owner = subprocess.Popen([sys.executable, "-c", script, str(elsewhere)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    assert owner.stdout.readline() == "owned\n"
    with pytest.raises(Owned, match=r"The study night in postgresql\+psycopg://pipeline@127.0.0.1:\d+/postgres has"):
        Ledger.open(project, "night")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 20
    while True:
        try:
            with Ledger.open(project, "night") as ledger:
                ledger.delete()
            break
        except Owned:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_the_doctor_looks_at_the_database_and_says_who_is_owned_and_when_it_is_away(
    server: Server, project: Project
) -> None:
    def found() -> list[Finding]:
        return [one for one in health.studies(project) if isinstance(one, Finding)]

    with Ledger.open(project, "doctored") as ledger:
        ledger.note(key="abc")
        ledger.enter({}, {}, until=3, seed=5)
        assert [one.what.partition(" in postgresql")[0] for one in found()] == ["the study doctored"]
        assert found()[0].what.endswith("has an owner, here or on another machine")
    assert [one.what for one in found()] == ["the study doctored was stopped, with 1 trial under way"]
    with Ledger.open(project, "doctored") as ledger:
        ledger.delete()
    empty = server.database("empty")
    config.write_values(project.params, {"tune.storage": empty})
    assert not found()
    assert Database.is_new(empty), "the doctor changes nothing"
    config.write_values(project.params, {"tune.storage": server.url.replace(str(server.port), str(free_port()))})
    (away,) = found()
    assert (away.weight, away.where) == (Weight.ERROR, "tune.storage")
    assert "can't be used: " in away.what


def test_an_owner_waits_for_a_database_that_is_away_and_loses_nothing(
    server: Server, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    with Ledger.open(project, "night") as ledger:
        first = ledger.enter({}, {}, until=1, seed=1)
        server.stop()
        threading.Timer(2.0, server.start).start()
        second = ledger.enter({}, {}, until=1, seed=2)
        ledger.score(first, 1, 0.5)
        ledger.end(first, Outcome.FINISHED)
        ledger.score(second, 1, 0.25)
        assert "does not answer; waiting for it" in capfd.readouterr().err
        with pytest.raises(Owned):
            Ledger.open(project, "night")
    with Ledger.open(project, "night") as again:
        assert [(trial.scores, trial.attributes["seed"]) for trial in again.trials] == [([0.5], 1), ([0.25], 2)]
        again.delete()


def test_a_database_that_can_not_be_used_is_a_sentence_without_the_password(project: Project) -> None:
    url = f"postgresql+psycopg://me@127.0.0.1:{free_port()}/none"
    config.write_values(project.params, {"tune.storage": url})
    command = [sys.executable, "-m", "pipeline.tune", "--trials", "1"]
    environment = os.environ | {"PGPASSWORD": "sesame"}
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 1
    assert "error: tune.storage: postgresql+psycopg://me@127.0.0.1" in done.stderr
    assert "sesame" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("one_thread")
def test_a_search_goes_on_when_its_database_was_away_and_its_trials_repeat(server: Server, project: Project) -> None:
    command = [sys.executable, "-m", "pipeline.tune", "--trials", "5", *QUICK_STUDY, "--set", "train.epochs=12"]
    with (project.root / "log").open("wb") as log:
        owner = subprocess.Popen(command, cwd=project.root, stdout=log, stderr=log, env=dict(os.environ))
        deadline = time.monotonic() + 60
        while not list((project.home / ".studies").rglob("epochs.jsonl")):
            assert owner.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server.stop()
        time.sleep(2)
        server.start()
        assert owner.wait(timeout=200) == 0, (project.root / "log").read_text()
    with Ledger.open(project, "main") as ledger:
        assert len(ledger.trials) == 5
        assert {trial.state for trial in ledger.trials} <= {"finished", "pruned"}
    for number in range(5):
        assert reproduced(project, Request(None, "main", number), lambda about: None)["verdict"] == "identical"
