"""The command `python -m pipeline.report` and its options."""

import sqlite3
import webbrowser
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest
from made_results import Page, write_results
from made_searches import history

from pipeline import report, tracking
from pipeline.cli import INTERRUPTED
from pipeline.files import Project
from pipeline.reporting import search_history


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return write_results(tmp_path)


@pytest.mark.slow
def test_open_opens_the_page_in_the_browser(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or len(opened) == 1)
    assert report.main(["--open"]) == 0
    assert opened == [project.page.as_uri()]
    assert report.main(["--open"]) == 0
    assert "There is no browser to open" in capsys.readouterr().err


def test_watch_follows_a_search_and_leaves_a_page_that_stays(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def sleep(seconds: float) -> None:
        seen.append(project.watch_page.read_text(encoding="utf-8"))
        if len(seen) == 2:
            raise KeyboardInterrupt
        search_history.write(history(12, is_running=True), project.search_history)

    monkeypatch.setattr(report, "time", Mock(sleep=sleep))
    assert report.main(["--watch"]) == INTERRUPTED
    assert all('<meta http-equiv="refresh" content="10">' in page for page in seen)
    assert "No search has been made here yet" in seen[0]
    assert "12 of 12 trials" in seen[1]
    assert 'http-equiv="refresh"' not in project.watch_page.read_text(encoding="utf-8")


def test_watch_shows_a_search_before_the_first_evaluation_and_while_results_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project, seen = Project.here(), list[str]()
    search_history.write(history(12, is_running=True, surface=None), project.search_history)

    def sleep(seconds: float) -> None:
        seen.append(project.watch_page.read_text(encoding="utf-8"))
        if len(seen) == 2:
            write_results(tmp_path)
        elif len(seen) == 3:
            project.history.write_text("torn")
        elif len(seen) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(report, "time", Mock(sleep=sleep))
    assert report.main(["--watch"]) == INTERRUPTED
    for page in (*seen[:2], seen[3], project.watch_page.read_text(encoding="utf-8")):
        text = Page(page).text
        assert "Only the search is shown, as there is no result of a training beside it." in text
        assert "12 of 12 trials" in text
        assert "Is the model good?" not in text
    assert "results/train/run.json is missing: run dvc repro, or python -m pipeline.train." in Page(seen[0]).text
    assert "results/train/history.csv is damaged" in Page(seen[3]).text
    assert "Is the model good?" in seen[2]


def test_watch_without_anything_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "time", Mock(sleep=Mock(side_effect=KeyboardInterrupt)))
    assert report.main(["--watch"]) == INTERRUPTED
    text = Page(Project.here().watch_page.read_text(encoding="utf-8")).text
    assert "No search has been made here yet. python -m pipeline.tune --trials 50 makes one" in text


@pytest.mark.parametrize("options", [["--watch", "--compare", "HEAD"], ["--compare"], ["--wide"]])
def test_options_that_make_no_sense_are_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        report.main(options)
    assert exit.value.code == 2


def test_the_pages_of_runs_are_read_from_the_database(project: Project) -> None:
    assert tracking.run_pages(project) == {}
    with closing(sqlite3.connect(project.root / "mlflow.db")) as database:
        database.executescript(
            "CREATE TABLE runs (run_uuid, experiment_id, lifecycle_stage, start_time);"
            "CREATE TABLE tags (key, value, run_uuid);"
            "INSERT INTO runs VALUES ('f00', 1, 'active', 1), ('bad', 1, 'deleted', 2);"
            "INSERT INTO tags VALUES ('pipeline.key', 'abc', 'f00'), ('pipeline.key', 'gone', 'bad');"
        )
    assert tracking.run_pages(project) == {"abc": "#/experiments/1/runs/f00"}
    with closing(sqlite3.connect(project.root / "mlflow.db")) as database:
        database.execute("DROP TABLE tags")
    assert tracking.run_pages(project) == {}
