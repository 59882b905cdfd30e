"""Errors that a user can act on. A command prints their text without a traceback and exits with 1.

PipelineError
├── ConfigError       params.yaml, or a value that overrides it
├── DataError         the data set is missing, damaged or unusable
│   └── DownloadError   the data set, or weights, could not be fetched
├── TrainingError     training can't continue
│   ├── Diverged        the loss is no longer a finite number
│   └── OutOfMemory     the device has too little memory
└── TrackingError     MLflow's store can't be used
"""

from collections.abc import Iterable


class PipelineError(Exception):
    """Its text says what went wrong, where, and what to do next."""


class ConfigError(PipelineError):
    """Everything that is wrong in params.yaml, reported at once."""

    def __init__(self, message: str, keys: Iterable[str] = ()) -> None:
        """`keys` are the keys that together can't work, by dotted name, where the data decides that."""
        super().__init__(message)
        self.keys = frozenset(keys)


class DataError(PipelineError):
    """A data set is missing, damaged or unusable."""


class DownloadError(DataError):
    """A data set, or weights, could not be fetched."""


class TrainingError(PipelineError):
    """Training can't continue."""


class Diverged(TrainingError):
    """The loss is no longer a finite number."""


class OutOfMemory(TrainingError):
    """The device has too little memory for the network and the batch."""


class TrackingError(PipelineError):
    """MLflow's store can't be used."""
