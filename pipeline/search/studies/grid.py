"""The end of a study of all combinations: a table of results, the learning curves, and the figure of a depth study.

Nothing is chosen, so no trial wins and none is trained again; what is measured may be the test error.
"""

import json
import statistics
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.cli import duration
from pipeline.config import Config, Scalar
from pipeline.errors import PipelineError
from pipeline.files import Project, atomic_write, write_csv
from pipeline.search.studies.display import shown
from pipeline.search.studies.ledger import Ledger, Trial
from pipeline.search.studies.recorder import read_epochs
from pipeline.search.studies.resources import StudyResources

FAMILY, DEPTH = "model.family", "model.depth"
FIGURES = (
    "parameters",
    "macs",
    "epochs",
    "training_error",
    "validation_error",
    "test_error",
    "elapsed_s",
    "images_per_second",
    "why",
)
"""Columns of the table behind trial, ended and the keys that are varied. Errors are shares, of the last epoch;
`why` is for those that failed."""


def name_of(study: str) -> str:
    """What the study is called among searches: in Optuna, in MLflow, in .studies."""
    return f"grid-{study}"


@dataclass(frozen=True)
class Measured:
    """A trained network, measured."""

    error: float
    """Share of the test images that it takes for another class."""
    parameters: int
    macs: int


