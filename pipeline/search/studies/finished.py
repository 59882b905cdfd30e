"""The networks that a study has trained to their end, for commands that don't own the study: it may be running."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import config
from pipeline.batches import splits
from pipeline.config import Model, Scalar
from pipeline.errors import DataError, PipelineError
from pipeline.evaluation.ensembles import Member
from pipeline.files import Project
from pipeline.records import Meta
from pipeline.search.studies import ranking
from pipeline.search.studies import storage as storages
from pipeline.search.studies.commands import resume_command
from pipeline.search.studies.display import first_line
from pipeline.search.studies.ledger import CONFIRMATION, Ledger
from pipeline.search.studies.trials import Trial


@dataclass(frozen=True)
class Study:
    """A study that has finished trials."""

    name: str
    key: str
    """In MLflow its run is study-{key}."""
    validation: Mapping[str, Scalar]
    """The keys of the section train that decide which images validate, the same in all trials."""
    trials: Sequence[Member]
    """The best one first."""
    confirmed: Sequence[Member]
    """The best trials' values, retrained with other seeds; the best network first."""
    given: Sequence[str] = ()
    """The values of --set that it was last started with."""


def read(project: Project, name: str, meta: Meta, own: Model) -> Study:
    """The study `name`. A key that a trial has no value of, because its `when` does not hold, has the value in `own`.

    Raises PipelineError if there is no such study or no finished trial, and for a study of cross-validations, whose
    networks were each validated on other images and are not kept. Raises DataError if its data is not that of `meta`.
    """
    names = [other for other in storages.studies(project) if not other.endswith(CONFIRMATION)]
    if name not in names:
        raise PipelineError(
            f"There is no study {name} (there is {', '.join(names) or 'none at all'}): "
            f"`python -m pipeline.tune --study {name}` begins it."
        )
    storage = storages.storage(project)
    search = Ledger(storage, name)
    search.check()
    # Ledger would create a confirmation that does not exist.
    is_confirmed = f"{name}{CONFIRMATION}" in storages.studies(project)
    confirmation = Ledger(storage, f"{name}{CONFIRMATION}") if is_confirmed else None
    if confirmation:
        confirmation.check()
    finished = ranking.finished(search)
    if not finished:
        raise PipelineError(_nothing_finished(search))
    fixed, data = search.about["values"], search.about["data"]
    if data["digest"] != meta.digest:
        raise DataError(
            f"The study {name} searched on {data['name']} with the digest {data['digest']}, but data/ holds "
            f"{meta.name} with {meta.digest}: bring that data back, or name a study of this data by --study."
        )
    for family, digest in search.about.get("content", {}).items():
        if config.is_own(family) and config.code_digest(family) != digest:
            raise PipelineError(
                f"The code of {family} has changed since the study {name} trained with it: bring that code back, or "
                "search with the new one under another --study."
            )
    if fixed.get("train.folds"):
        raise PipelineError(
            f"The trials of the study {name} are cross-validations (train.folds is {fixed['train.folds']}), whose "
            "networks were each validated on other images, so that none can be chosen on the same: search with "
            "`--set train.folds=null` under another --study."
        )
    folder = project.study_folder(name)
    retrained = ranking.finished(confirmation) if confirmation else []
    return Study(
        name,
        search.about["key"],
        {key: fixed[f"train.{key}"] for key in splits.KEYS if f"train.{key}" in fixed},
        [_trained(f"trial {one.number}", one, one.number, folder / "trials", fixed, own) for one in finished],
        [
            _trained(f"confirm {one.number}", one, one.attributes["of"], folder / "confirm", fixed, own)
            for one in retrained
        ],
        search.about.get("given", []),
    )


def _nothing_finished(search: Ledger) -> str:
    """Why a study has no network, and what to do about it."""
    given = search.about.get("given", [])
    if not search.trials or any(trial.outcome is None for trial in search.trials):
        return (
            f"No trial of the study {search.name} was trained to its end yet: "
            f"`{resume_command(search.name, given)}` resumes it."
        )
    reasons = Counter(first_line(trial.why) for trial in search.trials if trial.outcome and trial.outcome.has_failed)
    reason = f" ({reasons.most_common(1)[0][0]})" if reasons else ""
    return (
        f"None of the {len(search.trials)} trials of the study {search.name} was trained to its end{reason}, and none "
        f"is left to resume: correct that, then delete the study (`python -m pipeline.tune --study {search.name} "
        "--delete`) and search again, or search under another --study."
    )


def _trained(name: str, trial: Trial, of: int, folder: Path, fixed: Mapping[str, Scalar], own: Model) -> Member:
    values = {
        key.removeprefix("model."): value
        for key, value in {**fixed, **trial.values}.items()
        if key.startswith("model.") and not config.had_no_effect(key, value)
    }
    extra = {key.removeprefix("extra."): values.pop(key) for key in list(values) if key.startswith("extra.")}
    if config.todays(values):
        raise PipelineError(f"{name} was trained with model.family {values['family']}, which is gone: search again.")
    if gone := sorted(set(values) - set(Model.model_fields)):
        raise PipelineError(f"{name} was trained with model.{gone[0]}, which is gone: search again.")
    return Member(
        name=name,
        trial=of,
        values=trial.values,
        model=Model.model_validate(own.model_dump() | values | {"extra": {**own.extra, **extra}}),
        weights=folder / f"{trial.number:04}" / "model.safetensors",
        accuracy=trial.scores[-1],
    )
