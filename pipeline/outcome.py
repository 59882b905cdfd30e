"""How a training ended, and what follows from that in Optuna, in MLflow and for the search."""

from enum import StrEnum


class Outcome(StrEnum):
    """The value is the word that MLflow's tag `ended`, Optuna's user attribute `ended` and result files hold."""

    FINISHED = "finished"
    """Trained to its end."""
    PRUNED = "pruned"
    """Given up by the scheduler, or for room on the disk."""
    DIVERGED = "diverged"
    """The loss is no longer a finite number."""
    OUT_OF_MEMORY = "out of memory"
    IMPOSSIBLE = "impossible"
    """Its values can't work on these images: no step was trained."""
    CRASHED = "crashed"
    TIMED_OUT = "timed out"
    INTERRUPTED = "interrupted"
    """Stopped with its process; the next start resumes it."""
    PAUSED = "paused"
    """Waits to be resumed."""

    @property
    def optuna_state(self) -> str:
        """The name of Optuna's state of such a trial. One that can be resumed is RUNNING for Optuna."""
        match self:
            case Outcome.FINISHED:
                return "COMPLETE"
            case Outcome.PRUNED:
                return "PRUNED"
            case Outcome.INTERRUPTED | Outcome.PAUSED:
                return "RUNNING"
        return "FAIL"

    @property
    def mlflow_status(self) -> str:
        """The status of such a run in MLflow; SCHEDULED is a run without an end."""
        match self:
            case Outcome.FINISHED:
                return "FINISHED"
            case Outcome.PRUNED | Outcome.INTERRUPTED:
                return "KILLED"
            case Outcome.PAUSED:
                return "SCHEDULED"
        return "FAILED"

    @property
    def is_retried(self) -> bool:
        """Whether a search tries such a trial again: the machine may be to blame."""
        return self in (Outcome.CRASHED, Outcome.TIMED_OUT)

    @property
    def is_infeasible(self) -> bool:
        """Whether the values are to blame: samplers keep away from such configurations."""
        return self in (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.IMPOSSIBLE)

    @property
    def has_failed(self) -> bool:
        return self.optuna_state == "FAIL"
