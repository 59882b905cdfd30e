"""The owner of a study: it asks, sends trials to workers, records what comes back, and decides what follows.

It alone writes to Optuna's storage and, through its watchers, to MLflow. It keeps nothing that is not on disk too, so
that one that is killed at any instant is followed by one that goes on.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import Config
from pipeline.records import Epoch
from pipeline.search.engines.base import Began, Engine, EpochDone, Failed, Message, Order, Paused, TargetReached
from pipeline.search.schedulers.base import RemainingBudget, Resume, Scheduler, Start
from pipeline.search.studies.ledger import Ledger, Trial
from pipeline.search.studies.proposals import TrialSource

POLL_S = 0.25
"""How long a wish to stop, or a time limit, may wait for the owner to look."""


class Watcher:
    """Is told what happens, before Optuna's storage is: what it records is never behind.

    Workers don't wait for it: where one is free, its next order is out before the watchers hear what it has reached.
    """

    def sent(self, trial: Trial, settings: Config) -> None:
        """The trial is on its way to a worker, for the first time or again."""

    def trained(self, trial: Trial, epoch: Epoch) -> None:
        """An epoch is over."""

    def reached(self, trial: Trial, reached: TargetReached) -> None:
        """The trial is at the epoch that it was sent to; it pauses there unless `ended` follows."""

    def ended(self, trial: Trial, ended: str, why: str | None) -> None:
        """For good."""

    def failed(self, trial: Trial, failed: Failed) -> None:
        """The trial crashed or took too long, and is tried again."""

    def stopped(self, trial: Trial) -> None:
        """The study stops while the trial is under way; it goes on at the next start."""

    def tick(self) -> None:
        """Called several times a second."""


@dataclass(frozen=True)
class Limits:
    """What a study may spend, and how patient it is."""

    budget: float = math.inf
    """Full trainings."""
    retries: int = 0
    """How often a trial that crashed or took too long is tried again before it has got an epoch further."""
    trial_timeout_s: float = math.inf
    """Of training in all, with an epoch that does not end."""
    epoch_timeout_s: float = math.inf
    checkpoint_bytes: float = math.inf
    """What paused trials may keep on disk, all together."""


@dataclass
class _Flight:
    """A trial that a worker has."""

    trial: Trial
    began: bool = False
    """False while the worker still starts."""
    last_s: float = 0.0
    """When it was heard of last."""


@dataclass
class Owner:
    """Runs one study on an engine."""

    ledger: Ledger
    source: TrialSource
    scheduler: Scheduler
    engine: Engine
    config_of: Callable[[Trial], Config]
    epochs: int
    """Of a full training."""
    folder: Path
    """A folder a trial is made in it."""
    limits: Limits = Limits()
    keep_models: bool = False
    """Whether trials leave their weights where they pause too."""
    watchers: Sequence[Watcher] = ()
    stopping: bool = False
    halting: bool = False
    _flights: dict[int, _Flight] = field(default_factory=dict)
    _waiting: deque[Trial] = field(default_factory=deque)
    """To be sent before anything is decided: interrupted trials, and those tried again."""
    _reached: deque[tuple[Trial, TargetReached]] = field(default_factory=deque)
    """To be recorded. Decisions see it already; to an owner that follows, these trials are on their way."""
    _sent: deque[tuple[Trial, Config]] = field(default_factory=deque)
    """To be told to the watchers, after what was reached before."""
    _settings: dict[int, Config] = field(default_factory=dict)
    """Of trials that may go on, by number."""
    _sizes: dict[int, int] = field(default_factory=dict)
    """Bytes of the checkpoints of trials that have paused, by number."""

    def __post_init__(self) -> None:
        for trial in self.ledger.trials:
            if trial.state == "running":
                self._waiting.append(trial)
            elif trial.state == "paused":
                self._weigh(trial)
            else:
                self._clear(trial)

    def run(self) -> bool:
        """Runs until the study is over, and returns True; False if `stop` or `halt` came first.

        Raises Stuck, and OSError for a disk that is full: all that was recorded stays, and the next owner goes on.
        """
        try:
            return self._run()
        finally:
            unrecorded = [trial for trial, _ in self._reached]
            for trial in self.ledger.trials:
                if trial.state == "running" or trial in unrecorded:
                    for watcher in self.watchers:
                        watcher.stopped(trial)

    def _run(self) -> bool:
        while True:
            if not self.stopping:
                self._dispatch()
            self._record()
            if self.halting or not self._flights:
                break
            message = self.engine.next(POLL_S)
            if message:
                self._take(message)
            self._look_at_the_clock()
            for watcher in self.watchers:
                watcher.tick()
        if self.stopping:
            return False
        for trial in self.ledger.trials:
            if trial.state == "paused":
                self._end(trial, "pruned", None)
        return True

    def stop(self) -> None:
        """Lets the epochs that are being trained end, and starts nothing more."""
        if not self.stopping:
            self.stopping = True
            self.engine.pause()

    def halt(self) -> None:
        """Stops without waiting for the epochs that are being trained."""
        self.stopping = self.halting = True

    def _dispatch(self) -> None:
        while self.engine.free:
            trial = self._waiting.popleft() if self._waiting else self._decided()
            if trial is None:
                return
            # To check values takes milliseconds, and a trial is sent several times.
            settings = self._settings.get(trial.number) or self.config_of(trial)
            self._settings[trial.number] = settings
            folder = self.folder / f"{trial.number:04}"
            self._flights[trial.number] = _Flight(trial)
            known = len(trial.scores)
            self.engine.submit(
                Order(trial.number, trial.values, settings, trial.until, known, folder, self.keep_models)
            )
            self._sent.append((trial, settings))

    def _record(self) -> None:
        """Records what was put off, so that free workers got their orders first."""
        while self._reached:
            trial, reached = self._reached[0]
            for watcher in self.watchers:
                watcher.reached(trial, reached)
            if trial.state == "finished":
                self._end(trial, "finished", None)
            else:
                self.ledger.reach(trial, reached.epoch)
            self._reached.popleft()
        while self._sent:
            trial, settings = self._sent.popleft()
            for watcher in self.watchers:
                watcher.sent(trial, settings)

    def _decided(self) -> Trial | None:
        trials = self.ledger.trials
        promised = sum(trial.until if trial.state == "running" else len(trial.scores) for trial in trials)
        left = RemainingBudget(self.source.total - len(trials), self.limits.budget * self.epochs - promised)
        decision = self.scheduler.decide([trial.seen for trial in trials], left)
        if decision is None and not self._flights and not any(trial.state == "finished" for trial in trials):
            decision = self._at_least_one()
        if isinstance(decision, Start):
            return self.source.new(self.ledger, decision.until, decision.values)
        if isinstance(decision, Resume):
            self.ledger.send(trials[decision.number], decision.until)
            return trials[decision.number]
        return None

    def _at_least_one(self) -> Resume | None:
        """A search that ends without a trained model is no search: the best one goes on to the end."""
        paused = [trial for trial in self.ledger.trials if trial.state == "paused"]
        if not paused:
            return None
        return Resume(max(paused, key=lambda trial: trial.scores[-1]).number, self.epochs)

    def _take(self, message: Message) -> None:
        flight = self._flights.get(message.trial)
        if flight is None:
            return
        trial, flight.last_s = flight.trial, self.engine.clock_s()
        match message:
            case Began():
                flight.began = True
            case EpochDone(epoch=epoch):
                if epoch.number == len(trial.scores) + 1:
                    for watcher in self.watchers:
                        watcher.trained(trial, epoch)
                    self.ledger.score(trial, epoch.number, epoch.validation_accuracy)
                    trial.elapsed_s = epoch.elapsed_s
            case TargetReached(epoch=number, over=over):
                del self._flights[trial.number]
                if over and number < trial.until:
                    self.ledger.send(trial, number)  # for the record: early stopping ended it there
                trial.state = "finished" if over or trial.until >= self.epochs else "paused"
                self._reached.append((trial, message))
                if trial.state == "paused":
                    self._weigh(trial)
                    self._bound_disk()
            case Paused():
                del self._flights[trial.number]
            case Failed():
                self._failed(trial, message)

    def _failed(self, trial: Trial, failed: Failed) -> None:
        del self._flights[trial.number]
        if failed.ended in ("crashed", "timed out") and trial.crashes < self.limits.retries:
            self.ledger.crash(trial)
            for watcher in self.watchers:
                watcher.failed(trial, failed)
            self._waiting.append(trial)
        else:
            self._end(trial, failed.ended, failed.why)

    def _end(self, trial: Trial, ended: str, why: str | None) -> None:
        for watcher in self.watchers:
            watcher.ended(trial, ended, why)
        self.ledger.end(trial, ended, why)
        self._clear(trial)

    def _clear(self, trial: Trial) -> None:
        """Deletes the checkpoints of a trial that never goes on. What else its folder holds stays."""
        for path in _checkpoints(self.folder / f"{trial.number:04}"):
            path.unlink(missing_ok=True)
        self._sizes.pop(trial.number, None)
        self._settings.pop(trial.number, None)

    def _look_at_the_clock(self) -> None:
        now_s = self.engine.clock_s()
        for flight in list(self._flights.values()):
            if not flight.began:
                continue
            epoch_s = now_s - flight.last_s
            trial_s = flight.trial.elapsed_s + epoch_s
            if epoch_s > self.limits.epoch_timeout_s:
                why = f"no epoch for {epoch_s:,.0f} s (tune.epoch_timeout_s is {self.limits.epoch_timeout_s:g})"
            elif trial_s > self.limits.trial_timeout_s:
                why = f"{trial_s:,.0f} s of training (tune.trial_timeout_s is {self.limits.trial_timeout_s:g})"
            else:
                continue
            self.engine.stop(flight.trial.number)
            self._failed(flight.trial, Failed(flight.trial.number, "timed out", why))

    def _weigh(self, trial: Trial) -> None:
        self._sizes[trial.number] = _size(self.folder / f"{trial.number:04}")

    def _bound_disk(self) -> None:
        """Prunes the least promising of the paused trials while their checkpoints take too much room."""
        paused = [trial for trial in self.ledger.trials if trial.state == "paused"]
        taken = sum(self._sizes[trial.number] for trial in paused)
        if taken <= self.limits.checkpoint_bytes:
            return
        self._record()  # of a trial that ends here, what it has reached comes first
        # Compared where all of them have been: a trial that went on is not better for having trained longer.
        common = min(len(trial.scores) for trial in paused)
        paused.sort(key=lambda trial: trial.scores[common - 1], reverse=True)
        while taken > self.limits.checkpoint_bytes and len(paused) > 1:
            trial = paused.pop()
            taken -= self._sizes[trial.number]
            self._end(trial, "pruned", "its checkpoint was given up for room on the disk (tune.checkpoints_gb)")


def _checkpoints(folder: Path) -> Iterator[Path]:
    """Of a trial: of each fold, and of each the one before."""
    return folder.glob("checkpoint*.pt*")


def _size(folder: Path) -> int:
    """Bytes of a trial's checkpoints."""
    total = 0
    for path in _checkpoints(folder):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
