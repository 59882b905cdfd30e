"""What the phases of a study use: the engine, the study's run in MLflow, and the process that makes models."""

import sys
import time
from contextlib import ExitStack, closing, suppress
from functools import cached_property
from types import TracebackType

from rich.console import Console

from pipeline import config, provenance
from pipeline.errors import TrackingError
from pipeline.exporting.process import Exporter
from pipeline.outcome import Outcome
from pipeline.search.engines import building
from pipeline.search.engines.base import Engine, Stuck
from pipeline.search.studies.checkpoints import store_of
from pipeline.search.studies.identity import identity
from pipeline.search.studies.ledger import CONFIRMATION, Ledger
from pipeline.search.studies.models import Models
from pipeline.search.studies.recorder import Recorder, StudyRun
from pipeline.search.studies.spec import StudySpec
from pipeline.search.studies.trials import TrialSetup
from pipeline.tracking import Run, Tracker

MOST_FILES = 65_536
"""Open files of the owner, if the system grants them."""


class StudyResources:
    """What both phases use. A context manager that ends the workers and closes the run."""

    def __init__(self, spec: StudySpec, search: Ledger) -> None:
        self.run: StudyRun
        self.models: Models | None = None
        self._spec, self._search = spec, search
        self._store = store_of(spec.settings.tune.checkpoints, search)
        self._stack = ExitStack()
        self._recorders: dict[str, Recorder] = {}

    def __enter__(self) -> "StudyResources":
        _allow_files()
        with ExitStack() as stack:
            # What workers need takes seconds to load, as MLflow does. A study that is complete may need none.
            stack.callback(self._close_engine)
            if not self._search.about.get("concluded"):
                building.prepare(self._spec.settings)
                if self._store:
                    self._store.check()
            project = self._spec.project
            if self._spec.settings.tune.models != "none":
                self.models = Models(stack.enter_context(closing(Exporter(project.meta, project.training_data))))
            self.run = self._open_run(stack.enter_context(Tracker(project)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(TrackingError):  # the disk may be full
                self._record_stop(error)
        self._stack.__exit__(kind, error, trace)

    def _record_stop(self, error: BaseException) -> None:
        """Ends the open runs. The tracker would take their trials for crashed."""
        for recorder in self._recorders.values():
            recorder.release()
        # Neither the study nor a trial is to blame, and the same command resumes it.
        if isinstance(error, Stuck | OSError) and not self.parent.finished:
            self.parent.finish(Outcome.INTERRUPTED)

    @property
    def parent(self) -> Run:
        """The study's run in MLflow."""
        return self.run.parent

    @cached_property
    def engine(self) -> Engine:
        """Started when it is first used."""
        return building.build(self._spec.settings, self._spec.project, self._spec.folder, self._store)

    def _close_engine(self) -> None:
        if "engine" in self.__dict__:
            self.engine.close()

    def _open_run(self, tracker: Tracker) -> StudyRun:
        spec, about = self._spec, identity(self._spec)
        parent = tracker.open(f"study-{self._search.about['key']}", name=f"study {self._search.name}")
        tracker.send_leftovers()
        tags = provenance.tags(provenance.collect(spec.project)) | spec.meta.tags()
        tags |= config.content_tags(spec.settings)
        with parent.batch():
            parent.log_params(
                {f"space.{name}": str(axis) for name, axis in about["space"].items()}
                | {key: value for key, value in about["values"].items() if key != "tune.seed"}
            )
            # The section tune goes into tags: a study can resume with other values of it, and params can't change.
            tune = spec.settings.tune.model_dump(mode="json")
            for file, place in config.code_places(spec.settings):
                parent.log_file(file, place)
            parent.set_tags(tags | {f"tune.{key}": str(value) for key, value in tune.items()})
        return StudyRun(tracker, parent, spec.meta, tags)

    def recorder(self, ledger: Ledger) -> Recorder:
        """The recorder of a phase: of the search, or of its confirmation."""
        if ledger.name not in self._recorders:
            phase = "confirm" if ledger.name.endswith(CONFIRMATION) else "trials"
            self._recorders[ledger.name] = Recorder(
                study=self.run,
                ledger=ledger,
                setup=TrialSetup(
                    config_of=self._spec.config_of,
                    epochs=self._spec.settings.train.epochs,
                    folder=self._spec.folder / phase,
                    keep_models=self._spec.settings.tune.models == "all",
                    store=self._store / phase if self._store else None,
                ),
                phase=phase.removesuffix("s"),
                models=self.models,
            )
        return self._recorders[ledger.name]

    def wait_for_models(self, console: Console) -> None:
        """Returns when all models are made."""
        if not self.models or not self.models.waiting:
            return
        with console.status("making the models for MLflow") as status:
            while self.models.waiting:
                status.update(f"making the models for MLflow: {self.models.waiting} left")
                time.sleep(0.05)
                self.models.tick()


def _allow_files() -> None:
    """Lets the process open as many files as it may: the records of each running trial take three."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
