"""Errors that a user can act on. A command prints their text without a traceback and exits with 1.

PipelineError
├── ConfigError       params.yaml, or a value given in its place
├── DataError         the data set: missing, damaged, unusable
│   └── DownloadError   it, or weights, could not be fetched
├── TrainingError     training can't go on
│   ├── Diverged        the loss is no longer a finite number
│   └── OutOfMemory     the device has too little memory for it
└── TrackingError     MLflow's store can't be used
"""


class PipelineError(Exception):
    """What went wrong, where, and what to do next, in sentences for the person at the terminal."""


class ConfigError(PipelineError):
    """All that is wrong with a params.yaml, told at once."""


class DataError(PipelineError):
    """A data set is missing, damaged or unusable."""


class DownloadError(DataError):
    """A data set, or weights, could not be fetched."""


class TrainingError(PipelineError):
    """Training can't go on."""


class Diverged(TrainingError):
    """The loss is no longer a finite number."""


class OutOfMemory(TrainingError):
    """The device has too little memory for the network and the batch."""


class TrackingError(PipelineError):
    """MLflow's store can't be used."""
