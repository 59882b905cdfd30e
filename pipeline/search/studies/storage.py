"""Where a project's studies are: Optuna's journal beside params.yaml, or the database that `tune.storage` names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna

from pipeline import config
from pipeline.errors import ConfigError
from pipeline.files import Project
from pipeline.search.studies.journal import journal

if TYPE_CHECKING:
    from pipeline.search.studies.database import Database


def storage(project: Project) -> optuna.storages.BaseStorage:
    """The storage of the project's studies. Raises Damaged, PipelineError."""
    return database(project) or journal(project.optuna_journal)


def database(project: Project) -> "Database | None":
    """The database of the project's studies; None if they are in a journal. Raises PipelineError."""
    try:
        url = config.load(project.params).tune.storage
    except ConfigError:
        url = None  # a search does not begin with a wrong file, and what is in the journal can be looked at
    if url is None:
        return None
    from pipeline.search.studies.database import Database

    return Database(url)


def studies(project: Project) -> Sequence[str]:
    """Names of the project's studies."""
    found = database(project)
    if found is None and not project.optuna_journal.is_file():
        return []
    return optuna.get_all_study_names(found or journal(project.optuna_journal))
