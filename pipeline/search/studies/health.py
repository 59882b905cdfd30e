"""Checks of the studies, for `python -m pipeline.doctor`: their journal or database, checkpoints, runs in MLflow."""

import shlex
from pathlib import Path

from pipeline import config
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import Project, is_locked
from pipeline.findings import Finding, Looked, Report, Weight, counted, some
from pipeline.search.engines.store import Store, StoreError
from pipeline.search.studies.checkpoints import address_of, store_of
from pipeline.search.studies.commands import resume_command, tune_command
from pipeline.search.studies.journal import Damaged, Storage, damaged_bytes
from pipeline.search.studies.ledger import CONFIRMATION, Ledger
from pipeline.search.studies.storage import database
from pipeline.search.studies.trials import Trial
from pipeline.tracking import health as tracking

_RUN = "study-"
"""Prefix of the pipeline.key of a study's run, before the study's own key."""


def studies(project: Project) -> Report:
    """All studies of the project."""
    journal, (url, address) = project.optuna_journal, _elsewhere(project)
    unusable = None
    recorded = tracking.recorded_keys(project)
    if address:
        yield Looked(1, "store of checkpoints")
        try:
            Store(address).check()
        except StoreError as error:
            yield Finding(Weight.ERROR, str(error), "tune.checkpoints", "correct it, or the credentials")
            unusable = address
    if url is None and not journal.is_file():
        yield from _without_journal(project, set(), recorded)
        return
    if url is None and (cut := damaged_bytes(journal)):
        yield Finding(
            Weight.NOTE,
            f"the last {counted(cut, 'byte')} of Optuna's journal are incomplete or damaged: the next search cuts them "
            "off and trains again what they recorded",
            journal.name,
            "python -m pipeline.tune",
        )
    try:
        if url and _is_new(url):
            return
        storage = database(project) or Storage(journal, read_only=True)
        found = storage.get_all_studies()
        # Those that other tools have put there have no key.
        ours = {study.study_name: study.user_attrs["key"] for study in found if "key" in study.user_attrs}
        names = {study.study_name for study in found}
    except Damaged as error:
        yield Finding.of(error, journal.name)
        return
    except PipelineError as error:
        yield Finding(Weight.ERROR, str(error), "tune.storage", "start it, or correct the address or the password")
        return
    yield Looked(len(ours), "studies")
    for name, key in ours.items():
        if not isinstance(storage, Storage) and storage.is_owned(name):
            what = f"the study {name} in {storage} has an owner, here or on another machine"
            yield Finding(Weight.NOTE, what, "tune.storage", "wait until it ends, or stop it there")
            continue
        confirmation = [other for other in (f"{name}{CONFIRMATION}",) if other in names]
        search, *rest = [Ledger(storage, phase) for phase in (name, *confirmation)]
        if (where := address_of(search, address)) is None or where != unusable:
            yield from _study(project, [search, *rest], where)
        if recorded is not None and f"{_RUN}{key}" not in recorded and search.trials:
            yield Finding(
                Weight.WARNING,
                f"MLflow has no run of the study {name}",
                "mlflow.db",
                f"{_resume(search)} records it again",
            )
    yield from _without_journal(project, set(ours), recorded, {f"{_RUN}{key}" for key in ours.values()})


def _is_new(url: str) -> bool:
    from pipeline.search.studies.database import Database

    return Database.is_new(url)


def _elsewhere(project: Project) -> tuple[str | None, str | None]:
    """tune.storage and tune.checkpoints."""
    try:
        tune = config.load(project.params).tune
    except ConfigError:
        return None, None  # the check of params.yaml says so
    return tune.storage, tune.checkpoints


def _study(project: Project, phases: list[Ledger], address: str | None) -> Report:
    search, folder = phases[0], project.study_folder(phases[0].name)
    where = str(folder.relative_to(project.home))
    for ledger in phases:
        if ledger.damaged_line is not None:
            yield Finding(
                Weight.ERROR,
                f"line {ledger.damaged_line} of Optuna's journal is damaged, which is of the study {search.name}",
                project.optuna_journal.name,
                "put a copy of optuna.journal from before in its place, or "
                + tune_command(search.name, (), "--delete"),
            )
            return
    if is_locked(folder / "owner.lock"):
        return  # it is running, and its files change
    trials = [(trial, _folder(folder, ledger, trial)) for ledger in phases for trial in ledger.trials]
    yield Looked(len(trials), "trials")
    store = store_of(address, search)
    try:
        stored = (
            {f"{part}/{name}" for part in ("trials", "confirm") for name in (store / part).sizes()} if store else None
        )
    except StoreError as error:
        yield Finding(Weight.ERROR, str(error), f"the study {search.name}", "correct the address, or the credentials")
        return
    unfinished = [
        (trial, place) for trial, place in trials if trial.state in ("running", "paused") and not trial.outcome
    ]
    if lost := [
        place.relative_to(folder).as_posix()
        for trial, place in unfinished
        if trial.scores and not _has_checkpoint(place, stored)
    ]:
        yield Finding(
            Weight.WARNING,
            f"the study {search.name} has lost the checkpoints of {counted(len(lost), 'unfinished trial')} "
            f"({some(lost)})",
            where,
            f"put {where} back from a copy, or {_resume(search)} trains them again from the first epoch",
        )
    weightless = [
        place.relative_to(folder).as_posix()
        for trial, place in trials
        if trial.state == "finished" and not (place / "model.safetensors").exists() and store is None
    ]
    if weightless:
        yield Finding(
            Weight.WARNING,
            f"the study {search.name} has lost the weights of {counted(len(weightless), 'finished trial')} "
            f"({some(weightless)}), which `ensemble` would use",
            where,
            f"put {where} back from a copy",
        )
    if unfinished and "concluded" not in search.about:
        yield Finding(
            Weight.NOTE,
            f"the study {search.name} was stopped, with {counted(len(unfinished), 'trial')} under way",
            where,
            _resume(search),
        )


def _without_journal(
    project: Project, known: set[str], recorded: dict[str, str] | None, keys: set[str] | None = None
) -> Report:
    """Folders and runs of studies that Optuna does not know."""
    root = project.study_folder("x").parent
    if lost := sorted(folder.name for folder in root.glob("*") if folder.name not in known and any(folder.glob("*/*"))):
        yield Finding(
            Weight.WARNING,
            f"{root.name}/ has the trials of {some(lost)}, but Optuna's journal has no such study",
            f"{root.name}/{lost[0]}",
            f"put optuna.journal back from a copy, or rm -r {shlex.join(f'{root.name}/{name}' for name in lost)}",
        )
    runs = [
        name
        for key, name in (recorded or {}).items()
        if key.startswith(_RUN) and key.count("-") == 1 and key not in (keys or set())
    ]
    if runs:
        yield Finding(
            Weight.NOTE,
            f"MLflow has {counted(len(runs), 'run')} of studies that Optuna's journal does not have: {some(runs)}",
            "mlflow.db",
            "nothing, if you deleted them; else put optuna.journal back from a copy",
        )


def _folder(study: Path, ledger: Ledger, trial: Trial) -> Path:
    phase = "confirm" if ledger.name.endswith(CONFIRMATION) else "trials"
    return study / phase / f"{trial.number:04}"


def _has_checkpoint(folder: Path, stored: set[str] | None) -> bool:
    if stored is not None:
        return f"{folder.parent.name}/{folder.name}" in stored
    return any(folder.glob("checkpoint*.pt*"))


def _resume(search: Ledger) -> str:
    return resume_command(search.name, search.about.get("given", []))
