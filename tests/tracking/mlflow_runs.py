"""What MLflow has of a project's runs."""

import time
from collections.abc import Callable

from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.files import Project


def client(project: Project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project.home}/mlflow.db")


def runs(mlflow_client: MlflowClient, experiment: str = "pipeline") -> list[Run]:
    """In the order of their start."""
    found = mlflow_client.get_experiment_by_name(experiment)
    assert found
    return list(mlflow_client.search_runs([found.experiment_id], order_by=["start_time ASC"]))


def only_run(project: Project) -> Run:
    (run,) = runs(client(project))
    return run


def files(mlflow_client: MlflowClient, run: Run, folder: str | None = None) -> list[str]:
    return sorted(file.path for file in mlflow_client.list_artifacts(run.info.run_id, folder))


def history(mlflow_client: MlflowClient, run: Run, metric: str) -> list[tuple[int, float]]:
    """(step, value) of all points."""
    points = mlflow_client.get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def wait_until(
    true: Callable[[], object], what: str = "what is waited for", timeout_s: float = 90, pause_s: float = 0.05
) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(pause_s)
