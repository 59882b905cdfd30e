"""The watcher that records a study in MLflow while it runs: the study is a parent run, each trial a child run.

What is recorded in MLflow is also written into the trial's folder (epochs.jsonl, reached.json). The next start records
it again if MLflow's store was lost, or if a process died before it had recorded it.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import config
from pipeline.config import Config, Scalar
from pipeline.files import atomic_write, sha256
from pipeline.outcome import Outcome
from pipeline.records import Epoch, Meta
from pipeline.search.engines.base import Failed, TargetReached
from pipeline.search.studies.display import shown
from pipeline.search.studies.epochs import append_epoch, read_epochs
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.models import Models
from pipeline.search.studies.trials import Trial, TrialSetup
from pipeline.search.studies.watcher import Watcher
from pipeline.tracking import Run, Tracker

NAME_LENGTH = 200
"""Of a run's name. MLflow takes 250 letters on every store."""
MANY = 64
"""With more running trials than that a trial that pauses gets its confusion matrix when it ends: drawing takes most of
the owner's time for a pause."""


@dataclass(frozen=True)
class StudyRun:
    """The study's run in MLflow, and what all its trials have in common there."""

    tracker: Tracker
    parent: Run
    """The study's own run."""
    meta: Meta
    """Of the data."""
    tags: Mapping[str, Scalar]
    """Of every trial."""


