"""What becomes of a study at its end: what it leaves in results/ and in MLflow, and what a person is told.

`Winner` is the end of a search. A study of all combinations (pipeline/study.py) brings its own.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from pipeline import config
from pipeline.cli import duration
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.search.space.space import Space
from pipeline.search.studies import outcome
from pipeline.search.studies.catalog import bytes_of
from pipeline.search.studies.display import on_a_line
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.resources import StudyResources

ALIAS = "best"
"""Of the winner's model in MLflow's registry."""


class Ending(Protocol):
    """Is asked by the session of a study when it stops, and when it is over."""

    def write(self, search: Ledger, confirmation: Ledger) -> dict[str, Any]:
        """Writes the result files as far as the study has come, and returns what --json prints."""
        ...

    def finalize(self, search: Ledger, confirmation: Ledger, resources: StudyResources) -> None:
        """What is done once, when all trials are over: the rest of the files, and what MLflow gets."""
        ...

    def tell(self, search: Ledger, confirmation: Ledger) -> None:
        """Says what was found, and what to do next. Raises PipelineError if no trial was trained to the end."""
        ...

    def over(self, search: Ledger) -> str:
        """What to say where there is nothing left to do."""
        ...

    def mismatch_advice(self, name: str) -> str:
        """What can be done about a study that was begun with other values."""
        ...


@dataclass(frozen=True)
class Winner:
    """A search ends with a winner, whose values one goes on with."""

    project: Project
    settings: Config
    dataset: str
    """Its name."""
    space: Space
    apply: bool
    """Whether the winner's values are written into params.yaml."""
    console: Console

    def write(self, search: Ledger, confirmation: Ledger) -> dict[str, Any]:
        study = outcome.described(search, confirmation, self.settings)
        outcome.write(self.project, search, confirmation, self.space, study)
        return study

    def finalize(self, search: Ledger, confirmation: Ledger, resources: StudyResources) -> None:
        """MLflow gets result files, images, the winner's figures and its model under an alias."""
        self.write(search, confirmation)
        candidates = outcome.ranking(search, confirmation)
        parent = resources.parent
        for path in (self.project.trials, self.project.study, self.project.best):
            if path.is_file():
                parent.log_file(path)
        for name, image in outcome.images(search, self.space).items():
            parent.log_bytes(image, f"{name}.png")
        if candidates:
            best = candidates[0]
            parent.set_tags({"winner": best.trial.number})
            parent.log_metrics(
                {"winner.validation_accuracy": best.mean} | ({"winner.sd": best.sd} if best.sd is not None else {})
            )
        # The longest wait last: models are made while the images are.
        resources.wait_for_models(self.console)
        if candidates and resources.models:
            run = resources.tracker.open(
                resources.recorder(search, "trial").key(candidates[0].trial), parent=parent.key
            )
            run.register_model(f"{self.dataset}-{search.name}", ALIAS)
            run.finish("finished")

    def tell(self, search: Ledger, confirmation: Ledger) -> None:
        candidates = outcome.ranking(search, confirmation)
        if not candidates:
            raise PipelineError("No trial was trained to the end: results/tune/trials.csv says why.")
        best = candidates[0]
        table = Table("trial", "searched with", "again: mean ± sd", "values", box=None, pad_edge=False)
        for one in candidates:
            again = f"{one.mean:.2%}" if one.accuracies else "not done"
            again += f" ± {one.sd * 100:.2f} ({len(one.accuracies)} seeds)" if one.sd is not None else ""
            table.add_row(str(one.trial.number), f"{one.single:.2%}", again, on_a_line(one.trial.values))
        self.console.print(table)
        trials = "1 trial" if len(search.trials) == 1 else f"{len(search.trials)} trials"
        spent = sum(len(trial.scores) for trial in search.trials)
        full = len(search.trials) * self.settings.train.epochs
        folder = self.project.study_folder(search.name)
        self.console.print(
            f"{trials}, {spent:,} epochs ({spent / max(full, 1):.0%} of the {full:,} that they "
            f"would take without pruning), {duration(search.about.get('elapsed_s', 0.0))}. On disk: "
            f"{bytes_of(folder) / 1e6:.1f} MB in {folder.relative_to(self.project.home)}.",
            highlight=False,
        )
        if self.apply:
            config.write_values(self.project.params, best.trial.values)
            self.console.print(
                f"The values of trial {best.trial.number} stand in params.yaml. Next: `dvc params diff`, `dvc repro`, "
                "`dvc metrics diff`.",
                highlight=False,
            )
        else:
            name = "" if search.name == "main" else f" --study {search.name}"
            self.console.print(
                "results/tune/best.yaml has the winner. Next:\n"
                f"  python -m pipeline.tune{name} --trials {self.settings.tune.trials} --apply"
                "   writes its values into params.yaml\n"
                "  dvc repro                  trains and evaluates them\n"
                "  dvc metrics diff           what they brought\n"
                "  mlflow ui                  all trials",
                highlight=False,
            )

    def over(self, search: Ledger) -> str:
        return (
            f"The study {search.name} is over: {len(search.trials)} of {self.settings.tune.trials} trials are done. "
            "A larger --trials goes on."
        )

    def mismatch_advice(self, name: str) -> str:
        return (
            "To go on with it set that back; `--study NAME` begins another beside it; "
            f"`--study {name} --delete` removes it, so that its name begins anew."
        )
