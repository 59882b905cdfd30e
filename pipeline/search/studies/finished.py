"""The networks that a study has trained to their end, for those who don't own it: it may go on meanwhile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import config
from pipeline.config import Model, Scalar
from pipeline.errors import DataError, PipelineError
from pipeline.evaluation.ensembles import Member
from pipeline.files import Project
from pipeline.records import Meta
from pipeline.search.studies import ledger as ledgers
from pipeline.search.studies import outcome
from pipeline.search.studies.journal import journal
from pipeline.search.studies.ledger import CONFIRMATION, Ledger, Trial


@dataclass(frozen=True)
class Study:
    """A study that has finished trials."""

    name: str
    key: str
    """In MLflow its run is study-{key}."""
    validation_share: float
    validation_seed: int
    """What all trials were validated on: no search varies it."""
    trials: Sequence[Member]
    """The best one first."""
    confirmed: Sequence[Member]
    """The best trials' values, trained again with other seeds; the best network first."""


def read(project: Project, name: str, meta: Meta, own: Model) -> Study:
    """The study `name`; what a trial has no value of (a key whose `when` does not hold) is that of `own`, the file's.

    Raises PipelineError if there is no such study or no finished trial; DataError if its data is not that of `meta`.
    A study of folds is refused: its networks were validated on other images each, and are not kept.
    """
    names = [other for other in ledgers.studies(project) if not other.endswith(CONFIRMATION)]
    if name not in names:
        raise PipelineError(
            f"There is no study {name} (there is {', '.join(names) or 'none at all'}): "
            f"`python -m pipeline.tune --study {name}` begins it."
        )
    storage = journal(project.optuna_journal)
    search = Ledger(storage, name)
    # A ledger that is opened is made where it is missing.
    there = f"{name}{CONFIRMATION}" in ledgers.studies(project)
    confirmation = Ledger(storage, f"{name}{CONFIRMATION}") if there else None
    finished = outcome.finished(search)
    if not finished:
        raise PipelineError(
            f"No trial of the study {name} was trained to its end yet: "
            f"`python -m pipeline.tune --study {name} --resume-only` goes on with it."
        )
    fixed, data = search.about["values"], search.about["data"]
    if data["digest"] != meta.digest:
        raise DataError(
            f"The study {name} searched on {data['name']} with the digest {data['digest']}, but data/ holds "
            f"{meta.name} with {meta.digest}: bring that data back, or name a study of this data by --study."
        )
    if fixed.get("train.folds"):
        raise PipelineError(
            f"The trials of the study {name} are cross-validations (train.folds is {fixed['train.folds']}), whose "
            "networks were each validated on other images, so that none can be chosen on the same: search with "
            "`--set train.folds=null` under another --study."
        )
    folder = project.study_folder(name)
    again = outcome.finished(confirmation) if confirmation else []
    return Study(
        name,
        search.about["key"],
        fixed["train.validation_share"],
        fixed["train.validation_seed"],
        [_trained(f"trial {one.number}", one, one.number, folder / "trials", fixed, own) for one in finished],
        [_trained(f"confirm {one.number}", one, one.attributes["of"], folder / "confirm", fixed, own) for one in again],
    )


def _trained(name: str, trial: Trial, of: int, folder: Path, fixed: Mapping[str, Scalar], own: Model) -> Member:
    values = {
        key.removeprefix("model."): value
        for key, value in {**fixed, **trial.values}.items()
        if key.startswith("model.") and not config.had_no_effect(key, value)
    }
    if gone := sorted(set(values) - set(Model.model_fields)):
        raise PipelineError(f"{name} was trained with model.{gone[0]}, which is gone: search again.")
    return Member(
        name=name,
        trial=of,
        values=trial.values,
        model=Model.model_validate(own.model_dump() | values),
        weights=folder / f"{trial.number:04}" / "model.safetensors",
        accuracy=trial.scores[-1],
    )
