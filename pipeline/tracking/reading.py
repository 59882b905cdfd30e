"""Runs as MLflow holds them: what they were made with, and every epoch."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError, TrackingError
from pipeline.exporting.environment import quiet
from pipeline.files import Project
from pipeline.records import Epoch
from pipeline.tracking import internals
from pipeline.tracking.experiment import attach
from pipeline.tracking.failures import Refused, Unreachable, explained
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_ID = re.compile(r"[0-9a-f]{32}")
_OF_A_STUDY = re.compile(r"(trial|confirm) (\d+)")
_STUDY_KEY = re.compile(r"study-.*-(trial|confirm)-(\d+)")
_MOST_LISTED = 10


@dataclass(frozen=True)
class RecordedRun:
    """A run in MLflow."""

    id: str
    name: str
    started: datetime
    """In the time zone of this machine."""
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """The last value of each."""
    counts: Mapping[str, int]
    """Images in each part of the data set that it was trained on."""

    @property
    def key(self) -> str:
        return self.tags.get("pipeline.key", "")

    @property
    def ended(self) -> str:
        """How it ended, as in Outcome; "running" as long as it is open."""
        return self.tags.get("ended", "running")

    def __str__(self) -> str:
        name = self.name
        if (found := _STUDY_KEY.fullmatch(self.key)) and "study" in self.tags:
            # Its name says its values, which are many.
            name = f"{found[1]} {int(found[2])} of {self.tags['study']}"
        return f"{name} ({self.id}, {self.started:%Y-%m-%d %H:%M:%S}, {self.ended})"


@dataclass(frozen=True)
class RecordedModel:
    """A model that a run has logged."""

    id: str
    versions: Sequence[str]
    """In the registry: `NAME version 3 (best)`."""


class Runs:
    """The runs of a project's experiment in MLflow, to be read only."""

    def __init__(self, project: Project) -> None:
        """Raises TrackingError if there is no store, or none that can be used."""
        self._store = Store.of(project)
        if (database := self._store.database) and not database.is_file():
            raise TrackingError(
                f"There are no runs: {database} is missing. `dvc repro` or `python -m pipeline.tune` records some; "
                "MLFLOW_TRACKING_URI names another store."
            )
        quiet()
        internals.preload()
        with self._explained():
            client, experiment = attach(self._store)
        self._client: MlflowClient = client
        self._experiment: str = experiment

    def run(self, reference: str) -> RecordedRun:
        """The run with this id, key or name, or `trial 3` or `confirm 2`; of several the last one that was started.

        Raises PipelineError if there is none.
        """
        with self._explained():
            if _ID.fullmatch(reference) and (run := self._by_id(reference)):
                return run
        quoted = reference.replace("'", "")
        conditions = [f"tags.`pipeline.key` = '{quoted}'", f"attributes.run_name = '{quoted}'"]
        if named := _OF_A_STUDY.fullmatch(reference):
            # Their names say their values, their keys their numbers.
            conditions.append(f"tags.`pipeline.key` LIKE 'study-%-{named[1]}-{int(named[2]):04}'")
        for condition in conditions:
            if found := self.search(condition, most=1):
                return found[0]
        raise PipelineError(
            f"There is no run {reference} in {self._store}, experiment {self._store.experiment}. {self._last()}"
        )

    def trial(self, study: str, number: int) -> RecordedRun:
        """The run of a trial. Raises PipelineError if there is none."""
        condition = f"tags.study = '{study.replace(chr(39), '')}' and tags.trial = '{number}'"
        if found := self.search(condition, most=1):
            return found[0]
        raise PipelineError(
            f"There is no trial {number} of a study {study} in {self._store}: `python -m pipeline.tune --list` shows "
            "the studies. Records that MLflow lacks are sent by `python -m pipeline.tracking`."
        )

    def search(self, condition: str, most: int = 1000) -> list[RecordedRun]:
        """The runs that meet a condition in MLflow's language, those started last first."""
        with self._explained():
            found = self._client.search_runs(
                [self._experiment], condition, max_results=most, order_by=["attributes.start_time DESC"]
            )
            return [_read(run) for run in found]

    def epochs(self, run: RecordedRun) -> list[Epoch]:
        """All epochs that are on record; of one that was trained twice the later record."""
        columns = [field.name for field in fields(Epoch) if field.name != "number"]
        figures: dict[int, dict[str, float]] = {}
        with self._explained():
            for column in columns:
                for metric in self._client.get_metric_history(run.id, f"train.{column}"):
                    figures.setdefault(metric.step, {})[column] = metric.value
        whole = (step for step in sorted(figures) if len(figures[step]) == len(columns))
        return [Epoch(number=step, **figures[step]) for step in whole]

    def models(self, run: RecordedRun) -> list[RecordedModel]:
        """The models that a run has logged."""
        with self._explained():
            logged = self._client.search_logged_models([self._experiment], f"source_run_id = '{run.id}'")
            versions = self._client.search_model_versions(f"run_id = '{run.id}'")
            return [
                RecordedModel(model.model_id, [self._version(v.name, v.version) for v in versions]) for model in logged
            ]

    def _version(self, name: str, number: str) -> str:
        aliases = self._client.get_model_version(name, number).aliases
        return f"{name} version {number}" + (f" ({', '.join(aliases)})" if aliases else "")

    def _by_id(self, id: str) -> RecordedRun | None:
        from mlflow.exceptions import MlflowException

        try:
            return _read(self._client.get_run(id))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _last(self) -> str:
        names = [str(run) for run in self.search("", most=_MOST_LISTED)]
        return "The last ones are:\n" + "\n".join(f"  {name}" for name in names) if names else "It has none."

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (Refused, Unreachable) as error:
            raise TrackingError(f"MLflow at {self._store}: {error}.") from error
        except PipelineError:
            raise
        except Exception as error:
            raise TrackingError(f"MLflow at {self._store}: {explained(self._store, error)}.") from error


def _read(run: "Run") -> RecordedRun:
    return RecordedRun(
        id=run.info.run_id,
        name=run.info.run_name or "",
        started=datetime.fromtimestamp((run.info.start_time or 0) / 1000),
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metrics=dict(run.data.metrics),
        counts=_counts(run),
    )


def _counts(run: "Run") -> dict[str, int]:
    """Of the run's dataset, as linked.log_dataset has written it."""
    for given in run.inputs.dataset_inputs if run.inputs else []:
        with suppress(ValueError, TypeError, AttributeError):
            profile = json.loads(given.dataset.profile or "")
            return {part: int(profile[part]) for part in ("training", "validation", "test") if part in profile}
    return {}
