"""All that is done with MLflow beside its documented API, and why. Read in the source of MLflow 3.17 (3.17.2).

pyproject.toml allows no other minor version: before it does, compare each function with what it names.

    preload                the modules that MlflowClient imports at its first call
    create_database        SqlAlchemyStore(uri, artifacts), which creates the tables at any path
    allow_readers          a setting of SQLite
    relocate_artifacts     the columns of MLflow's tables that hold addresses of artifacts
    has_run                the tables of runs and of their tags
    snapshot               how SQLite reads a database without creating a file beside it
    artifact_addresses, kept_artifacts, running, keys
                           the same tables as above
    update_run             update_run_info of the store behind MlflowClient
    last_step              the message (protobuf) of a run
    artifact_repository    get_artifact_repository(uri, tracking_uri)
    TABLES_TAG             the tag that MlflowClient.log_table writes
    image_schema           TensorDatasetSchema

Each docstring says which documented call would replace it, and why that one does not do.
"""

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TABLES_TAG = "mlflow.loggedArtifacts"
"""The tag that lists, as JSON, the artifacts of a run that MLflow's page shows as tables: [{path, type}].

MlflowClient.log_table would write it, but appends to the table if the run has one of that name.
"""

_ARTIFACT_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns (mlflow/store/*/dbmodels/models.py) that hold absolute addresses of artifacts."""


def preload() -> None:
    """Imports the modules that MlflowClient would import at its first call, beside imports of the main thread.

    `import mlflow` would do if it imported them.
    """
    import mlflow.store.tracking.rest_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def create_database(database: Path) -> None:
    """Creates an SQLite database with MLflow's tables. It exists complete or not at all, also after a kill.

    MlflowClient(uri) would create the tables in place, over seconds: a kill would leave a file that MLflow can't use.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for leftover in database.parent.glob(f"{database.name}.part*"):
        leftover.unlink()
    aside = database.with_name(f"{database.name}.part")
    store = SqlAlchemyStore(f"sqlite:///{aside}", str(database.parent / "mlruns"))  # type: ignore[no-untyped-call]
    store.engine.dispose()
    aside.replace(database)


def allow_readers(database: Path) -> None:
    """Lets others read the database during a write, and halves the time of a write. The file keeps the setting.

    MLflow has no option for it.
    """
    # An optimization only: an error is no reason to stop.
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def relocate_artifacts(database: Path, old: str, new: str) -> None:
    """Replaces the beginning `old` of all addresses of artifacts by `new`; both are addresses of folders.

    MLflow has no command that moves artifacts.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        for table, column in _ARTIFACT_COLUMNS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column} || '/', 1, ?) = ?",
                (new, len(old) + 1, len(old) + 1, f"{old}/"),
            )


@contextlib.contextmanager
def snapshot(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads the database and changes no file. Raises sqlite3.Error.

    MlflowClient would migrate the database, and SQLite itself creates files beside one that allow_readers has set.
    """
    log = database.with_name(f"{database.name}-wal")
    with contextlib.ExitStack() as stack:
        options = "mode=ro&immutable=1"
        if log.exists() and log.stat().st_size:  # writes that are not in the database yet
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for file in (log, database):
                shutil.copy(file, copy)
            database, options = copy / database.name, "mode=rw"
        connection = sqlite3.connect(f"{database.absolute().as_uri()}?{options}", uri=True)
        yield stack.enter_context(contextlib.closing(connection))


def artifact_addresses(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """(table, address) of all artifacts; of experiments only those with runs."""
    used = "WHERE experiment_id IN (SELECT experiment_id FROM runs)"
    return [
        (table, address)
        for table, column in _ARTIFACT_COLUMNS
        for (address,) in connection.execute(
            f"SELECT DISTINCT {column} FROM {table} {used if table == 'experiments' else ''}"
        )
        if address
    ]


def kept_artifacts(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """(name, address) of what is sure to have files: logged models, and runs with tables. Deleted ones are left out."""
    models = connection.execute(
        "SELECT 'the model ' || model_id, artifact_location FROM logged_models "
        "WHERE lifecycle_stage = 'active' AND status = 2 ORDER BY creation_timestamp_ms"
    )
    runs = connection.execute(
        "SELECT DISTINCT 'the run ' || name, artifact_uri FROM runs JOIN tags USING (run_uuid) "
        "WHERE lifecycle_stage = 'active' AND key = ? ORDER BY start_time",
        (TABLES_TAG,),
    )
    return [*models, *runs]


def running(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """(pipeline.key, name, experiment) of the runs that MLflow shows as running."""
    return connection.execute(
        "SELECT value, runs.name, experiments.name FROM runs JOIN tags USING (run_uuid) "
        "JOIN experiments USING (experiment_id) WHERE key = 'pipeline.key' AND status = 'RUNNING' "
        "AND runs.lifecycle_stage = 'active' ORDER BY start_time"
    ).fetchall()


def keys(connection: sqlite3.Connection) -> dict[str, str]:
    """The names of all runs that are not deleted, by pipeline.key."""
    return dict(
        connection.execute(
            "SELECT value, name FROM runs JOIN tags USING (run_uuid) "
            "WHERE key = 'pipeline.key' AND lifecycle_stage = 'active'"
        )
    )


def has_run(database: Path, key: str) -> bool:
    """Whether the database has a run with that pipeline.key which is not deleted; also if it can't be read.

    MlflowClient.search_runs would find it too, but importing it takes seconds.
    """
    query = (
        "SELECT 1 FROM tags JOIN runs USING (run_uuid) "
        "WHERE key = 'pipeline.key' AND value = ? AND lifecycle_stage = 'active' LIMIT 1"
    )
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database, timeout=5)) as connection:
        return connection.execute(query, (key,)).fetchone() is not None
    return True


def update_run(client: "MlflowClient", run_id: str, status: str, name: str | None = None) -> None:
    """Sets a run's status, and its name if one is given; its end time stays.

    MlflowClient.update_run would do the same, but reads the whole run before. That doubles the time, and each trial of
    a search pauses and resumes several times.
    """
    from mlflow.entities import RunStatus

    client._tracking_client.store.update_run_info(run_id, RunStatus.from_string(status), None, name)


def last_step(run: "Run", metric: str) -> int:
    """The last step of a run's metric; 0 if there is none.

    Run.data.metrics has no steps. MlflowClient.get_metric_history has them, but takes a request for each run.
    """
    return next((int(entry.step) for entry in run.to_proto().data.metrics if entry.key == metric), 0)


def artifact_repository(uri: str, tracking_uri: str) -> Any:
    """The client that uploads to a run's artifact URI.

    MlflowClient.log_artifact would upload too, but first asks for the URI, with one more request for each run.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri, tracking_uri=tracking_uri)


def image_schema(shape: Sequence[int]) -> str:
    """The schema, as JSON, of a dataset of uint8 images of `shape` [C, H, W], each with an int64 label.

    mlflow.data.from_numpy would make it from the images, which this process does not have.
    """
    import numpy as np
    from mlflow.data.schema import TensorDatasetSchema
    from mlflow.types.schema import Schema, TensorSpec

    images = Schema([TensorSpec(np.dtype("uint8"), (-1, *shape))])
    labels = Schema([TensorSpec(np.dtype("int64"), (-1,))])
    return json.dumps(TensorDatasetSchema(images, labels).to_dict())
