"""What a study works with: its workers, its records in MLflow, and the process that makes models."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import cached_property
from typing import Any

from rich.console import Console

from pipeline import provenance
from pipeline.config import Config
from pipeline.exporting.process import Exporter
from pipeline.files import Project
from pipeline.machine import Machine, placements
from pipeline.records import Meta
from pipeline.search.engines.base import Engine
from pipeline.search.engines.local import LocalEngine
from pipeline.search.engines.worker import WorkerSpec
from pipeline.search.studies.ledger import Ledger, Trial
from pipeline.search.studies.recorder import Models, Recorder
from pipeline.tracking import Run, Tracker


class StudyResources:
    """What both phases need: workers, MLflow, and the process that makes models. A context manager."""

    def __init__(
        self,
        project: Project,
        settings: Config,
        meta: Meta,
        search: Ledger,
        about: Mapping[str, Any],
        config_of: Callable[[Trial], Config],
    ) -> None:
        """`about` is what makes the study, for its run in MLflow; `config_of` gives the values of a trial."""
        self.tracker: Tracker
        self.parent: Run
        """The study's."""
        self.models: Models | None = None
        self._project, self._settings, self._meta = project, settings, meta
        self._search, self._about, self._config_of = search, about, config_of
        self._folder = project.study_folder(search.name)
        self._tags: dict[str, str] = {}
        self._stack = ExitStack()
        self._recorders: dict[str, Recorder] = {}

    def __enter__(self) -> "StudyResources":
        with ExitStack() as stack:
            # First of all: workers take seconds to start, and what follows does not wait for them.
            stack.callback(self._close_engine)
            if not self._search.about.get("concluded"):
                _ = self.engine
            if self._settings.tune.models != "none":
                exporter = Exporter(self._project.meta, self._project.training_data)
                self.models = Models(stack.enter_context(closing(exporter)))
            self.tracker = stack.enter_context(Tracker(self._project))
            self.parent = self._open_parent()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @cached_property
    def engine(self) -> Engine:
        train, tune = self._settings.train, self._settings.tune
        chosen = placements(Machine.glance(), train.device, train.threads, tune.workers, tune.workers_per_gpu)
        self._folder.mkdir(parents=True, exist_ok=True)
        logs = [self._folder / f"worker-{number}.log" for number in range(1, len(chosen) + 1)]
        for log in logs:
            log.write_bytes(b"")
        return LocalEngine(
            [
                WorkerSpec(
                    self._project.meta,
                    self._project.training_data,
                    place.device,
                    place.threads,
                    train.precision,
                    log,
                )
                for place, log in zip(chosen, logs, strict=True)
            ]
        )

    def _close_engine(self) -> None:
        if "engine" in self.__dict__:
            self.engine.close()

    def _open_parent(self) -> Run:
        parent = self.tracker.open(f"study-{self._search.about['key']}", name=f"study {self._search.name}")
        self.tracker.send_leftovers()
        made_from = provenance.collect(self._project)
        self._tags = provenance.tags(made_from) | {"data.digest": self._meta.digest}
        with parent.batch():
            parent.log_params(
                {f"space.{name}": str(axis) for name, axis in self._about["space"].items()}
                | {key: value for key, value in self._about["values"].items() if key != "tune.seed"}
            )
            # As tags: a study can go on with other settings, and MLflow's params are for good.
            tune = self._settings.tune.model_dump(mode="json")
            parent.set_tags(self._tags | {f"tune.{key}": str(value) for key, value in tune.items()})
        return parent

    def recorder(self, ledger: Ledger, name: str) -> Recorder:
        if name not in self._recorders:
            self._recorders[name] = Recorder(
                self.tracker,
                self.parent,
                ledger,
                self._config_of,
                self._folder / ("trials" if name == "trial" else name),
                name,
                self._meta,
                self._tags,
                self._settings.train.epochs,
                self.models,
                self._settings.tune.models == "all",
            )
        return self._recorders[name]

    def wait_for_models(self, console: Console) -> None:
        """Until all models that are being made are made."""
        if not self.models or not self.models.waiting:
            return
        with console.status("making the models for MLflow") as status:
            while self.models.waiting:
                status.update(f"making the models for MLflow: {self.models.waiting} left")
                time.sleep(0.05)
                self.models.tick()
