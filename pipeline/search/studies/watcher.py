"""What records and shows the events of a study: MLflow's recorder, the live table, the history, the winner."""

from pipeline.config import Config
from pipeline.outcome import Outcome
from pipeline.records import Epoch
from pipeline.search.engines.base import Failed, TargetReached
from pipeline.search.studies.trials import Trial


class Watcher:
    """Called on every event of a study, before Optuna's storage is written.

    Workers don't wait for watchers: a worker that becomes free has its next order before watchers are called.
    """

    def sent(self, trial: Trial, settings: Config) -> None:
        """The trial was given to a worker, for the first time or again."""

    def trained(self, trial: Trial, epoch: Epoch) -> None:
        """An epoch of the trial is over."""

    def reached(self, trial: Trial, reached: TargetReached) -> None:
        """The trial has reached the epoch of its order. It is paused there unless `ended` follows."""

    def ended(self, trial: Trial, outcome: Outcome, why: str | None) -> None:
        """The trial has ended for good."""

    def failed(self, trial: Trial, failed: Failed) -> None:
        """The trial crashed or timed out, and is tried again."""

    def interrupted(self, trial: Trial) -> None:
        """The trial's worker is being taken away. Another one resumes the trial."""

    def unstored(self, trial: Trial, why: str) -> None:
        """The trial's files can't be stored at the moment."""

    def stopped(self, trial: Trial) -> None:
        """The study stops while the trial is running. The next start resumes it."""

    def saving(self) -> None:
        """Optuna's storage is written next: a watcher's records of the same events must be safe before."""

    def tick(self) -> None:
        """Called several times a second."""
