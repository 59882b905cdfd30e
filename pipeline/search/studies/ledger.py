"""A study in Optuna's storage: every trial, its epochs, how it ended; and the lock that one owner holds.

A trial that runs or is paused is RUNNING in Optuna. Its user attribute `until` is the epoch of its last order, and
`reached` the last such epoch that it has reached. Values, accuracies and the final state are stored where Optuna's own
tools look for them. The user attributes `ended` (an Outcome) and `why` say how a trial ended.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pipeline.config import Scalar
from pipeline.errors import PipelineError
from pipeline.files import Project, atomic_write
from pipeline.outcome import Outcome
from pipeline.search.schedulers.base import State
from pipeline.search.studies.journal import Damaged, Storage, journal
from pipeline.search.studies.storage import database
from pipeline.search.studies.trials import Trial

CONFIRMATION = ".confirmation"
"""Suffix of a study's name: the study in Optuna in which its best trials are retrained."""


class Owned(PipelineError):
    """Another process owns the study."""


class Ledger:
    """The trials of one study, in memory and in Optuna's storage. A context manager that releases the study's lock."""

    def __init__(self, storage: optuna.storages.BaseStorage, name: str, locks: ExitStack | None = None) -> None:
        """Opens the study `name`, or creates it. `locks` are released with the ledger."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name = name
        self._storage = storage
        self._locks = locks or ExitStack()
        try:
            self._id = storage.get_study_id_from_name(name)
        except KeyError:
            self._id = storage.create_new_study([StudyDirection.MAXIMIZE], name)
        self.about: dict[str, Any] = dict(storage.get_study_user_attrs(self._id))
        """The study's user attributes."""
        self._later: list[Callable[[], object]] = []
        """What is not stored yet, in order."""
        self._puts_off = False
        self._saving: Callable[[], None] = lambda: None
        self.trials: list[Trial] = [_trial_of(frozen) for frozen in self.frozen()]
        """In the order of their numbers."""
        self._values = {_key(trial.values) for trial in self.trials}

    @classmethod
    def open(cls, project: Project, name: str) -> Self:
        """The study `name` of the project, owned by this process.

        Raises Owned, which names the process that owns it; OSError.
        """
        folder = project.study_folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "owner.lock")
        note = folder / "owner.json"
        with ExitStack() as locks:
            try:
                locks.enter_context(lock.acquire(timeout=0))
            except Timeout:
                raise Owned(
                    f"The study {name} is owned by {_owner(note)}: wait until it ends or stop it there. A study of "
                    "another name can run beside it."
                ) from None
            shared = database(project)
            if shared:
                if not shared.own(name):
                    raise Owned(f"The study {name} in {shared} has an owner: wait until it ends or stop it there.")
                locks.callback(shared.release, name)
            since = datetime.now().astimezone().isoformat(" ", timespec="seconds")
            with atomic_write(note) as aside:
                aside.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
            return cls(shared or journal(project.optuna_journal), name, locks.pop_all())
        raise AssertionError  # for mypy: ExitStack might hold an error back

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._locks.close()

    def beside(self, suffix: str) -> "Ledger":
        """Another ledger in the same storage, under this one's lock."""
        return Ledger(self._storage, f"{self.name}{suffix}")

    @property
    def damaged_line(self) -> int | None:
        """The number of the first line of the study that is damaged in Optuna's journal; None if there is none."""
        return self._storage.damaged_line(self._id) if isinstance(self._storage, Storage) else None

    def check(self) -> None:
        """Raises Damaged if a line of the study is damaged in Optuna's journal."""
        if self.damaged_line is not None:
            name = self.name.removesuffix(CONFIRMATION)
            raise Damaged(
                f"Line {self.damaged_line} of optuna.journal is damaged, which is of the study {name}: put a copy of "
                f"the file from before in its place, or delete that study (`python -m pipeline.tune --study {name} "
                "--delete`) and search again. Other studies are not affected."
            )

    def delete(self) -> None:
        """Deletes the study, and the one of its confirmation, from the storage."""
        for name in (self.name, f"{self.name}{CONFIRMATION}"):
            with suppress(KeyError):
                self._storage.delete_study(self._storage.get_study_id_from_name(name))

    @contextmanager
    def putting_off(self, saving: Callable[[], None] = lambda: None) -> Iterator[None]:
        """In the block, what is known of a trial may be stored later: with `save`, and when the block ends.

        New trials and the ends of trials are stored at once. What is stored is always what was known a little earlier.
        `saving` is called before it is stored.
        """
        self._puts_off, self._saving = True, saving
        try:
            yield
        finally:
            self.save()
            self._puts_off, self._saving = False, lambda: None

    def save(self) -> None:
        """Stores what was put off."""
        later, self._later = self._later, []
        if not later:
            return
        self._saving()
        with self._storage.together() if isinstance(self._storage, Storage) else nullcontext():
            for write in later:
                write()

    def _store(self, write: Callable[[], object]) -> None:
        self._later.append(write)
        if not self._puts_off:
            self.save()

    def note(self, **values: Any) -> None:
        """Stores user attributes of the study."""
        for key, value in values.items():
            self._storage.set_study_user_attr(self._id, key, value)
            self.about[key] = value

    def frozen(self) -> list[FrozenTrial]:
        """The trials as Optuna has them, which are not to be changed."""
        self.save()
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def enter(
        self, values: Mapping[str, Scalar], distributions: Mapping[str, BaseDistribution], until: int, **attributes: Any
    ) -> Trial:
        """A new trial of given values with an order until an epoch: stored as a whole or not at all."""
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
        self._values.add(_key(values))
        return self.trials[-1]

    def has(self, values: Mapping[str, Scalar]) -> bool:
        """Whether a trial has these values."""
        return _key(values) in self._values

    def send(self, trial: Trial, until: int) -> None:
        """Stores that a trial is ordered to train until an epoch."""
        self.note_of(trial, "until", until)
        trial.until, trial.state = until, "running"

    def score(self, trial: Trial, epoch: int, accuracy: float) -> None:
        """Stores the accuracy after an epoch, which must be the next one of the trial."""
        self._store(lambda: self._storage.set_trial_intermediate_value(trial.id, epoch, accuracy))
        trial.scores.append(accuracy)
        if trial.crashes:
            self._set_crashes(trial, 0)

    def reach(self, trial: Trial, epoch: int) -> None:
        """Stores that a trial has reached the epoch of an order, after everything up to there is recorded elsewhere.

        The trial is paused, unless it has a new order already.
        """
        self.note_of(trial, "elapsed_s", round(trial.elapsed_s, 3))
        self.note_of(trial, "reached", epoch)
        trial.state = "paused" if epoch == trial.until else "running"

    def crash(self, trial: Trial) -> None:
        """Counts a crash that is followed by a retry."""
        self._set_crashes(trial, trial.crashes + 1)

    def end(self, trial: Trial, outcome: Outcome, why: str | None = None) -> None:
        """Ends a trial for good."""
        self.note_of(trial, "elapsed_s", round(trial.elapsed_s, 3))
        self.note_of(trial, "ended", outcome.value)
        if why:
            self.note_of(trial, "why", why)
        values = [] if outcome.has_failed else trial.scores[-1:]
        if outcome is Outcome.FINISHED and trial.scores[-1] > self.about.get("best", -1.0):
            self.note(best=trial.scores[-1], best_at=len(self.trials))
        self._store(
            lambda: self._storage.set_trial_state_values(trial.id, TrialState[outcome.optuna_state], values or None)
        )
        self.save()
        trial.state, trial.outcome, trial.why = _final_state(outcome), outcome, why

    @property
    def begun_since_best(self) -> int:
        """How many trials have begun since the best one has finished; 0 before one has."""
        return len(self.trials) - int(self.about.get("best_at", len(self.trials)))

    def note_of(self, trial: Trial, key: str, value: Any) -> None:
        """Stores a user attribute of a trial that has not ended."""
        self._store(lambda: self._storage.set_trial_user_attr(trial.id, key, value))
        trial.attributes[key] = value

    def _set_crashes(self, trial: Trial, count: int) -> None:
        self.note_of(trial, "crashes", count)
        trial.crashes = count

    def importances(self) -> dict[str, float]:
        """The importance of each searched key for the accuracy: shares with the sum 1.

        Empty if there are fewer than 4 finished trials, or if they don't differ.
        """
        from optuna.importance import get_param_importances

        if sum(trial.state == "finished" for trial in self.trials) < 4:
            return {}
        try:
            return dict(get_param_importances(optuna.Study(self.name, self._storage)))
        except (RuntimeError, ValueError):
            return {}


