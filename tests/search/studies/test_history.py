from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from searches import EPOCHS, SPACE, owner

from pipeline.config import Config
from pipeline.files import Project
from pipeline.reporting import search_history
from pipeline.reporting.search_history import SearchHistory
from pipeline.search.studies import history
from pipeline.search.studies.ledger import Ledger


@pytest.fixture
def searched(tmp_path: Path, settings: Config) -> tuple[Project, Ledger, list[int]]:
    """A search that a chronicle has watched, and how many trials there were at each save."""
    project = Project(tmp_path, tmp_path)
    ledger, saves = Ledger(InMemoryStorage(), "study"), list[int]()
    folder = project.study_folder("study")
    folder.mkdir(parents=True)

    def save() -> None:
        saves.append(len(ledger.trials))
        history.save(project, ledger, None, SPACE, settings, is_running=True)

    one = owner(folder, ledger=ledger)
    one.watchers = (*one.watchers, history.Chronicle(folder, "trial", save))
    assert one.run()
    return project, ledger, saves


def read(project: Project) -> SearchHistory:
    found = search_history.read(project.search_history)
    assert isinstance(found, SearchHistory), found
    return found


def test_the_history_has_every_trial_and_every_epoch(
    searched: tuple[Project, Ledger, list[int]], settings: Config
) -> None:
    project, ledger, saves = searched
    assert saves  # while it ran, so that a page can follow it
    assert read(project).is_running
    history.save(project, ledger, None, SPACE, settings, is_running=False)
    found = read(project)
    assert not found.is_running
    assert [trial.values for trial in found.trials] == [trial.values for trial in ledger.trials]
    assert [trial.ended for trial in found.trials] == [trial.status for trial in ledger.trials]
    assert [len(trial.scores) for trial in found.trials] == [len(trial.scores) for trial in ledger.trials]
    assert {key.name: key.log for key in found.keys} == {"train.learning_rate": True, "train.momentum": False}
    epochs = [(event.trial, event.epoch) for event in found.events if event.kind == "epoch"]
    assert sorted(epochs) == [
        (trial.number, epoch) for trial in ledger.trials for epoch in range(1, len(trial.scores) + 1)
    ]
    assert max(epoch for _, epoch in epochs) == EPOCHS
    assert [event.at_s for event in found.events] == sorted(event.at_s for event in found.events)


def test_a_line_that_a_kill_tore_is_left_out(searched: tuple[Project, Ledger, list[int]]) -> None:
    project, *_ = searched
    folder = project.study_folder("study")
    whole = history.events(folder)
    path = folder / history.EVENTS
    path.write_text(path.read_text()[:-9])
    assert history.events(folder) == whole[:-1]
    assert history.events(folder / "nowhere") == []


def test_a_study_without_trials_has_a_history(tmp_path: Path, settings: Config) -> None:
    project = Project(tmp_path, tmp_path)
    history.save(project, Ledger(InMemoryStorage(), "empty"), None, SPACE, settings, is_running=False)
    found: Any = read(project)
    assert (found.trials, found.events, found.winner) == ([], [], None)