@dataclass(frozen=True)
class Grid:
    """The ending of the study `name` of params.yaml."""

    project: Project
    name: str
    settings: Config
    console: Console
    test: Callable[[Config, Path], Measured]
    """Measures the network of a configuration with the weights of a file."""

    def write(self, search: Ledger, confirmation: Ledger) -> dict[str, Any]:
        rows = [self._row(trial) for trial in search.trials]
        header = ["trial", "ended", *self.settings.space, *FIGURES]
        write_csv(self.project.study_table(self.name), header, ([row[key] for key in header] for row in rows))
        curves = [
            [trial.number, epoch.number, _error(epoch.training_accuracy), _error(epoch.validation_accuracy)]
            for trial in search.trials
            for epoch in read_epochs(self._folder(trial)).values()
        ]
        header = ["trial", "epoch", "training_error", "validation_error"]
        write_csv(self.project.study_curves(self.name), header, curves)
        figure = self.project.study_figure(self.name)
        if image := self._image(search):
            with atomic_write(figure) as aside:
                aside.write_bytes(image)
        else:
            figure.unlink(missing_ok=True)  # of the study as it was before
        return {"study": self.name, "trials": rows}

    def finalize(self, search: Ledger, confirmation: Ledger, resources: StudyResources) -> None:
        finished = [trial for trial in search.trials if trial.state == "finished"]
        with self.console.status("measuring the test error") as status:
            for place, trial in enumerate(finished, 1):
                status.update(f"measuring the test error: {place} of {len(finished)}")
                self._measure(trial)
        self.write(search, confirmation)
        for path in self._files():
            resources.parent.log_file(path)
        resources.wait_for_models(self.console)
        recorder = resources.recorder(search, "trial")
        for trial in finished:
            if measured := self._measured(trial):
                run = resources.tracker.open(recorder.key(trial), parent=resources.parent.key)
                run.log_metrics(
                    {
                        "evaluate.accuracy": 1 - measured.error,
                        "evaluate.parameters": measured.parameters,
                        "evaluate.macs": measured.macs,
                    },
                    step=len(trial.scores),
                )
                run.finish("finished")

    def tell(self, search: Ledger, confirmation: Ledger) -> None:
        keys = [*self.settings.space]
        table = Table("trial", *(key.rpartition(".")[2] for key in keys), box=None, pad_edge=False)
        for name in ("parameters", "training error", "validation error", "test error", "time"):
            table.add_column(name, justify="right")
        for trial in search.trials:
            row = self._row(trial)
            errors = [
                "" if row[f"{part}_error"] is None else f"{row[f'{part}_error']:.2%}"
                for part in ("training", "validation", "test")
            ]
            if trial.state == "failed":
                errors[-1] = str(trial.ended)
            table.add_row(
                str(trial.number),
                *("" if row[key] is None else shown(row[key]) for key in keys),
                "" if row["parameters"] is None else f"{row['parameters']:,}",
                *errors,
                duration(trial.elapsed_s),
            )
        self.console.print(table)
        places = self.project.studies / self.name
        if failed := sum(trial.state == "failed" for trial in search.trials):
            sentence = (
                f"{failed} of {len(search.trials)} combinations failed: the column why of "
                f"{places.relative_to(self.project.root) / 'results.csv'} says of what. "
                f"`python -m pipeline.tune --study {search.name} --delete`, and the same command trains all again."
            )
            if failed == len(search.trials):
                raise PipelineError(sentence)
            self.console.print(sentence, highlight=False)
        files = ", ".join(path.name for path in self._files())
        next_step = "dvc repro -f -s report" if self.project.metrics.exists() else "dvc repro             "
        self.console.print(
            f"{places.relative_to(self.project.root)} has {files}. Next:\n"
            f"  {next_step}     puts them on the page results/report/index.html\n"
            f'  mlflow ui                  all trials, below the run "study {search.name}"',
            highlight=False,
        )

    def over(self, search: Ledger) -> str:
        return f"The study {self.name} is over: all its {len(search.trials)} combinations are trained."

    def mismatch_advice(self, name: str) -> str:
        return (
            "To go on with it set that back; under another name in the section study of params.yaml it is another "
            f"study; `python -m pipeline.tune --study {name} --delete` removes this one, so that its name begins anew."
        )

    def _folder(self, trial: Trial) -> Path:
        return self.project.study_folder(name_of(self.name)) / "trials" / f"{trial.number:04}"

    def _files(self) -> list[Path]:
        files = [write(self.name) for write in (self.project.study_table, self.project.study_curves)]
        return files + [path for path in (self.project.study_figure(self.name),) if path.exists()]

    def _measure(self, trial: Trial) -> None:
        """Once: the figures stay in the trial's folder."""
        if self._measured(trial) is None:
            folder = self._folder(trial)
            measured = self.test(self.settings.with_values(trial.values), folder / "model.safetensors")
            with atomic_write(folder / "measured.json") as aside:
                aside.write_text(json.dumps(asdict(measured)), encoding="utf-8")

    def _measured(self, trial: Trial) -> Measured | None:
        with suppress(FileNotFoundError):
            return Measured(**json.loads((self._folder(trial) / "measured.json").read_text(encoding="utf-8")))
        return None

    def _row(self, trial: Trial) -> dict[str, Scalar]:
        epochs = list(read_epochs(self._folder(trial)).values())
        measured = self._measured(trial)
        row: dict[str, Scalar] = {"trial": trial.number, "ended": trial.ended or trial.state}
        row |= {key: trial.values.get(key) for key in self.settings.space}
        row |= dict.fromkeys(FIGURES) | {"epochs": len(epochs), "why": trial.why}
        if epochs:
            row |= {
                "training_error": _error(epochs[-1].training_accuracy),
                "validation_error": _error(epochs[-1].validation_accuracy),
                "elapsed_s": round(epochs[-1].elapsed_s, 3),
                "images_per_second": round(statistics.median(epoch.images_per_second for epoch in epochs), 1),
            }
        if measured:
            row |= {"parameters": measured.parameters, "macs": measured.macs, "test_error": round(measured.error, 6)}
        return row

    def _image(self, search: Ledger) -> bytes | None:
        """The figure, where the study has what it shows."""
        if not {FAMILY, DEPTH} & set(self.settings.space):
            return None
        from pipeline.reporting import degradation_plot

        networks = []
        for trial in search.trials:
            epochs, measured = read_epochs(self._folder(trial)).values(), self._measured(trial)
            depth = trial.values.get(DEPTH)
            networks.append(
                degradation_plot.Network(
                    _kind(trial.values, str(self.settings.model.family)),
                    depth if isinstance(depth, int) else None,
                    [_error(epoch.training_accuracy) for epoch in epochs],
                    [_error(epoch.validation_accuracy) for epoch in epochs],
                    measured.error if measured else None,
                )
            )
        kinds = {network.kind for network in networks if network.validation}
        if not 0 < len(kinds) <= degradation_plot.MOST_KINDS:
            return None
        return degradation_plot.degradation(networks)


def _kind(values: Mapping[str, Scalar], family: str) -> str:
    """What a network is beside its depth, in words: `resnet, width 16`."""
    others = [f"{key.rpartition('.')[2]} {shown(value)}" for key, value in values.items() if key not in (FAMILY, DEPTH)]
    return ", ".join([str(values.get(FAMILY, family)), *others])


def _error(accuracy: float) -> float:
    return round(1 - accuracy, 6)