def _key(values: Mapping[str, Scalar]) -> frozenset[tuple[str, Scalar]]:
    return frozenset(values.items())


def _trial_of(frozen: FrozenTrial) -> Trial:
    attributes = dict(frozen.user_attrs)
    trial = Trial(
        number=frozen.number,
        values=dict(frozen.params),
        id=frozen._trial_id,
        scores=[frozen.intermediate_values[epoch] for epoch in sorted(frozen.intermediate_values)],
        until=attributes["until"],
        why=attributes.get("why"),
        elapsed_s=attributes.get("elapsed_s", 0.0),
        crashes=attributes.get("crashes", 0),
        attributes=attributes,
    )
    if frozen.state.is_finished():
        trial.outcome = _outcome_of(frozen)
        trial.state = _final_state(trial.outcome)
    else:
        # It may have `ended` already, if its owner was killed before it stored the state: then it is ended again.
        trial.state = "paused" if attributes.get("reached") == trial.until else "running"
    return trial


def _outcome_of(frozen: FrozenTrial) -> Outcome:
    """How a trial ended; one that another tool has ended has no attribute that says it."""
    if "ended" in frozen.user_attrs:
        return Outcome(frozen.user_attrs["ended"])
    by_state = {TrialState.COMPLETE: Outcome.FINISHED, TrialState.PRUNED: Outcome.PRUNED}
    return by_state.get(frozen.state, Outcome.CRASHED)


def _final_state(outcome: Outcome) -> State:
    if outcome.has_failed:
        return "failed"
    return "finished" if outcome is Outcome.FINISHED else "pruned"


def _owner(note: Path) -> str:
    try:
        owner = json.loads(note.read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
