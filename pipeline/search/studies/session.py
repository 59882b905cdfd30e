"""One start of a study, by the command tune or study: takes it up where it stands, and brings it as far as it is let.

A study has two phases, each a ledger of its own that an owner runs: the search, and the confirmation, in which the
best few are trained again with other seeds. Then it is concluded, as its ending says: result files, images, ...
"""

import math
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from rich.console import Console

from pipeline import config, tracking
from pipeline.config import Config
from pipeline.errors import DataError, PipelineError
from pipeline.files import Project
from pipeline.records import Meta, load_meta
from pipeline.search.schedulers.base import Asha, FullTraining, Scheduler
from pipeline.search.schedulers.freeze_thaw import FreezeThaw
from pipeline.search.space.space import Space
from pipeline.search.studies import ledger as ledgers
from pipeline.search.studies import outcome
from pipeline.search.studies.display import StudyDisplay
from pipeline.search.studies.ending import Ending, Winner
from pipeline.search.studies.ledger import Ledger, Trial
from pipeline.search.studies.owner import Limits, Owner, Watcher
from pipeline.search.studies.proposals import Planned, Proposals, TrialSource, trial_seed
from pipeline.search.studies.recorder import Recorder
from pipeline.search.studies.resources import StudyResources
from pipeline.search.studies.samplers import Proposer

PAUSING_BUDGET = 0.4
"""Full trainings a trial, where the scheduler pauses trials and params.yaml names no budget."""
_GIGABYTE = 10**9


@dataclass(frozen=True)
class TuneOptions:
    """What the command line asks for, beside values of params.yaml."""

    study: str
    hours: float | None = None
    resume_only: bool = False
    apply: bool = False


class TimeIsUp(Exception):
    """--hours have passed."""


