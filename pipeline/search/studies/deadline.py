"""The limit of the option --hours."""

import math
import time
from dataclasses import dataclass

from pipeline.search.studies.owner import Owner
from pipeline.search.studies.watcher import Watcher


@dataclass
class Deadline(Watcher):
    """Stops the owner in order when the time is over."""

    at_s: float
    """On the clock of time.monotonic."""
    owner: Owner | None = None
    """The one that is running."""

    @classmethod
    def after(cls, hours: float | None) -> "Deadline":
        """`hours` from now; None: never."""
        return cls(math.inf if hours is None else time.monotonic() + hours * 3600)

    @property
    def has_passed(self) -> bool:
        return time.monotonic() > self.at_s

    def tick(self) -> None:
        if self.owner and self.has_passed:
            self.owner.stop()
