"""MLflow's settings in this project's processes: quiet, and quick to give up."""

import logging
import os
import warnings

# What a person has set stays. By default MLflow tries 7 times over minutes, 120 s each; the sender retries by itself.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def quiet() -> None:
    """Applies the settings to the rest of this process. Call it before MLflow is imported."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # It logs each error of a database with its traceback, and raises it too: the sender says what it means.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # Not catch_warnings: that is not thread-safe, and this runs beside the main thread.
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*noload", category=DeprecationWarning)