class Session(Watcher):
    """One start of a study. As a watcher it looks at the clock for --hours."""

    def __init__(
        self, project: Project, settings: Config, options: TuneOptions, console: Console, ending: Ending | None = None
    ) -> None:
        """`ending` is None for a search. Raises DataError if the data is missing, or not that of params.yaml;
        PipelineError for an empty space.
        """
        self.project, self.settings, self.options, self.console = project, settings, options, console
        self.meta = _checked(load_meta(project.meta), settings)
        self.space = Space.of(settings)
        if not len(self.space):
            raise PipelineError("The section space of params.yaml is empty: name at least one key to search.")
        self.folder = project.study_folder(options.study)
        self.ending = ending or Winner(project, settings, self.meta.name, self.space, options.apply, console)
        self.budget = _budget(settings)
        self._deadline_s = time.monotonic() + options.hours * 3600 if options.hours else math.inf
        self._owner: Owner | None = None

    def run(self) -> dict[str, Any]:
        """Does what is left of the study and returns what its ending has written, as study.json has it for a search.

        Raises KeyboardInterrupt when it was stopped; Owned, Stuck, TrackingError and other PipelineErrors.
        """
        if self.options.resume_only and self.options.study not in ledgers.studies(self.project):
            raise PipelineError(
                f"There is no study {self.options.study} to go on with. Without --resume-only it is begun; "
                "`python -m pipeline.tune --list` shows those that are there."
            )
        try:
            with Ledger.open(self.project, self.options.study) as search:
                return self._run(search, search.beside(ledgers.CONFIRMATION))
        except OSError as error:
            raise PipelineError(
                f"{error.filename or self.folder} can't be used: {error.strerror or error}. Nothing is lost: mend "
                "that, give the same command again, and it goes on."
            ) from error

    def _run(self, search: Ledger, confirmation: Ledger) -> dict[str, Any]:
        self._check_same(search)
        goal = {"trials": self.settings.tune.trials, "budget": None if math.isinf(self.budget) else self.budget}
        goal |= {"confirm": self.settings.tune.confirm, "seeds": self.settings.tune.confirm_seeds}
        if _covers(search.about.get("concluded"), goal) and not tracking.is_gone(self.project):
            self.console.print(self.ending.over(search), highlight=False)
        else:
            began_s = time.monotonic()
            try:
                with StudyResources(
                    self.project, self.settings, self.meta, search, self._about(), self.config_of
                ) as resources:
                    self._pursue(search, confirmation, resources)
            except TimeIsUp:
                self.console.print(
                    f"{self.options.hours:g} hours are over; all is kept, and the same command goes on from there."
                )
                return self.ending.write(search, confirmation)
            except KeyboardInterrupt:
                self.ending.write(search, confirmation)
                raise KeyboardInterrupt(
                    f"{len(search.trials)} trials are kept, the same command goes on from there"
                ) from None
            finally:
                search.note(elapsed_s=round(search.about.get("elapsed_s", 0.0) + time.monotonic() - began_s, 1))
            search.note(concluded=goal)
        study = self.ending.write(search, confirmation)
        self.ending.tell(search, confirmation)
        return study

    def _pursue(self, search: Ledger, confirmation: Ledger, resources: StudyResources) -> None:
        """Both phases and the conclusion."""
        self._search(search, resources)
        missing = self._to_confirm(search, confirmation)
        if missing or confirmation.trials:  # whose records may lack something, though all are there
            self._confirm(confirmation, missing, resources)
        self.ending.finalize(search, confirmation, resources)
        resources.parent.finish("finished")

    def _search(self, search: Ledger, resources: StudyResources) -> None:
        tune = self.settings.tune
        scheduler = _scheduler(self.settings, self.space)
        proposer = Proposer(self.space, _sampler(self.settings), tune.seed, tune.first)
        source = Proposals(tune.trials, self.space, proposer, tune.seed, self.settings.train.epochs)
        recorder = resources.recorder(search, "trial")
        self._phase(search, source, scheduler, self.budget, recorder, resources, "trial")

    def _to_confirm(self, search: Ledger, confirmation: Ledger) -> list[tuple[Trial, int]]:
        """Trials, each with the number of a seed, that are to be trained again and have not been."""
        there = {(trial.attributes["of"], trial.attributes["seed_number"]) for trial in confirmation.trials}
        candidates = outcome.finished(search)[: self.settings.tune.confirm]
        wanted = [(trial, seed) for seed in range(1, self.settings.tune.confirm_seeds + 1) for trial in candidates]
        return [(trial, seed) for trial, seed in wanted if (trial.number, seed) not in there]

    def _confirm(self, confirmation: Ledger, missing: list[tuple[Trial, int]], resources: StudyResources) -> None:
        plan: list[tuple[Any, Any]] = [(trial.values, trial.attributes) for trial in confirmation.trials]
        for trial, number in missing:
            seed = trial_seed(self.settings.tune.seed, trial.number, number)
            plan.append((trial.values, {"of": trial.number, "seed_number": number, "seed": seed}))
        recorder = resources.recorder(confirmation, "confirm")
        source = Planned(plan, self.space.distributions)
        self._phase(
            confirmation,
            source,
            FullTraining(self.settings.train.epochs),
            math.inf,
            recorder,
            resources,
            "confirmation",
        )

    def _phase(
        self,
        ledger: Ledger,
        source: TrialSource,
        scheduler: Scheduler,
        budget: float,
        recorder: Recorder,
        resources: StudyResources,
        title: str,
    ) -> None:
        tune, epochs = self.settings.tune, self.settings.train.epochs
        recorder.reconcile()
        display = StudyDisplay(self.console, ledger, title=title, trials=source.total, epochs=epochs, budget=budget)
        self._owner = Owner(
            ledger,
            source,
            scheduler,
            resources.engine,
            self.config_of,
            epochs,
            recorder.folder,
            Limits(
                budget=budget,
                retries=tune.retries,
                trial_timeout_s=tune.trial_timeout_s or math.inf,
                epoch_timeout_s=tune.epoch_timeout_s or math.inf,
                checkpoint_bytes=tune.checkpoints_gb * _GIGABYTE,
            ),
            tune.models == "all",
            (recorder, display, self),
        )
        with display, self._signals(self._owner, display):
            over = self._owner.run()
        self._owner = None
        if not over:
            recorder.release()
            resources.parent.finish("interrupted")
            raise TimeIsUp if time.monotonic() > self._deadline_s else KeyboardInterrupt

    def config_of(self, trial: Trial) -> Config:
        return self.settings.with_values({**trial.values, "train.seed": trial.attributes["seed"]})

    def tick(self) -> None:
        if self._owner and time.monotonic() > self._deadline_s:
            self._owner.stop()

    @contextmanager
    def _signals(self, owner: Owner, display: StudyDisplay) -> Iterator[None]:
        """Ctrl-C lets the epochs that are being trained end; a second one, or SIGTERM, does not wait for them."""

        def interrupted(number: int, frame: FrameType | None) -> None:
            if owner.halting:
                raise KeyboardInterrupt
            if owner.stopping or number != signal.SIGINT:
                owner.halt()
            else:
                display.note = "Stopping after the epochs that are being trained; Ctrl-C again stops at once."
                owner.stop()

        with ExitStack() as stack:
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                    stack.callback(signal.signal, number, signal.signal(number, interrupted))
            yield

    def _about(self) -> dict[str, Any]:
        """What makes it this study: trials of another space, other data or other fixed values don't compare."""
        varied = {*self.space.names, "train.seed"}  # a trial's seed is its own
        fixed = {
            key: value
            for key, value in self.settings.values().items()
            if config.decides_training(key) and key not in varied
        }
        return {
            "space": self.space.described(),
            "values": fixed | {"tune.seed": self.settings.tune.seed},
            "data": {"name": self.meta.name, "digest": self.meta.digest},
            "content": {"model.weights": config.weights_digest(self.settings.model)},
        }

    def _check_same(self, search: Ledger) -> None:
        """Notes what makes the study, or compares with what was noted. Raises PipelineError if it differs."""
        about = self._about()
        if "key" not in search.about:
            created = datetime.now(UTC).isoformat(timespec="seconds")
            search.note(**about, created=created, key=uuid.uuid4().hex[:12])
            return
        differences = []
        for part, new in about.items():
            old = search.about.get(part, {})
            for name in dict.fromkeys([*old, *new]):
                if name not in new and config.had_no_effect(name, old[name]):
                    continue
                if old.get(name) != new.get(name):
                    before, today = _shown(old.get(name)), _shown(new.get(name))
                    differences.append(f"  {part} {name}: it was {before}, it is {today}")
        if differences:
            raise PipelineError(
                f"The study {search.name} was begun otherwise, and its trials don't compare with new ones:\n"
                + "\n".join(differences)
                + f"\n{self.ending.mismatch_advice(search.name)}"
            )


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _checked(meta: Meta, settings: Config) -> Meta:
    if settings.data.name != "folder" and meta.name != settings.data.name:
        raise DataError(
            f"data/ holds {meta.name}, but data.name is {settings.data.name}: run `dvc repro download` first."
        )
    return meta


def _budget(settings: Config) -> float:
    """Full trainings that the search may spend."""
    if settings.tune.budget is not None:
        return settings.tune.budget
    if settings.tune.scheduler == "none":
        return math.inf
    # Of few trials, or of short ones, that is less than to begin them all and to finish one.
    return max(PAUSING_BUDGET * settings.tune.trials, 1 + settings.tune.trials / settings.train.epochs)


def _sampler(settings: Config) -> Any:
    return "tpe" if settings.tune.sampler == "auto" else settings.tune.sampler


def _scheduler(settings: Config, space: Space) -> Scheduler:
    tune, epochs = settings.tune, settings.train.epochs
    if tune.scheduler == "none":
        return FullTraining(epochs)
    if tune.scheduler == "asha":
        return Asha(epochs, tune.first_rung, tune.reduction_factor)
    return FreezeThaw(space, epochs, seed=tune.seed, proposes=tune.sampler == "auto")


def _covers(concluded: dict[str, Any] | None, goal: dict[str, Any]) -> bool:
    """Whether what was concluded is all that is asked for."""
    if concluded is None:
        return False
    return all(
        concluded[key] is None or (goal[key] is not None and goal[key] <= concluded[key])
        for key in ("trials", "budget", "confirm", "seeds")
    )
