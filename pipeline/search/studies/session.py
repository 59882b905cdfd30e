"""One start of a study, by the command tune or study: it resumes the study where it is and trains what is left.

A study has two phases, each with a ledger of its own that an owner runs: the search, and the confirmation, in which the
best trials are retrained with other seeds. Its ending then saves results and prints a summary.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from pipeline import tracking
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.search.schedulers.asha import Asha
from pipeline.search.schedulers.base import FullTraining, Scheduler
from pipeline.search.schedulers.freeze_thaw import FreezeThaw
from pipeline.search.studies import explanation, identity
from pipeline.search.studies import ledger as ledgers
from pipeline.search.studies import storage as storages
from pipeline.search.studies.budget import Goal, budget_of
from pipeline.search.studies.deadline import Deadline
from pipeline.search.studies.display import StudyDisplay
from pipeline.search.studies.ending import Ending
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.owner import Limits, Owner
from pipeline.search.studies.proposals import Planned, Proposals, TrialSource, trial_seed
from pipeline.search.studies.ranking import finished
from pipeline.search.studies.resources import StudyResources
from pipeline.search.studies.samplers import Proposer
from pipeline.search.studies.signals import stopping
from pipeline.search.studies.spec import StudySpec
from pipeline.search.studies.trials import Trial
from pipeline.search.studies.watcher import Watcher
from pipeline.search.studies.winner import Winner, apply_winner

_GIGABYTE = 10**9


@dataclass(frozen=True)
class TuneOptions:
    """Options of the command line, besides values of params.yaml."""

    study: str
    hours: float | None = None
    resume_only: bool = False
    apply: bool = False
    given: tuple[str, ...] = ()
    """The values of --set, as they were written."""


class TimeIsUp(Exception):
    """--hours have passed."""


class Session:
    """One start of a study."""

    def __init__(
        self, project: Project, settings: Config, options: TuneOptions, console: Console, ending: Ending | None = None
    ) -> None:
        """`ending` is None for a search. Raises DataError and PipelineError as StudySpec.of does."""
        self._deadline = Deadline.after(options.hours)
        self._spec = StudySpec.of(project, options.study, settings)
        self._options, self._console = options, console
        self._ending = ending or Winner(self._spec, options.apply, console, options.given)

    def run(self) -> dict[str, Any]:
        """Does what is left of the study and returns what its ending has saved.

        Raises KeyboardInterrupt if it was stopped; Owned, Stuck, TrackingError and other PipelineErrors.
        """
        name = self._options.study
        if self._options.resume_only and name not in storages.studies(self._spec.project):
            raise PipelineError(
                f"There is no study {name} to resume. Without --resume-only it is begun; "
                "`python -m pipeline.tune --list` shows those that are there."
            )
        try:
            with Ledger.open(self._spec.project, name) as search:
                return self._run(search, search.beside(ledgers.CONFIRMATION))
        except OSError as error:
            raise PipelineError(
                f"{error.filename or self._spec.folder} can't be used: {error.strerror or error}. Nothing is lost: "
                "once that is repaired, the same command resumes the study."
            ) from error

    def _run(self, search: Ledger, confirmation: Ledger) -> dict[str, Any]:
        search.check()
        confirmation.check()
        identity.check(self._spec, search, self._ending.mismatch_advice(search.name))
        if (given := list(self._options.given)) != search.about.get("given", []):
            search.note(given=given)  # for the commands that ensemble advises
        goal = Goal.of(self._spec.settings)
        key = f"study-{search.about['key']}"
        if goal.is_covered_by(search.about.get("concluded")) and not tracking.is_gone(self._spec.project, key):
            self._console.print(self._ending.already_done(search), highlight=False)
        else:
            began_s = time.monotonic()
            try:
                with StudyResources(self._spec, search) as resources:
                    self._complete(search, confirmation, resources)
            except TimeIsUp:
                self._console.print(
                    f"{self._options.hours:g} hours are over; all is kept, and the same command resumes the study."
                )
                return self._ending.save_results(search, confirmation)
            except KeyboardInterrupt:
                self._ending.save_results(search, confirmation)
                raise KeyboardInterrupt(
                    f"{len(search.trials)} trials are kept, the same command resumes the study"
                ) from None
            finally:
                search.note(elapsed_s=round(search.about.get("elapsed_s", 0.0) + time.monotonic() - began_s, 1))
            search.note(concluded=goal.record())
        results = self._ending.save_results(search, confirmation)
        if self._options.apply:
            apply_winner(self._spec.project, search, confirmation)
        self._ending.print_summary(search, confirmation)
        return results

    def _complete(self, search: Ledger, confirmation: Ledger, resources: StudyResources) -> None:
        """Both phases and the conclusion."""
        self._search(search, resources, self._ending.watchers(search, confirmation, "trial"))
        missing = self._to_confirm(search, confirmation)
        if missing or confirmation.trials:  # trials of an earlier start may still lack something in MLflow
            watchers = self._ending.watchers(search, confirmation, "confirm")
            self._confirm(confirmation, missing, resources, watchers)
        self._ending.finalize(search, confirmation, resources)
        resources.parent.finish(Outcome.FINISHED)

    def _search(self, search: Ledger, resources: StudyResources, watchers: Sequence[Watcher]) -> None:
        settings, space = self._spec.settings, self._spec.space
        tune = settings.tune
        proposer = Proposer(space, "tpe" if tune.sampler == "auto" else tune.sampler, tune.seed, tune.first)
        source = Proposals(tune.trials, space, proposer, tune.seed, settings.train.epochs)
        self._run_phase(search, "trial", source, _scheduler(self._spec), budget_of(settings), resources, watchers)

    def _to_confirm(self, search: Ledger, confirmation: Ledger) -> list[tuple[Trial, int]]:
        """Trials that are to be retrained and have not been, each with the number of a seed."""
        tune = self._spec.settings.tune
        known = {(trial.attributes["of"], trial.attributes["seed_number"]) for trial in confirmation.trials}
        candidates = finished(search)[: tune.confirm]
        wanted = [(trial, seed) for seed in range(1, tune.confirm_seeds + 1) for trial in candidates]
        return [(trial, seed) for trial, seed in wanted if (trial.number, seed) not in known]

    def _confirm(
        self,
        confirmation: Ledger,
        missing: list[tuple[Trial, int]],
        resources: StudyResources,
        watchers: Sequence[Watcher],
    ) -> None:
        settings = self._spec.settings
        plan: list[tuple[Any, Any]] = [(trial.values, trial.attributes) for trial in confirmation.trials]
        for trial, number in missing:
            seed = trial_seed(settings.tune.seed, trial.number, number)
            plan.append((trial.values, {"of": trial.number, "seed_number": number, "seed": seed}))
        source = Planned(plan, self._spec.space.distributions)
        scheduler = FullTraining(settings.train.epochs)
        self._run_phase(confirmation, "confirmation", source, scheduler, math.inf, resources, watchers)

    def _run_phase(
        self,
        ledger: Ledger,
        title: str,
        source: TrialSource,
        scheduler: Scheduler,
        budget: float,
        resources: StudyResources,
        watchers: Sequence[Watcher],
    ) -> None:
        tune = self._spec.settings.tune
        recorder = resources.recorder(ledger)
        epochs = recorder.setup.epochs
        display = StudyDisplay(self._console, ledger, title=title, trials=source.total, epochs=epochs, budget=budget)
        if title == "trial":
            display.expect = lambda: explanation.ends([trial.view for trial in ledger.trials], self._spec.space, epochs)
        owner = Owner(
            ledger=ledger,
            source=source,
            scheduler=scheduler,
            engine=resources.engine,
            setup=recorder.setup,
            limits=Limits(
                budget=budget,
                patience=math.inf if title == "confirmation" else tune.patience or math.inf,
                retries=tune.retries,
                trial_timeout_s=tune.trial_timeout_s or math.inf,
                epoch_timeout_s=tune.epoch_timeout_s or math.inf,
                checkpoint_bytes=tune.checkpoints_gb * _GIGABYTE,
            ),
            watchers=(recorder, display, self._deadline, *watchers),
        )
        recorder.reconcile()  # the owner has fetched the models of trials that ended on another machine
        self._deadline.owner = owner
        with display, stopping(owner, display), resources.run.tracker.putting_off():
            complete = owner.run()
        if not complete:
            resources.parent.finish(Outcome.INTERRUPTED)
            raise TimeIsUp if self._deadline.has_passed else KeyboardInterrupt


def _scheduler(spec: StudySpec) -> Scheduler:
    tune, epochs = spec.settings.tune, spec.settings.train.epochs
    if tune.scheduler == "none":
        return FullTraining(epochs)
    if tune.scheduler == "asha":
        return Asha(epochs, tune.first_rung, tune.reduction_factor)
    return FreezeThaw(spec.space, epochs, seed=tune.seed, proposes=tune.sampler == "auto")
