"""The watcher that records a study in MLflow: the study as a parent run, each trial as its child, live.

What MLflow is told also stands in the trial's folder (epochs.jsonl, reached.json), so that a store that lost it, or a
process that died before it was told, gets it at the next start.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline import config
from pipeline.config import Config, Scalar
from pipeline.exporting.process import Exporter
from pipeline.files import atomic_write
from pipeline.records import Epoch, Meta
from pipeline.search.engines.base import Failed, TargetReached
from pipeline.search.studies.ledger import Ledger, Trial
from pipeline.search.studies.owner import Watcher
from pipeline.tracking import Run, Tracker

ACCURACY = "train.validation_accuracy"


@dataclass
class Models:
    """The making of MLflow models, each followed by what is to be done with it. Recorders share one."""

    exporter: Exporter
    _waiting: dict[int, Callable[[Path, str | None], None]] = field(default_factory=dict)
    _count: int = 0

    def make(
        self, weights: Path, network: config.Model, folder: Path, then: Callable[[Path, str | None], None]
    ) -> None:
        """Makes a model in `folder`; `then` gets it, or None and why there is none, at a later `tick`."""
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed before it handed it on
        self._count += 1
        self._waiting[self._count] = then
        self.exporter.submit(self._count, weights, network, folder)

    def tick(self) -> None:
        for number, folder, error in self.exporter.done() if self._waiting else ():
            self._waiting.pop(number)(folder, error)

    @property
    def waiting(self) -> int:
        """Models that are being made."""
        return len(self._waiting)


@dataclass
class Recorder(Watcher):
    """Records the trials of one ledger under one parent run."""

    tracker: Tracker
    parent: Run
    ledger: Ledger
    config_of: Callable[[Trial], Config]
    folder: Path
    """Where the trials' folders are."""
    name: str
    """How trials are called in MLflow, with a number behind it."""
    meta: Meta
    tags: Mapping[str, Scalar]
    """Of every trial."""
    epochs: int
    """Of a full training."""
    models: Models | None
    """None: no trial keeps its model."""
    keep_all: bool = False
    """Whether pruned trials keep their model too."""
    _runs: dict[int, Run] = field(default_factory=dict)
    """Of trials that are with a worker, or whose model is being made."""

    def key(self, trial: Trial) -> str:
        return f"{self.parent.key}-{self.name}-{trial.number:04}"

    def reconcile(self) -> None:
        """Records what MLflow lacks of trials that are paused or have ended; nothing while it does not answer."""
        known = self.tracker.children(self.parent.key)
        for trial in self.ledger.trials if known is not None else ():
            if trial.state == "running":
                continue
            ended = trial.ended or "paused"
            recorded = known.get(self.key(trial)) if known else None
            whole = recorded and recorded.ended == ended and recorded.last_step >= len(trial.scores)
            if whole and not (ended == "finished" and self._lacks_model(trial)):
                continue
            if recorded is None:
                (self._folder(trial) / "exported").unlink(missing_ok=True)  # into a store that is gone
            self._open(trial, self.config_of(trial))
            for epoch in read_epochs(self._folder(trial)).values():
                self._log_epoch(trial, epoch)
            with suppress(FileNotFoundError):
                self._log_reached(trial, json.loads(self._reached(trial).read_text(encoding="utf-8")))
            if trial.ended:
                self.ended(trial, trial.ended, trial.why)
            else:
                self._finish(trial, "paused")

    # What a watcher is told.

    def sent(self, trial: Trial, settings: Config) -> None:
        if trial.number in self._runs:
            return
        if "reached" in trial.attributes:
            self._reopen(trial)
        else:
            self._open(trial, settings)

    def trained(self, trial: Trial, epoch: Epoch) -> None:
        with (self._folder(trial) / "epochs.jsonl").open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(asdict(epoch)))  # a line that a kill tore can't spoil the next one
        self._log_epoch(trial, epoch)

    def reached(self, trial: Trial, reached: TargetReached) -> None:
        content = {
            "epoch": reached.epoch,
            "confusion": reached.confusion,
            "device": reached.setting.device,
            "counts": reached.setting.counts,
            "peak_memory_bytes": reached.peak_memory_bytes,
        }
        with atomic_write(self._reached(trial)) as aside:
            aside.write_text(json.dumps(content), encoding="utf-8")
        self._log_reached(trial, content)
        if reached.epoch < self.epochs and not reached.over:
            self._finish(trial, "paused")

    def ended(self, trial: Trial, ended: str, why: str | None) -> None:
        if trial.number not in self._runs:  # it was paused
            self._reopen(trial)
        run = self._runs[trial.number]
        if why:
            run.set_tags({"ended.why": why})
        if ended == "finished" and "of" not in trial.attributes:  # else it is one that is trained again
            self._log_best(trial)
        if self._lacks_model(trial) and (ended == "finished" or (ended == "pruned" and self.keep_all)):
            self._export(trial, ended)
        else:
            self._finish(trial, ended)

    def failed(self, trial: Trial, failed: Failed) -> None:
        self._runs[trial.number].set_tags({f"failure.{trial.crashes}": f"{failed.ended}: {failed.why}"})

    def stopped(self, trial: Trial) -> None:
        if trial.number in self._runs:
            self._finish(trial, "interrupted")

    def tick(self) -> None:
        if self.models:
            self.models.tick()

    def release(self) -> None:
        """Ends the runs of trials whose model is not made yet: the next start makes it."""
        for number in list(self._runs):
            self._runs.pop(number).finish("interrupted")

    def _folder(self, trial: Trial) -> Path:
        return self.folder / f"{trial.number:04}"

    def _reached(self, trial: Trial) -> Path:
        return self._folder(trial) / "reached.json"

    def _lacks_model(self, trial: Trial) -> bool:
        folder = self._folder(trial)
        return bool(self.models) and (folder / "model.safetensors").exists() and not (folder / "exported").exists()

    def _open(self, trial: Trial, settings: Config) -> None:
        # Made before the run is: while it is not there MLflow can't have heard of the trial, and need not look for it.
        folder = self._folder(trial)
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        run = self.tracker.open(self.key(trial), name=f"{self.name} {trial.number}", parent=self.parent.key, new=new)
        self._runs[trial.number] = run
        with run.batch():
            run.log_params(
                {key: value for key, value in settings.values().items() if not config.decides_scoring(key)}
                | ({"data.url": self.meta.source} if settings.data.url else {})
            )
            run.set_tags(
                {**self.tags, "study": self.ledger.name, "trial": trial.number, "seed": trial.attributes["seed"]}
                | {key: trial.attributes[key] for key in ("of",) if key in trial.attributes}
            )

    def _reopen(self, trial: Trial) -> None:
        self._runs[trial.number] = self.tracker.open(self.key(trial), parent=self.parent.key)

    def _log_epoch(self, trial: Trial, epoch: Epoch) -> None:
        figures = {f"train.{key}": value for key, value in asdict(epoch).items() if key != "number"}
        self._runs[trial.number].log_metrics(figures, step=epoch.number)

    def _log_reached(self, trial: Trial, content: Mapping[str, Any]) -> None:
        run = self._runs[trial.number]
        device, counts = content["device"], content["counts"]
        with run.batch():
            run.log_confusion_matrix(content["confusion"], self.meta.classes)
            run.set_tags({f"device.{key}": value for key, value in device.items()})
            run.log_metrics({"train.peak_memory_bytes": content["peak_memory_bytes"]}, step=content["epoch"])
            run.log_dataset(
                name=self.meta.name,
                digest=self.meta.digest,
                source=self.meta.source,
                counts=counts,
                shape=self.meta.shape,
                classes=len(self.meta.classes),
                context="training",
            )

    def _log_best(self, trial: Trial) -> None:
        """The best accuracy so far, over the number of trials that were trained to the end."""
        finished = {other.number: other.scores[-1] for other in self.ledger.trials if other.state == "finished"}
        finished[trial.number] = trial.scores[-1]
        self.parent.log_metrics({"best.validation_accuracy": max(finished.values())}, step=len(finished))

    def _export(self, trial: Trial, ended: str) -> None:
        folder, run = self._folder(trial), self._runs[trial.number]

        def then(model: Path, error: str | None) -> None:
            if error:
                run.set_tags({"model.error": error})
            else:
                run.log_saved_model(model)
            (folder / "exported").touch()
            self._finish(trial, ended)

        if self.models:
            network = self.config_of(trial).model
            self.models.make(folder / "model.safetensors", network, folder / "mlflow-model", then)

    def _finish(self, trial: Trial, ended: str) -> None:
        self._runs.pop(trial.number).finish(ended)


def read_epochs(folder: Path) -> dict[int, Epoch]:
    """The epochs of a trial that its folder tells of, by number."""
    found = {}
    with suppress(FileNotFoundError), (folder / "epochs.jsonl").open(encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError, TypeError):  # a line that a kill tore
                epoch = Epoch(**json.loads(line))
                found[epoch.number] = epoch
    return dict(sorted(found.items()))
