"""What a session asks of the end of a study: what it leaves in results/ and in MLflow, and what it prints."""

from collections.abc import Sequence
from typing import Any, Protocol

from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.resources import StudyResources
from pipeline.search.studies.watcher import Watcher


class Ending(Protocol):
    """The end of a study: `winner.Winner` of a search, `grid_results.GridResults` of a grid."""

    def save_results(self, search: Ledger, confirmation: Ledger) -> dict[str, Any]:
        """Writes the result files as far as the study has come, and returns what --json prints."""
        ...

    def watchers(self, search: Ledger, confirmation: Ledger, phase: str) -> Sequence[Watcher]:
        """Who else watches a phase: `trial` is the search, `confirm` its confirmation."""
        ...

    def finalize(self, search: Ledger, confirmation: Ledger, resources: StudyResources) -> None:
        """Done once, when all trials have ended: the remaining files, and what MLflow gets."""
        ...

    def print_summary(self, search: Ledger, confirmation: Ledger) -> None:
        """Prints what was found and what to do next. Raises PipelineError if no trial was trained to the end."""
        ...

    def already_done(self, search: Ledger) -> str:
        """What to print if there is nothing left to do."""
        ...

    def mismatch_advice(self, name: str) -> str:
        """What can be done about the study `name`, which was begun with other values."""
        ...
