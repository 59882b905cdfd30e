"""What MLflow links to a run: its dataset, its model, the model's version in the registry.

All functions raise MLflow's errors. Calling one again, after an answer that was lost, links nothing twice.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.exporting import mlflow_model
from pipeline.tracking import internals
from pipeline.tracking.failures import Refused

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_dataset(
    client: "MlflowClient",
    run_id: str,
    *,
    name: str,
    digest: str,
    source: str,
    counts: dict[str, int],
    shape: list[int],
    classes: int,
    context: str,
) -> None:
    """`source` is an address or a path, `counts` the number of images in each part, `shape` [C, H, W]."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    is_url = urlsplit(source).scheme in ("http", "https")
    dataset = Dataset(
        name=name,
        digest=digest[:36],  # MLflow's limit
        source_type="http" if is_url else "local",
        source=json.dumps({"url" if is_url else "uri": source}),
        schema=internals.image_schema(shape),
        profile=json.dumps({"num_rows": sum(counts.values()), "classes": classes} | counts),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])


def log_model(client: "MlflowClient", experiment_id: str, run_id: str, folder: Path, id: str) -> None:
    """Logs the MLflow model in `folder`. A model that was logged under the same `id` is not logged again."""
    run = client.get_run(run_id)
    found = client.search_logged_models(
        [experiment_id], f"source_run_id = '{run_id}' and tags.`pipeline.operation` = '{id}'"
    )
    logged = next(iter(found), None) or client.create_logged_model(
        experiment_id,
        name="model",
        source_run_id=run_id,
        params=run.data.params,
        tags={"pipeline.operation": id},
    )
    if logged.status != "READY":
        mlflow_model.address(folder, run_id, logged.model_id, logged.artifact_location)
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
    outputs = run.outputs.model_outputs if run.outputs else []
    if logged.model_id not in [output.model_id for output in outputs]:
        from mlflow.entities import LoggedModelOutput

        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])


def register(client: "MlflowClient", experiment_id: str, run_id: str, name: str, alias: str) -> None:
    """Registers the run's last model as a version of `name`, under `alias`. Raises Refused if the run has no model."""
    from mlflow.exceptions import MlflowException

    logged = client.search_logged_models(
        [experiment_id],
        f"source_run_id = '{run_id}'",
        max_results=1,
        order_by=[{"field_name": "creation_timestamp", "ascending": False}],
    )
    if not logged:
        raise Refused("the run has no model")
    model_id, source = logged[0].model_id, logged[0].artifact_location
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    # Not models:/...: MLflow would look that up in the store of the environment, not in the client's.
    version = next((version for version in versions if version.source == source), None)
    if version is None:
        version = client.create_model_version(name, source, run_id=run_id, model_id=model_id, await_creation_for=0)
    client.set_registered_model_alias(name, alias, version.version)
