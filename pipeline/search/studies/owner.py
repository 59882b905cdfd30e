"""The owner of a study: the one process that decides. It gives orders to workers and records what they report.

It alone writes to Optuna's storage and, through its watchers, to MLflow. All that it knows is on disk too, so that a
study whose owner is killed at any instant is resumed by the next one.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.config import Config
from pipeline.outcome import Outcome
from pipeline.search.engines.base import (
    Began,
    Engine,
    EpochDone,
    Failed,
    Message,
    Order,
    Paused,
    TargetReached,
    Unstored,
)
from pipeline.search.schedulers.base import RemainingBudget, Resume, Scheduler, Start
from pipeline.search.studies.checkpoints import Checkpoints
from pipeline.search.studies.epochs import read_epochs
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.proposals import TrialSource
from pipeline.search.studies.trials import Trial, TrialSetup
from pipeline.search.studies.watcher import Watcher

POLL_S = 0.25
"""The longest wait for a message, after which the owner looks at stop requests and time limits. For so long Optuna's
storage may lack what the workers report, which they report again after a crash."""
WORKERS_PER_DECISION = 16
"""For each so many workers one decision is made in advance, from 32 workers on: with 1,024 workers the next 64 orders
are decided at once. So the last of them does not know the results of the 64 orders before it."""


@dataclass(frozen=True)
class Limits:
    """What a study may spend."""

    budget: float = math.inf
    """Full trainings."""
    patience: float = math.inf
    """Trials that may begin after the best one has finished, without a better one."""
    retries: int = 0
    """How often in a row a trial is tried again that crashed or timed out; a new epoch resets the count."""
    trial_timeout_s: float = math.inf
    """Of all training of a trial, including the current epoch."""
    epoch_timeout_s: float = math.inf
    checkpoint_bytes: float = math.inf
    """Of all paused trials together."""


@dataclass
class _InFlight:
    """A trial that a worker has."""

    trial: Trial
    began: bool = False
    """False while the worker is still loading."""
    last_s: float = 0.0
    """Time of its last message."""


@dataclass(kw_only=True)
class Owner:
    """Runs the trials of one ledger on an engine: the one process that decides."""

    ledger: Ledger
    source: TrialSource
    scheduler: Scheduler
    engine: Engine
    setup: TrialSetup
    limits: Limits = Limits()
    watchers: Sequence[Watcher] = ()
    stopping: bool = False
    halting: bool = False
    _in_flight: dict[int, _InFlight] = field(default_factory=dict)
    """By number of the trial."""
    _plan: deque[Start | Resume] = field(default_factory=deque)
    """Decisions that are not carried out yet. With few workers none is made before a worker is free."""
    _waiting: deque[Trial] = field(default_factory=deque)
    """Interrupted trials and those that are tried again: they are sent before anything is decided."""
    _reached: deque[tuple[Trial, TargetReached]] = field(default_factory=deque)
    """Not recorded yet. Decisions already count them; after a crash these trials count as running."""
    _sent: deque[tuple[Trial, Config]] = field(default_factory=deque)
    """Watchers were not called yet. They are after those of `_reached`."""
    _settings: dict[int, Config] = field(default_factory=dict)
    """Of trials that may resume, by number."""
    _look_at_s: float = -math.inf
    """When the ledger stores what it has put off, and time limits are looked at."""

    def __post_init__(self) -> None:
        self._checkpoints = Checkpoints(self.setup)
        self._checkpoints.look(self.ledger.trials)
        self._waiting.extend(trial for trial in self.ledger.trials if trial.state == "running")
        for trial in self._waiting:
            # The ledger has the time of the last rung only, and workers don't report known epochs again.
            for epoch in read_epochs(self.setup.folder_of(trial)).values():
                trial.elapsed_s = max(trial.elapsed_s, epoch.elapsed_s)

    def run(self) -> bool:
        """Runs until the study is complete and returns True; False if `stop` or `halt` came first.

        Raises Stuck, and OSError for a full disk. All that was recorded stays, and the next owner resumes the study.
        """
        try:
            with self.ledger.putting_off(self._saving):
                return self._run()
        finally:
            self._checkpoints.close()
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
            if self.halting or not self._in_flight:
                break
            message = self.engine.next(POLL_S)
            if message:
                self._receive(message)
            if self.engine.clock_s() >= self._look_at_s:
                self._look_at_s = self.engine.clock_s() + POLL_S
                self.ledger.save()
                self._check_time_limits()
            for watcher in self.watchers:
                watcher.tick()
        if self.stopping:
            return False
        for trial in self.ledger.trials:
            if trial.state == "paused":
                self._end(trial, Outcome.PRUNED, None)
        return True

    def _saving(self) -> None:
        for watcher in self.watchers:
            watcher.saving()

    def stop(self) -> None:
        """Lets the current epochs end, and starts nothing more."""
        if not self.stopping:
            self.stopping = True
            self.engine.pause()

    def halt(self) -> None:
        """Stops without waiting for the current epochs."""
        self.stopping = self.halting = True

    def _dispatch(self) -> None:
        while self.engine.free:
            trial = self._waiting.popleft() if self._waiting else self._decide()
            if trial is None:
                return
            # Checking the values takes milliseconds, and a trial is sent several times.
            settings = self._settings.get(trial.number) or self.setup.config_of(trial)
            self._settings[trial.number] = settings
            self._in_flight[trial.number] = _InFlight(trial)
            self._checkpoints.resumed(trial)
            self.engine.submit(
                Order(
                    trial=trial.number,
                    values=trial.values,
                    config=settings,
                    until=trial.until,
                    known=len(trial.scores),
                    folder=self.setup.folder_of(trial),
                    keep_model=self.setup.keep_models,
                    store=str(store) if (store := self.setup.store_of(trial)) else None,
                )
            )
            self._sent.append((trial, settings))

    def _record(self) -> None:
        """Records what was put off so that free workers got their orders first."""
        while self._reached:
            trial, reached = self._reached[0]
            for watcher in self.watchers:
                watcher.reached(trial, reached)
            if trial.state == "finished":
                self._end(trial, Outcome.FINISHED, None)
            else:
                self.ledger.reach(trial, reached.epoch)
            self._reached.popleft()
        while self._sent:
            trial, settings = self._sent.popleft()
            for watcher in self.watchers:
                watcher.sent(trial, settings)

    def _decide(self) -> Trial | None:
        """The trial to send next, new or resumed; None if there is none."""
        trials = self.ledger.trials
        if self.ledger.begun_since_best >= self.limits.patience:
            return None
        # A trial may have been given up for room on the disk since it was planned.
        while self._plan and isinstance(self._plan[0], Resume) and trials[self._plan[0].number].state != "paused":
            self._plan.popleft()
        if not self._plan:
            self._plan.extend(self._planned())
        decision = self._plan.popleft() if self._plan else None
        if decision is None and not self._in_flight and not any(trial.state == "finished" for trial in trials):
            decision = self._at_least_one()
        if isinstance(decision, Start):
            return self.source.new(self.ledger, decision.until, decision.values)
        if isinstance(decision, Resume):
            self.ledger.send(trials[decision.number], decision.until)
            return trials[decision.number]
        return None

    def _planned(self) -> Sequence[Start | Resume]:
        """The next decisions: one, or several at once where decisions would not keep up with the workers."""
        trials = self.ledger.trials
        promised = sum(trial.until if trial.state == "running" else len(trial.scores) for trial in trials)
        left = RemainingBudget(self.source.total - len(trials), self.limits.budget * self.setup.epochs - promised)
        count = max(1, (len(self._in_flight) + self.engine.free) // WORKERS_PER_DECISION)
        views = [trial.view for trial in trials]
        if count > 1:
            return self.scheduler.plan(views, left, count)
        decision = self.scheduler.decide(views, left)
        return [decision] if decision else []

    def _at_least_one(self) -> Resume | None:
        """Lets the best trial train to its end, whatever the budget: a search must end with a trained model."""
        paused = [trial for trial in self.ledger.trials if trial.state == "paused"]
        if not paused:
            return None
        return Resume(max(paused, key=lambda trial: trial.scores[-1]).number, self.setup.epochs)

    def _receive(self, message: Message) -> None:
        in_flight = self._in_flight.get(message.trial)
        if in_flight is None:
            return
        trial, in_flight.last_s = in_flight.trial, self.engine.clock_s()
        match message:
            case Began():
                in_flight.began = True
            case EpochDone(epoch=epoch):
                if epoch.number == len(trial.scores) + 1:
                    for watcher in self.watchers:
                        watcher.trained(trial, epoch)
                    self.ledger.score(trial, epoch.number, epoch.validation_accuracy)
                    trial.elapsed_s = epoch.elapsed_s
            case TargetReached(epoch=number, over=over):
                del self._in_flight[trial.number]
                if over and number < trial.until:
                    self.ledger.send(trial, number)  # early stopping ended the training there
                trial.state = "finished" if over or trial.until >= self.setup.epochs else "paused"
                self._reached.append((trial, message))
                if trial.state == "paused":
                    self._checkpoints.weigh(trial, message)
                    self._bound_disk()
            case Paused():
                del self._in_flight[trial.number]
                if not self.stopping:
                    for watcher in self.watchers:
                        watcher.interrupted(trial)
                    self._waiting.append(trial)
            case Unstored(why=why):
                for watcher in self.watchers:
                    watcher.unstored(trial, why)
            case Failed():
                self._fail(trial, message)

    def _fail(self, trial: Trial, failed: Failed) -> None:
        del self._in_flight[trial.number]
        if failed.outcome.is_retried and trial.crashes < self.limits.retries:
            self.ledger.crash(trial)
            for watcher in self.watchers:
                watcher.failed(trial, failed)
            self._waiting.append(trial)
        else:
            self._end(trial, failed.outcome, failed.why)

    def _end(self, trial: Trial, outcome: Outcome, why: str | None) -> None:
        if outcome is Outcome.FINISHED or (outcome is Outcome.PRUNED and self.setup.keep_models):
            self._checkpoints.fetch_model(trial)
        for watcher in self.watchers:
            watcher.ended(trial, outcome, why)
        self.ledger.end(trial, outcome, why)
        self._checkpoints.delete(trial)
        self._settings.pop(trial.number, None)

    def _check_time_limits(self) -> None:
        now_s = self.engine.clock_s()
        for in_flight in list(self._in_flight.values()):
            if not in_flight.began:
                continue
            epoch_s = now_s - in_flight.last_s
            trial_s = in_flight.trial.elapsed_s + epoch_s
            if epoch_s > self.limits.epoch_timeout_s:
                why = f"no epoch for {epoch_s:,.0f} s (tune.epoch_timeout_s is {self.limits.epoch_timeout_s:g})"
            elif trial_s > self.limits.trial_timeout_s:
                why = f"{trial_s:,.0f} s of training (tune.trial_timeout_s is {self.limits.trial_timeout_s:g})"
            else:
                continue
            number = in_flight.trial.number
            self.engine.stop(number)
            self._fail(in_flight.trial, Failed(number, Outcome.TIMED_OUT, why))

    def _bound_disk(self) -> None:
        """Prunes the least promising paused trials while all checkpoints together are too large."""
        used = self._checkpoints.bytes
        if used <= self.limits.checkpoint_bytes:
            return
        paused = [trial for trial in self.ledger.trials if trial.state == "paused"]
        self._record()  # what a trial has reached is recorded before its end
        # Compared at an epoch that all have reached: more epochs alone don't make a trial better.
        common = min(len(trial.scores) for trial in paused)
        paused.sort(key=lambda trial: trial.scores[common - 1], reverse=True)
        while used > self.limits.checkpoint_bytes and len(paused) > 1:
            trial = paused.pop()
            used -= self._checkpoints.bytes_of(trial)
            self._end(trial, Outcome.PRUNED, "its checkpoint was given up for room on the disk (tune.checkpoints_gb)")
