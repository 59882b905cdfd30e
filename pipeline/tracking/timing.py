"""How long tracking waits for what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds. The defaults suit a training and a search; tests shorten them."""

    linger_s: float = 0.5
    """How long the first record after a silence waits for others: sent together they cost little more than one."""
    retry_delays_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
    """The delays after the first, second, ... failure in a row; the last one repeats."""
    answer_s: float = 10.0
    """How long the caller waits for the first answer of a store, and for an answer that decides something."""
    children_s: float = 60.0
    """How long the caller waits for the children of a run, which may be thousands."""
    holder_s: float = 5.0
    """How long opening a run waits for another process that holds it."""
    patience_s: float = 30.0
    """At the end: how long the store may take for one step of what is left to send."""
    interrupted_patience_s: float = 3.0
    """The same after Ctrl-C."""
    away_patience_s: float = 5.0
    """At the end: how long a store that did not answer lately may take for its answer."""
