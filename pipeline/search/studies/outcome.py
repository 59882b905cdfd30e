"""What a study found: the ranking, and the small plain files that it leaves in results/tune."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import config
from pipeline.config import Scalar
from pipeline.files import Project, atomic_write, write_csv
from pipeline.search.space.space import Space
from pipeline.search.studies.ledger import Ledger, Trial


@dataclass(frozen=True)
class Candidate:
    """A trial that was trained to the end, and again with other seeds."""

    trial: Trial
    accuracies: tuple[float, ...]
    """With the other seeds: the one that made it a candidate is the luckiest of many, and is left out."""

    @property
    def single(self) -> float:
        """The accuracy that made it a candidate."""
        return self.trial.scores[-1]

    @property
    def mean(self) -> float:
        """What it is ranked by: without other seeds the single value."""
        return statistics.fmean(self.accuracies) if self.accuracies else self.single

    @property
    def sd(self) -> float | None:
        """Standard deviation of the sample; None for fewer than two seeds."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


def finished(ledger: Ledger) -> list[Trial]:
    """Trials that were trained to the end, the best one first; of equal ones the earlier."""
    ended = [trial for trial in ledger.trials if trial.state == "finished"]
    return sorted(ended, key=lambda trial: (-trial.scores[-1], trial.number))


def ranking(ledger: Ledger, confirmation: Ledger | None) -> list[Candidate]:
    """The candidates, the best one first; without confirmation the best trial alone.

    A candidate that failed with one of its seeds comes after those that did not.
    """
    again = confirmation.trials if confirmation else []
    numbers = {trial.attributes["of"] for trial in again}
    if not numbers:
        return [Candidate(trial, ()) for trial in finished(ledger)[:1]]
    failed = {trial.attributes["of"] for trial in again if trial.state == "failed"}
    accuracies = {
        number: [trial.scores[-1] for trial in again if trial.attributes["of"] == number and trial.state == "finished"]
        for number in sorted(numbers)
    }
    candidates = [Candidate(ledger.trials[number], tuple(found)) for number, found in accuracies.items()]
    return sorted(candidates, key=lambda one: (one.trial.number in failed, not one.accuracies, -one.mean))


def described(ledger: Ledger, confirmation: Ledger | None, settings: config.Config) -> dict[str, Any]:
    """The study as study.json has it."""
    trials = ledger.trials
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial.ended or trial.state] = counts.get(trial.ended or trial.state, 0) + 1
    epochs = sum(len(trial.scores) for trial in trials)
    candidates = ranking(ledger, confirmation)
    return {
        "study": ledger.name,
        "trials": len(trials),
        "states": counts,
        "epochs": epochs,
        "full_trainings": round(epochs / settings.train.epochs, 3),
        "epochs_without_pruning": len(trials) * settings.train.epochs,
        "winner": candidates[0].trial.number if candidates else None,
        "candidates": [
            {
                "trial": one.trial.number,
                "values": one.trial.values,
                "single": one.single,
                "mean": one.mean,
                "sd": one.sd,
                "seeds": len(one.accuracies),
            }
            for one in candidates
        ],
        "importances": ledger.importances(),
        **{key: ledger.about[key] for key in ("key", "created", "elapsed_s", "space", "data") if key in ledger.about},
        "tune": settings.tune.model_dump(mode="json"),
    }


def write(
    project: Project, ledger: Ledger, confirmation: Ledger | None, space: Space, study: Mapping[str, Any]
) -> None:
    """Writes trials.csv, study.json, and best.yaml once a trial was trained to the end."""
    header = ["trial", "state", "validation_accuracy", "epochs", "seed", "elapsed_s", *space.names, "why"]
    write_csv(project.trials, header, (_row(trial, space.names) for trial in ledger.trials))
    with atomic_write(project.study) as aside:
        aside.write_text(json.dumps(study, indent=2) + "\n", encoding="utf-8")
    candidates = ranking(ledger, confirmation)
    if not candidates:
        project.best.unlink(missing_ok=True)  # another study's
    else:
        best = candidates[0]
        content = {
            "study": ledger.name,
            "trial": best.trial.number,
            "values": dict(best.trial.values),
            "validation_accuracy": {
                "mean": best.mean,
                "sd": best.sd,
                "seeds": len(best.accuracies),
                "single": best.single,
            },
        }
        with atomic_write(project.best) as aside:
            aside.write_text(config.yaml_text(content), encoding="utf-8")


def images(ledger: Ledger, space: Space) -> dict[str, bytes]:
    """PNG files by name: optimisation_history, importances, parallel_coordinates; those that there is enough for."""
    from pipeline.config import Choices
    from pipeline.reporting import study_plots

    trained = [trial for trial in ledger.trials if trial.scores and trial.state != "failed"]
    found: dict[str, bytes] = {}
    if not trained:
        return found
    points = [
        study_plots.Point(trial.number, trial.scores[-1], "finished" if trial.state == "finished" else "paused")
        for trial in trained
    ]
    found["optimisation_history"] = study_plots.optimisation_history(points)
    if importances := ledger.importances():
        found["importances"] = study_plots.importances(importances)
    axes = [
        study_plots.Coordinate(name, choices=axis.choices)
        if isinstance(axis, Choices)
        else study_plots.Coordinate(
            name, axis.log, [axis.value(step) for step in range(axis.count)] if axis.step else None
        )
        for name, axis in space.axes.items()
    ]
    lines = [study_plots.Line(trial.values, trial.scores[-1]) for trial in trained if trial.state == "finished"]
    if lines:
        found["parallel_coordinates"] = study_plots.parallel_coordinates(lines, axes)
    return found


def _row(trial: Trial, names: Sequence[str]) -> list[Scalar]:
    return [
        trial.number,
        trial.ended or trial.state,
        trial.scores[-1] if trial.scores else None,
        len(trial.scores),
        trial.attributes["seed"],
        round(trial.elapsed_s, 3),
        *(trial.values.get(name) for name in names),
        trial.why,
    ]
