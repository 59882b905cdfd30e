"""Where `mlflow ui` shows a run: the part of its address after the host."""

import sqlite3
from contextlib import closing

from pipeline.errors import TrackingError
from pipeline.files import Project
from pipeline.tracking.store import Store


def run_pages(project: Project) -> dict[str, str]:
    """The page of each run by the run's key, as `#/experiments/1/runs/...`.

    Read from the database itself, in milliseconds and without importing MLflow. Empty for a store that is no SQLite
    file, that does not exist yet, or that has another schema.
    """
    try:
        database = Store.of(project).database
        if database is None or not database.is_file():
            return {}
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=1)) as connection:
            rows = connection.execute(
                "SELECT tags.value, runs.experiment_id, runs.run_uuid FROM tags JOIN runs USING (run_uuid) "
                "WHERE tags.key = 'pipeline.key' AND runs.lifecycle_stage = 'active' ORDER BY runs.start_time"
            )
            return {key: f"#/experiments/{experiment}/runs/{run}" for key, experiment, run in rows}
    except (sqlite3.Error, TrackingError):
        return {}
