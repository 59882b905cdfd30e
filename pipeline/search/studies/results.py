"""The files that a search leaves in results/tune."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import config, records
from pipeline.config import Config, Scalar
from pipeline.files import Project, atomic_write, write_csv
from pipeline.search.space.space import Space
from pipeline.search.studies.explanation import Explanation, explain
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.ranking import Candidate, ranking
from pipeline.search.studies.trials import Trial


@dataclass(frozen=True)
class CandidateRecord:
    """A trial that was confirmed with other seeds."""

    trial: int
    values: dict[str, Scalar]
    single: float
    """The accuracy that it was chosen by, 0..1."""
    mean: float
    """Over the other seeds."""
    sd: float | None
    seeds: int


@dataclass(frozen=True)
class StudyRecord:
    """A search as a whole."""

    study: str
    trials: int
    states: dict[str, int]
    """How many trials there are of each outcome, or state of those that have not ended."""
    epochs: int
    full_trainings: float
    epochs_without_pruning: int
    winner: int | None
    candidates: list[CandidateRecord]
    """The best one first."""
    importances: dict[str, float]
    """Share of each searched key in the differences of accuracy of finished trials."""
    tune: dict[str, Any]
    """The section tune of params.yaml."""
    explanation: Explanation | None = None
    """What the model of learning curves thinks of the study; None of one with too few trials."""
    key: str | None = None
    """The study's run in MLflow is study-KEY."""
    created: str | None = None
    """ISO 8601."""
    elapsed_s: float | None = None
    space: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)


def study_record(search: Ledger, confirmation: Ledger | None, space: Space, settings: Config) -> StudyRecord:
    """The study as study.json has it."""
    trials = search.trials
    states: dict[str, int] = {}
    for trial in trials:
        states[trial.status] = states.get(trial.status, 0) + 1
    epochs = sum(len(trial.scores) for trial in trials)
    candidates = ranking(search, confirmation)
    return StudyRecord(
        study=search.name,
        trials=len(trials),
        states=states,
        epochs=epochs,
        full_trainings=round(epochs / settings.train.epochs, 3),
        epochs_without_pruning=len(trials) * settings.train.epochs,
        winner=candidates[0].trial.number if candidates else None,
        candidates=[_candidate_record(candidate) for candidate in candidates],
        importances=search.importances(),
        tune=settings.tune.model_dump(mode="json"),
        explanation=explain([trial.view for trial in trials], space, settings.train.epochs, settings.tune.seed),
        **{key: search.about[key] for key in ("key", "created", "elapsed_s", "space", "data") if key in search.about},
    )


def _candidate_record(candidate: Candidate) -> CandidateRecord:
    return CandidateRecord(
        trial=candidate.trial.number,
        values=candidate.trial.values,
        single=candidate.single,
        mean=candidate.mean,
        sd=candidate.sd,
        seeds=len(candidate.accuracies),
    )


def write(project: Project, search: Ledger, space: Space, record: StudyRecord) -> None:
    """Writes trials.csv, study.json, and best.yaml if a trial was trained to the end."""
    header = ["trial", "state", "validation_accuracy", "epochs", "seed", "elapsed_s", *space.names, "why"]
    write_csv(project.trials, header, (_row(trial, space.names) for trial in search.trials))
    records.write(record, project.study)
    if not record.candidates:
        project.best.unlink(missing_ok=True)  # it may be of another study
        return
    best = record.candidates[0]
    content = {
        "study": record.study,
        "trial": best.trial,
        "values": dict(best.values),
        "validation_accuracy": {"mean": best.mean, "sd": best.sd, "seeds": best.seeds, "single": best.single},
    }
    with atomic_write(project.best) as aside:
        aside.write_text(config.yaml_text(content), encoding="utf-8")


def _row(trial: Trial, names: Sequence[str]) -> list[Scalar]:
    return [
        trial.number,
        trial.status,
        trial.scores[-1] if trial.scores else None,
        len(trial.scores),
        trial.attributes["seed"],
        round(trial.elapsed_s, 3),
        *(trial.values.get(name) for name in names),
        trial.why,
    ]
