"""The end of a grid: a table of results, the learning curves, and a figure if depth or family varies.

A grid has no winner and no confirmation. Since nothing is chosen by the results, they may include the test error.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
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
from pipeline.outcome import Outcome
from pipeline.search.studies.display import shown
from pipeline.search.studies.epochs import read_epochs
from pipeline.search.studies.grid import GridSpec, Measured
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.resources import StudyResources
from pipeline.search.studies.trials import Trial
from pipeline.search.studies.watcher import Watcher

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
"""Columns of the table after trial, ended and the varied keys. Errors are shares after the last epoch; `why` is of
failed trials."""


@dataclass(frozen=True)
class GridResults:
    """The ending of a grid."""

    project: Project
    grid: GridSpec
    console: Console
    measure: Callable[[Project, Config, Path], Measured]
    """Measures the network of a configuration, with the weights in a file, on the test set."""

    def save_results(self, search: Ledger, confirmation: Ledger) -> dict[str, Any]:
        rows = [self._row(trial) for trial in search.trials]
        header = ["trial", "ended", *self.grid.settings.space, *FIGURES]
        write_csv(self.project.grid_table(self.grid.name), header, ([row[key] for key in header] for row in rows))
        curves = [
            [trial.number, epoch.number, _error(epoch.training_accuracy), _error(epoch.validation_accuracy)]
            for trial in search.trials
            for epoch in read_epochs(self._folder(trial)).values()
        ]
        header = ["trial", "epoch", "training_error", "validation_error"]
        write_csv(self.project.grid_curves(self.grid.name), header, curves)
        figure = self.project.grid_figure(self.grid.name)
        if image := self._image(search):
            with atomic_write(figure) as aside:
                aside.write_bytes(image)
        else:
            figure.unlink(missing_ok=True)  # of an earlier version of the grid
        return {"study": self.grid.name, "trials": rows}

    def watchers(self, search: Ledger, confirmation: Ledger, phase: str) -> Sequence[Watcher]:
        return ()

    def finalize(self, search: Ledger, confirmation: Ledger, resources: StudyResources) -> None:
        finished = [trial for trial in search.trials if trial.state == "finished"]
        with self.console.status("measuring the test error") as status:
            for number, trial in enumerate(finished, 1):
                status.update(f"measuring the test error: {number} of {len(finished)}")
                self._measure(trial)
        self.save_results(search, confirmation)
        for path in self._files():
            resources.parent.log_file(path)
        resources.wait_for_models(self.console)
        recorder = resources.recorder(search)
        for trial in finished:
            if measured := self._measured(trial):
                run = resources.run.tracker.open(recorder.key(trial), parent=resources.parent.key)
                run.log_metrics(
                    {
                        "evaluate.accuracy": 1 - measured.error,
                        "evaluate.parameters": measured.parameters,
                        "evaluate.macs": measured.macs,
                    },
                    step=len(trial.scores),
                )
                run.finish(Outcome.FINISHED)

    def print_summary(self, search: Ledger, confirmation: Ledger) -> None:
        keys = [*self.grid.settings.space]
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
                errors[-1] = trial.status
            table.add_row(
                str(trial.number),
                *(shown(trial.values[key]) if key in trial.values else "" for key in keys),
                "" if row["parameters"] is None else f"{row['parameters']:,}",
                *errors,
                duration(trial.elapsed_s),
            )
        self.console.print(table)
        folder = self.project.grids / self.grid.name
        if failed := sum(trial.state == "failed" for trial in search.trials):
            sentence = (
                f"{failed} of {len(search.trials)} combinations failed: the column why of "
                f"{folder.relative_to(self.project.root) / 'results.csv'} says of what. "
                f"`python -m pipeline.tune --study {search.name} --delete`, and the same command trains all again."
            )
            if failed == len(search.trials):
                raise PipelineError(sentence)
            self.console.print(sentence, highlight=False)
        files = ", ".join(path.name for path in self._files())
        next_step = "dvc repro -f -s report" if self.project.metrics.exists() else "dvc repro             "
        self.console.print(
            f"{folder.relative_to(self.project.root)} has {files}. Next:\n"
            f"  {next_step}     puts them on the page results/report/index.html\n"
            f'  mlflow ui                  all trials, below the run "study {search.name}"',
            highlight=False,
        )

    def already_done(self, search: Ledger) -> str:
        return f"The study {self.grid.name} is over: all its {len(search.trials)} combinations are trained."

    def mismatch_advice(self, name: str) -> str:
        return (
            "To resume it, set that back; under another name in the section study of params.yaml it is another "
            f"study; `python -m pipeline.tune --study {name} --delete` removes this one, so that its name begins anew."
        )

    def _folder(self, trial: Trial) -> Path:
        return self.project.study_folder(self.grid.study) / "trials" / f"{trial.number:04}"

    def _files(self) -> list[Path]:
        files = [write(self.grid.name) for write in (self.project.grid_table, self.project.grid_curves)]
        return files + [path for path in (self.project.grid_figure(self.grid.name),) if path.exists()]

    def _measure(self, trial: Trial) -> None:
        """Measures a trial on the test set, if it was not measured before: the result stays in the trial's folder."""
        if self._measured(trial) is None:
            folder = self._folder(trial)
            measured = self.measure(
                self.project, self.grid.settings.with_values(trial.values), folder / "model.safetensors"
            )
            with atomic_write(folder / "measured.json") as aside:
                aside.write_text(json.dumps(asdict(measured)), encoding="utf-8")

    def _measured(self, trial: Trial) -> Measured | None:
        with suppress(FileNotFoundError):
            return Measured(**json.loads((self._folder(trial) / "measured.json").read_text(encoding="utf-8")))
        return None

    def _row(self, trial: Trial) -> dict[str, Scalar]:
        epochs = list(read_epochs(self._folder(trial)).values())
        measured = self._measured(trial)
        row: dict[str, Scalar] = {"trial": trial.number, "ended": trial.status}
        row |= {key: trial.values.get(key) for key in self.grid.settings.space}
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
        """The figure of depth and family; None if the grid varies neither, or has too many kinds of network."""
        if not {FAMILY, DEPTH} & set(self.grid.settings.space):
            return None
        from pipeline.reporting import degradation_plot

        networks = []
        for trial in search.trials:
            epochs, measured = read_epochs(self._folder(trial)).values(), self._measured(trial)
            depth = trial.values.get(DEPTH)
            networks.append(
                degradation_plot.Network(
                    _kind(trial.values, str(self.grid.settings.model.family)),
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
    """A network in words, without its depth: `resnet, width 16`."""
    others = [f"{key.rpartition('.')[2]} {shown(value)}" for key, value in values.items() if key not in (FAMILY, DEPTH)]
    return ", ".join([str(values.get(FAMILY, family)), *others])


def _error(accuracy: float) -> float:
    return round(1 - accuracy, 6)
