"""A study in Optuna's storage: every trial, where it stands, how it ended; and the lock that one owner holds.

A trial that runs or is paused is RUNNING in Optuna, with the epoch that it was sent to as its user attribute `until`,
and as `reached` once it is there. Its values, the accuracy after each epoch and its end stand where Optuna's
own tools look for them; `ended` and `why` say how it ended in the project's words.
"""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pipeline.config import Scalar
from pipeline.errors import PipelineError
from pipeline.files import Project, atomic_write
from pipeline.search.schedulers.base import TrialView
from pipeline.search.studies.journal import journal

State = Literal["running", "paused", "pruned", "finished", "failed"]
ENDINGS: Mapping[str, tuple[State, TrialState]] = {
    "finished": ("finished", TrialState.COMPLETE),
    "pruned": ("pruned", TrialState.PRUNED),
    "diverged": ("failed", TrialState.FAIL),
    "out of memory": ("failed", TrialState.FAIL),
    "crashed": ("failed", TrialState.FAIL),
    "timed out": ("failed", TrialState.FAIL),
}
INFEASIBLE = ("diverged", "out of memory")
"""Endings that lie in the values: samplers keep away from them."""


CONFIRMATION = ".confirmation"
"""Behind the name of a study: the study in Optuna that its best trials are trained again in."""


class Owned(PipelineError):
    """Another process owns the study."""