@dataclass(kw_only=True)
class Recorder(Watcher):
    """Records the trials of one ledger below one parent run."""

    study: StudyRun
    ledger: Ledger
    setup: TrialSetup
    phase: str
    """trial or confirm"""
    models: Models | None = None
    """None: no trial keeps its model."""
    _runs: dict[int, Run] = field(default_factory=dict)
    """Open MLflow runs by number of the trial: a worker has the trial, or its model is being made."""
    _before: frozenset[int] = field(init=False)
    """The trials that were there when this owner began: another one, maybe in another folder, may have opened runs."""

    def __post_init__(self) -> None:
        self._before = frozenset(trial.number for trial in self.ledger.trials)

    def key(self, trial: Trial) -> str:
        """Of the trial's run."""
        return f"{self.study.parent.key}-{self.phase}-{trial.number:04}"

    def run_name(self, trial: Trial) -> str:
        """What MLflow's lists and charts call it: `17: lr 0.12 bs 250 depth 11`. Their columns are narrow."""
        short = [_initials(name) for name in trial.values]
        names = [
            one if short.count(one) == 1 else name.rpartition(".")[2]
            for one, name in zip(short, trial.values, strict=True)
        ]
        values = " ".join(f"{name} {shown(value)}" for name, value in zip(names, trial.values.values(), strict=True))
        number = f"{trial.number}" if self.phase == "trial" else f"{self.phase} {trial.number}"
        return f"{number}: {values}"[:NAME_LENGTH]

    def reconcile(self) -> None:
        """Records what MLflow lacks of paused and ended trials; nothing while MLflow does not answer.

        To be called when an owner has been made: it fetches the models of trials that ended on another machine.
        """
        known = self.study.tracker.children(self.study.parent.key)
        for trial in self.ledger.trials if known is not None else ():
            if trial.state == "running":
                continue
            outcome = trial.outcome or Outcome.PAUSED
            recorded = known.get(self.key(trial)) if known else None
            # An owner in another folder may have logged it.
            if recorded and recorded.has_model and self._folder(trial).exists():
                self._exported(trial).touch()
            complete = recorded and recorded.ended == outcome and recorded.last_step >= len(trial.scores)
            if complete and not (outcome is Outcome.FINISHED and self._lacks_model(trial)):
                continue
            if recorded is None:
                self._exported(trial).unlink(missing_ok=True)  # the store that it refers to is gone
            self._open(trial, self.setup.config_of(trial))
            for epoch in read_epochs(self._folder(trial)).values():
                self._log_epoch(trial, epoch)
            with suppress(FileNotFoundError, ValueError):  # a power cut may have emptied it
                self._log_reached(trial, json.loads(self._reached(trial).read_text(encoding="utf-8")))
            if trial.outcome:
                self.ended(trial, trial.outcome, trial.why)
            else:
                self._finish(trial, Outcome.PAUSED)

    def sent(self, trial: Trial, settings: Config) -> None:
        if trial.number in self._runs:
            return
        if "reached" in trial.attributes:
            self._reopen(trial)
        else:
            self._open(trial, settings)

    def trained(self, trial: Trial, epoch: Epoch) -> None:
        append_epoch(self._folder(trial), epoch)
        self._log_epoch(trial, epoch)

    def reached(self, trial: Trial, reached: TargetReached) -> None:
        content = {
            "epoch": reached.epoch,
            "confusion": reached.confusion,
            "device": reached.worker.device,
            "counts": reached.worker.counts,
            "peak_memory_bytes": reached.peak_memory_bytes,
            "drawn": len(self._runs) <= MANY or reached.epoch >= self.setup.epochs or reached.over,
        }
        with atomic_write(self._reached(trial), durable=False) as aside:
            aside.write_text(json.dumps(content), encoding="utf-8")
        self._log_reached(trial, content)
        if reached.epoch < self.setup.epochs and not reached.over:
            self._finish(trial, Outcome.PAUSED)

    def ended(self, trial: Trial, outcome: Outcome, why: str | None) -> None:
        if trial.number not in self._runs:  # the trial was paused
            self._reopen(trial)
            with suppress(FileNotFoundError, ValueError):
                content = json.loads(self._reached(trial).read_text(encoding="utf-8"))
                if not content.get("drawn", True):
                    self._runs[trial.number].log_confusion_matrix(content["confusion"], self.study.meta.classes)
        run = self._runs[trial.number]
        if why:
            run.set_tags({"ended.why": why})
        if outcome is Outcome.FINISHED and "of" not in trial.attributes:  # a trial of the confirmation has `of`
            self._log_best(trial)
        keeps_model = outcome is Outcome.FINISHED or (outcome is Outcome.PRUNED and self.setup.keep_models)
        if keeps_model and self._lacks_model(trial):
            self._export(trial, outcome)
        else:
            self._finish(trial, outcome)

    def failed(self, trial: Trial, failed: Failed) -> None:
        self._runs[trial.number].set_tags({f"failure.{trial.crashes}": f"{failed.outcome}: {failed.why}"})

    def stopped(self, trial: Trial) -> None:
        if trial.number in self._runs:
            self._finish(trial, Outcome.INTERRUPTED)

    def saving(self) -> None:
        self.study.tracker.sync()

    def tick(self) -> None:
        if self.models:
            self.models.tick()

    def release(self) -> None:
        """Ends the runs of trials whose models are not made yet. The next start makes the models."""
        for number in list(self._runs):
            is_finished = self.ledger.trials[number].outcome is Outcome.FINISHED
            self._runs.pop(number).finish(Outcome.FINISHED if is_finished else Outcome.INTERRUPTED)

    def _folder(self, trial: Trial) -> Path:
        return self.setup.folder_of(trial)

    def _reached(self, trial: Trial) -> Path:
        return self._folder(trial) / "reached.json"

    def _exported(self, trial: Trial) -> Path:
        """Marks a trial whose model MLflow has, or can't have."""
        return self._folder(trial) / "exported"

    def _lacks_model(self, trial: Trial) -> bool:
        weights = self._folder(trial) / "model.safetensors"
        return bool(self.models) and weights.exists() and not self._exported(trial).exists()

    def _open(self, trial: Trial, settings: Config) -> None:
        # The folder is made before the run. As long as it is missing, MLflow has no run of the trial to search for.
        folder = self._folder(trial)
        new = trial.number not in self._before and not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        run = self.study.tracker.open(self.key(trial), name=self.run_name(trial), parent=self.study.parent.key, new=new)
        self._runs[trial.number] = run
        with run.batch():
            run.log_params(
                {key: value for key, value in settings.values().items() if not config.decides_scoring(key)}
                | ({"data.url": self.study.meta.source} if settings.data.url else {})
            )
            run.set_tags(
                {**self.study.tags, "study": self.ledger.name, "trial": trial.number, "seed": trial.attributes["seed"]}
                | {key: trial.attributes[key] for key in ("of",) if key in trial.attributes}
            )

    def _reopen(self, trial: Trial) -> None:
        self._runs[trial.number] = self.study.tracker.open(self.key(trial), parent=self.study.parent.key)

    def _log_epoch(self, trial: Trial, epoch: Epoch) -> None:
        figures = {f"train.{key}": value for key, value in vars(epoch).items() if key != "number"}
        self._runs[trial.number].log_metrics(figures, step=epoch.number)

    def _log_reached(self, trial: Trial, content: Mapping[str, Any]) -> None:
        run = self._runs[trial.number]
        device, counts, meta = content["device"], content["counts"], self.study.meta
        with run.batch():
            if content.get("drawn", True):
                run.log_confusion_matrix(content["confusion"], meta.classes)
            run.set_tags({f"device.{key}": value for key, value in device.items()})
            run.log_metrics({"train.peak_memory_bytes": content["peak_memory_bytes"]}, step=content["epoch"])
            run.log_dataset(meta, counts, context="training")

    def _log_best(self, trial: Trial) -> None:
        """Logs the best accuracy so far, with the number of finished trials as its step."""
        finished = {other.number: other.scores[-1] for other in self.ledger.trials if other.state == "finished"}
        finished[trial.number] = trial.scores[-1]
        self.study.parent.log_metrics({"best.validation_accuracy": max(finished.values())}, step=len(finished))

    def _export(self, trial: Trial, outcome: Outcome) -> None:
        folder, run = self._folder(trial), self._runs[trial.number]

        def then(model: Path, error: str | None) -> None:
            if error:
                run.set_tags({"model.error": error})
            else:
                run.log_saved_model(model)
            self._exported(trial).touch()
            self._finish(trial, outcome)

        if self.models:
            network, weights = self.setup.config_of(trial).model, folder / "model.safetensors"
            run.set_tags({"model.sha256": sha256(weights)})
            self.models.make(weights, network, folder / "mlflow-model", then)

    def _finish(self, trial: Trial, outcome: Outcome) -> None:
        self._runs.pop(trial.number).finish(outcome)


def _initials(key: str) -> str:
    """Of a key of several words, as the field shortens them: lr, wd. One of a single word stays."""
    words = key.rpartition(".")[2].split("_")
    return "".join(word[:1] for word in words) if len(words) > 1 else words[0]
