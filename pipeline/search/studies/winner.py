"""The end of a search: its winner, the result files, what MLflow gets, and the summary."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline import config
from pipeline.cli import duration
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.search.studies import history, note, results
from pipeline.search.studies.catalog import bytes_of
from pipeline.search.studies.commands import tune_command
from pipeline.search.studies.display import on_a_line
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.ranking import Candidate, ranking
from pipeline.search.studies.resources import StudyResources
from pipeline.search.studies.spec import StudySpec
from pipeline.search.studies.watcher import Watcher

ALIAS = "best"
"""Of the winner's model in MLflow's registry."""


def apply_winner(project: Project, search: Ledger, confirmation: Ledger) -> None:
    """Writes the winner's values into params.yaml; nothing if no trial was trained to the end."""
    for best in ranking(search, confirmation)[:1]:
        config.write_values(project.params, best.trial.values)


@dataclass(frozen=True)
class Winner:
    """The ending of a search."""

    spec: StudySpec
    applied: bool
    """Whether the winner's values are in params.yaml when the summary is printed."""
    console: Console
    given: Sequence[str] = ()
    """The values of --set."""

    def save_results(self, search: Ledger, confirmation: Ledger) -> dict[str, Any]:
        record = results.study_record(search, confirmation, self.spec.space, self.spec.settings)
        results.write(self.spec.project, search, self.spec.space, record)
        self._save_history(search, confirmation, is_running=False)
        return asdict(record)

    def watchers(self, search: Ledger, confirmation: Ledger, phase: str) -> Sequence[Watcher]:
        def save() -> None:
            self._save_history(search, confirmation, is_running=True)

        return [history.Chronicle(self.spec.folder, phase, save)]

    def _save_history(self, search: Ledger, confirmation: Ledger, *, is_running: bool) -> None:
        spec = self.spec
        history.save(spec.project, search, confirmation, spec.space, spec.settings, is_running=is_running)

    def finalize(self, search: Ledger, confirmation: Ledger, resources: StudyResources) -> None:
        """MLflow gets result files, figures, the winner's accuracy, and its model with an alias in the registry."""
        self.save_results(search, confirmation)
        project, parent = self.spec.project, resources.parent
        record = results.study_record(search, confirmation, self.spec.space, self.spec.settings)
        parent.set_tags({note.TAG: note.description(record, self._apply_command(search))})
        for path in (project.trials, project.study, project.search_history, project.best):
            if path.is_file():
                parent.log_file(path)
        for name, image in history.figures(project).items():
            parent.log_bytes(image, f"{name}.png")
        candidates = ranking(search, confirmation)
        if candidates:
            best = candidates[0]
            parent.set_tags({"winner": best.trial.number})
            parent.log_metrics(
                {"winner.validation_accuracy": best.mean} | ({"winner.sd": best.sd} if best.sd is not None else {})
            )
        # Models were being made while the figures were drawn. Waiting for them takes longest, so it comes last.
        resources.wait_for_models(self.console)
        if candidates and resources.models:
            key = resources.recorder(search).key(candidates[0].trial)
            run = resources.run.tracker.open(key, parent=parent.key)
            run.register_model(f"{self.spec.meta.name}-{search.name}", ALIAS)
            run.finish(Outcome.FINISHED)

    def print_summary(self, search: Ledger, confirmation: Ledger) -> None:
        candidates = ranking(search, confirmation)
        if not candidates:
            raise PipelineError("No trial was trained to the end: results/tune/trials.csv says why.")
        self.console.print(_table(candidates))
        trials = "1 trial" if len(search.trials) == 1 else f"{len(search.trials)} trials"
        spent = sum(len(trial.scores) for trial in search.trials)
        full = len(search.trials) * self.spec.settings.train.epochs
        self.console.print(
            f"{trials}, {spent:,} epochs ({spent / max(full, 1):.0%} of the {full:,} that they "
            f"would take without pruning), {duration(search.about.get('elapsed_s', 0.0))}. On disk: "
            f"{bytes_of(self.spec.folder) / 1e6:.1f} MB in {self.spec.folder.relative_to(self.spec.project.home)}.",
            highlight=False,
        )
        self.console.print(self._next_steps(search, candidates[0]), highlight=False, soft_wrap=True)

    def _next_steps(self, search: Ledger, best: Candidate) -> str:
        if self.applied:
            return (
                f"The values of trial {best.trial.number} stand in params.yaml. Next: `dvc params diff`, `dvc repro`, "
                "`dvc metrics diff`."
            )
        return (
            "results/tune/best.yaml has the winner. Next:\n"
            f"  {self._apply_command(search)}   writes its values into params.yaml\n"
            "  dvc repro                  trains and evaluates them\n"
            "  dvc metrics diff           what they brought\n"
            "  mlflow ui                  all trials"
        )

    def _apply_command(self, search: Ledger) -> str:
        return tune_command(search.name, self.given, "--trials", str(self.spec.settings.tune.trials), "--apply")

    def already_done(self, search: Ledger) -> str:
        trials, size = self.spec.settings.tune.trials, self.spec.space.size
        if size is not None and len(search.trials) >= size:
            return (
                f"The study {search.name} is over: all configurations of its space ({size}) are tried. A wider space "
                "is another study: widen the section space and name it by --study."
            )
        patience = self.spec.settings.tune.patience
        if patience and search.begun_since_best >= patience:
            return (
                f"The study {search.name} is over: {search.begun_since_best} trials have begun since its best one "
                f"finished (tune.patience is {patience}). A larger tune.patience, or null, resumes it."
            )
        return (
            f"The study {search.name} is over: {len(search.trials)} of {trials} trials are done. "
            "A larger --trials adds more."
        )

    def mismatch_advice(self, name: str) -> str:
        return (
            "To resume it, set that back; `--study NAME` begins another beside it; "
            f"`--study {name} --delete` removes it, so that its name begins anew."
        )


def _table(candidates: list[Candidate]) -> Table:
    table = Table("trial", "searched with", "again: mean ± sd", "values", box=None, pad_edge=False)
    for candidate in candidates:
        again = f"{candidate.mean:.2%}" if candidate.accuracies else "not done"
        again += f" ± {candidate.sd * 100:.2f} ({len(candidate.accuracies)} seeds)" if candidate.sd is not None else ""
        table.add_row(str(candidate.trial.number), f"{candidate.single:.2%}", again, on_a_line(candidate.trial.values))
    return table
