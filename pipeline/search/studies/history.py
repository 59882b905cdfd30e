"""What the report needs of a study: its events, kept beside its trials, and the file results/tune/history.json."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.config import Axis, Choices, Config
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.records import Epoch
from pipeline.reporting import search_history
from pipeline.reporting.search_history import Event, Key, SearchHistory, TrialHistory
from pipeline.search.engines.base import Failed, TargetReached
from pipeline.search.space.space import Space
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.ranking import ranking
from pipeline.search.studies.surface import surface
from pipeline.search.studies.trials import Trial
from pipeline.search.studies.watcher import Watcher

EVENTS = "events.jsonl"
LEAST_S = 5.0
"""Between two writes of a running study; a write that takes long is followed by a pause 50 times as long."""


@dataclass
class Chronicle(Watcher):
    """Appends each event of a phase to the study's folder, and has the history written from time to time."""

    folder: Path
    """Of the study."""
    phase: str
    """trial or confirm"""
    save: Callable[[], None]
    """Writes the history."""
    _next_s: float = 0.0
    _is_due: bool = False

    def sent(self, trial: Trial, settings: Config) -> None:
        self._note(trial, "sent", trial.until)

    def trained(self, trial: Trial, epoch: Epoch) -> None:
        self._note(trial, "epoch", epoch.number)

    def reached(self, trial: Trial, reached: TargetReached) -> None:
        self._note(trial, "reached", reached.epoch)

    def ended(self, trial: Trial, outcome: Outcome, why: str | None) -> None:
        self._note(trial, "ended", len(trial.scores))

    def failed(self, trial: Trial, failed: Failed) -> None:
        self._note(trial, "failed", len(trial.scores))

    def stopped(self, trial: Trial) -> None:
        self._note(trial, "stopped", len(trial.scores))

    def tick(self) -> None:
        if self._is_due and time.monotonic() >= self._next_s:
            began_s = time.monotonic()
            self.save()
            self._is_due = False
            self._next_s = time.monotonic() + max(LEAST_S, 50 * (time.monotonic() - began_s))

    def _note(self, trial: Trial, kind: str, epoch: int) -> None:
        event = Event(round(time.time(), 2), self.phase, trial.number, kind, epoch)
        with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(asdict(event)))  # the newline comes first, as in epochs.py
        self._is_due = True


def events(folder: Path) -> list[Event]:
    """Those in a study's folder, in the order of time."""
    found = []
    with suppress(FileNotFoundError), (folder / EVENTS).open(encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError, TypeError):  # a line that a kill tore
                found.append(Event(**json.loads(line)))
    return sorted(found, key=lambda event: event.at_s)


def save(
    project: Project, search: Ledger, confirmation: Ledger | None, space: Space, settings: Config, *, is_running: bool
) -> None:
    """Writes results/tune/history.json; of a running study without importances and surface, as they take long."""
    candidates = ranking(search, confirmation)
    history = SearchHistory(
        study=search.name,
        key=search.about.get("key", ""),
        created=search.about.get("created"),
        elapsed_s=search.about.get("elapsed_s", 0.0),
        epochs=settings.train.epochs,
        trials_wanted=settings.tune.trials,
        scheduler=settings.tune.scheduler,
        is_running=is_running,
        keys=[_key(name, axis) for name, axis in space.axes.items()],
        importances={} if is_running else search.importances(),
        trials=[_trial(trial) for trial in search.trials],
        confirmation=[_trial(trial) for trial in confirmation.trials] if confirmation else [],
        winner=candidates[0].trial.number if candidates else None,
        events=events(project.study_folder(search.name)),
    )
    if not is_running:
        history = replace(history, surface=surface(history, [trial.view for trial in search.trials], space))
    search_history.write(history, project.search_history)


def figures(project: Project) -> dict[str, bytes]:
    """The report's pictures of the search in history.json as PNG images by name. One that lacks data is missing."""
    from pipeline.reporting import search_drawings, search_pictures

    history = search_history.read(project.search_history)
    return search_drawings.of_search(search_pictures.as_data(history, {})) if isinstance(history, SearchHistory) else {}


def _key(name: str, axis: Axis) -> Key:
    if isinstance(axis, Choices):
        return Key(name, choices=list(axis.choices))
    steps = [axis.value(step) for step in range(axis.count)] if axis.step else None
    return Key(name, axis.log, steps)


def _trial(trial: Trial) -> TrialHistory:
    return TrialHistory(
        number=trial.number,
        state=trial.state,
        ended=trial.status,
        values=dict(trial.values),
        scores=[round(score, 6) for score in trial.scores],
        seed=trial.attributes.get("seed"),
        elapsed_s=round(trial.elapsed_s, 3),
        why=trial.why,
        of=trial.attributes.get("of"),
    )
