"""The description of a study's run in MLflow: Markdown that says who won and how to go on."""

from pipeline.config import Scalar
from pipeline.search.studies.results import CandidateRecord, StudyRecord

TAG = "mlflow.note.content"
"""MLflow shows the value of this tag as the description of a run."""


def description(record: StudyRecord, apply: str) -> str:
    """Of a study that is over; `apply` is the command that writes the winner's values into params.yaml."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(record.states.items()))
    saved = f"{record.epochs / max(1, record.epochs_without_pruning):.0%}"
    spent = f"{record.epochs:,} epochs: {saved} of the {record.epochs_without_pruning:,}"
    lines = [f"**{record.trials} trials** ({states}), {spent} that they would take without pruning.", ""]
    if not record.candidates:
        return "\n".join([*lines, "No trial was trained to the end; the tag `ended.why` of a trial says why."])
    best = record.candidates[0]
    keys = list(dict.fromkeys(key for one in record.candidates for key in one.values))
    lines += [
        f"**Winner: trial {best.trial}**, validation accuracy {_mean(best)}; its model has the alias `best`.",
        "",
        _row("trial", "in the search", "with new seeds", *keys),
        _row(*["---"] * (3 + len(keys))),
        *(
            _row(one.trial, f"{one.single:.2%}", _mean(one), *(_shown(one.values.get(key)) for key in keys))
            for one in record.candidates
        ),
        "",
        "Trials are ranked by their mean over new seeds: the best accuracy of a search is partly luck.",
        "",
        "To compare: select this run's children, whose names say their values, then **Compare**.",
        "The report (`python -m pipeline.report --open`) has their curves, the importances and parallel coordinates.",
        "",
        f"To train the winner: `{apply}`, then `dvc repro`.",
    ]
    return "\n".join(lines)


def _mean(candidate: CandidateRecord) -> str:
    if candidate.sd is None:
        return f"{candidate.mean:.2%}"
    return f"{candidate.mean:.2%} ± {100 * candidate.sd:.2f} ({candidate.seeds} seeds)"


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _shown(value: Scalar) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