@dataclass
class Trial:
    """A trial as its owner knows it."""

    number: int
    values: dict[str, Scalar]
    id: int = field(repr=False)
    """Optuna's."""
    scores: list[float] = field(default_factory=list)
    """Validation accuracy, 0..1, after each epoch so far."""
    until: int = 0
    state: State = "running"
    ended: str | None = None
    why: str | None = None
    elapsed_s: float = 0.0
    """Of training, up to the last epoch."""
    crashes: int = 0
    """In a row, without an epoch between them."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """What else was noted."""

    @property
    def seen(self) -> TrialView:
        return TrialView(self.number, self.values, tuple(self.scores), self.state, self.until)


class Ledger:
    """The trials of one study, in memory and in Optuna's storage. A context manager: it lets go of the study."""

    def __init__(self, storage: optuna.storages.BaseStorage, name: str, lock: FileLock | None = None) -> None:
        """Opens or makes the study `name`."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name = name
        self._storage = storage
        self._lock = lock
        try:
            self._id = storage.get_study_id_from_name(name)
        except KeyError:
            self._id = storage.create_new_study([StudyDirection.MAXIMIZE], name)
        self.about: dict[str, Any] = dict(storage.get_study_user_attrs(self._id))
        """What was noted of the study."""
        self.trials: list[Trial] = []
        """In the order of their numbers."""
        self.trials += [_taken_up(frozen) for frozen in storage.get_all_trials(self._id, deepcopy=False)]

    @classmethod
    def open(cls, project: Project, name: str) -> Self:
        """The study `name` in the project's journal, owned by this process.

        Raises Owned, which names the process that has it; OSError.
        """
        folder = project.study_folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "owner.lock")
        note = folder / "owner.json"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Owned(
                f"The study {name} is owned by {_owner(note)}: wait until it ends or stop it there. A study of "
                "another name can run beside it."
            ) from None
        since = datetime.now().astimezone().isoformat(" ", timespec="seconds")
        with atomic_write(note) as aside:
            aside.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        return cls(journal(project.optuna_journal), name, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.release()

    def beside(self, suffix: str) -> "Ledger":
        """Another ledger in the same storage, under this one's lock."""
        return Ledger(self._storage, f"{self.name}{suffix}")

    def delete(self) -> None:
        """Deletes the study, and the one of its confirmation, from the storage."""
        for name in (self.name, f"{self.name}{CONFIRMATION}"):
            with suppress(KeyError):
                self._storage.delete_study(self._storage.get_study_id_from_name(name))

    def note(self, **values: Any) -> None:
        """Keeps values with the study."""
        for key, value in values.items():
            self._storage.set_study_user_attr(self._id, key, value)
            self.about[key] = value

    @property
    def study(self) -> optuna.Study:
        """For samplers."""
        return optuna.Study(self.name, self._storage)

    def enter(
        self, values: Mapping[str, Scalar], distributions: Mapping[str, BaseDistribution], until: int, **attributes: Any
    ) -> Trial:
        """A new trial of given values, sent to the epoch `until`: whole or not at all."""
        template = FrozenTrial(
            number=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params=dict(values),
            distributions={name: distributions[name] for name in values},
            user_attrs={**attributes, "until": until},
            system_attrs={},
            intermediate_values={},
            trial_id=-1,
        )
        id = self._storage.create_new_trial(self._id, template)
        notes = {**attributes, "until": until}
        self.trials.append(Trial(len(self.trials), dict(values), id, until=until, attributes=notes))
        return self.trials[-1]

    def send(self, trial: Trial, until: int) -> None:
        """Notes that a trial is to be trained until an epoch."""
        self.note_of(trial, "until", until)
        trial.until, trial.state = until, "running"

    def score(self, trial: Trial, epoch: int, accuracy: float) -> None:
        """Reports the accuracy after an epoch, the one after those reported."""
        self._storage.set_trial_intermediate_value(trial.id, epoch, accuracy)
        trial.scores.append(accuracy)
        if trial.crashes:
            self._set_crashes(trial, 0)

    def reach(self, trial: Trial, epoch: int) -> None:
        """Notes that a trial was at an epoch that it was sent to, and that all that there is to record of it is
        recorded. It is paused there, unless it was sent further meanwhile."""
        self.note_of(trial, "elapsed_s", round(trial.elapsed_s, 3))
        self.note_of(trial, "reached", epoch)
        trial.state = "paused" if epoch == trial.until else "running"

    def crash(self, trial: Trial) -> None:
        """Counts a crash that is to be followed by another try."""
        self._set_crashes(trial, trial.crashes + 1)

    def end(self, trial: Trial, ended: str, why: str | None = None) -> None:
        """Ends a trial for good."""
        self.note_of(trial, "elapsed_s", round(trial.elapsed_s, 3))
        self.note_of(trial, "ended", ended)
        if why:
            self.note_of(trial, "why", why)
        state, optuna_state = ENDINGS[ended]
        values = trial.scores[-1:] if state in ("finished", "pruned") else []
        self._storage.set_trial_state_values(trial.id, optuna_state, values or None)
        trial.state, trial.ended, trial.why = state, ended, why

    def note_of(self, trial: Trial, key: str, value: Any) -> None:
        """Keeps a value with a trial that has not ended."""
        self._storage.set_trial_user_attr(trial.id, key, value)
        trial.attributes[key] = value

    def _set_crashes(self, trial: Trial, count: int) -> None:
        self.note_of(trial, "crashes", count)
        trial.crashes = count

    def importances(self) -> dict[str, float]:
        """Share of each searched key in the differences of accuracy; empty for too few trials or no difference."""
        from optuna.importance import get_param_importances

        if sum(trial.state == "finished" for trial in self.trials) < 4:
            return {}
        try:
            return dict(get_param_importances(self.study))
        except (RuntimeError, ValueError):
            return {}

    def times(self) -> dict[int, tuple[datetime | None, datetime | None]]:
        """When each trial began and ended, by number."""
        return {
            frozen.number: (frozen.datetime_start, frozen.datetime_complete)
            for frozen in self._storage.get_all_trials(self._id, deepcopy=False)
        }


def _taken_up(frozen: FrozenTrial) -> Trial:
    attributes = dict(frozen.user_attrs)
    ended = attributes.get("ended")
    trial = Trial(
        number=frozen.number,
        values=dict(frozen.params),
        id=frozen._trial_id,
        scores=[frozen.intermediate_values[epoch] for epoch in sorted(frozen.intermediate_values)],
        until=attributes["until"],
        ended=ended,
        why=attributes.get("why"),
        elapsed_s=attributes.get("elapsed_s", 0.0),
        crashes=attributes.get("crashes", 0),
        attributes=attributes,
    )
    if frozen.state.is_finished():
        trial.ended = ended or {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}.get(
            frozen.state, "crashed"
        )
        trial.state = ENDINGS[trial.ended][0]
    else:
        # An owner that was killed between the note and the state ends it again.
        trial.ended = None
        trial.state = "paused" if attributes.get("reached") == trial.until else "running"
    return trial


def studies(project: Project) -> Sequence[str]:
    """Names of the studies in the project's journal."""
    if not project.optuna_journal.is_file():
        return []
    return optuna.get_all_study_names(journal(project.optuna_journal))


def _owner(note: Path) -> str:
    try:
        owner = json.loads(note.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
