"""The candidates of a search: its best trials, ranked by their mean accuracy over other seeds."""

import statistics
from dataclasses import dataclass

from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.trials import Trial


@dataclass(frozen=True)
class Candidate:
    """A finished trial of the search, and how its values did with other seeds."""

    trial: Trial
    accuracies: tuple[float, ...]
    """With the other seeds, 0..1. The accuracy in the search is left out: being the best of many, it is partly luck."""

    @property
    def single(self) -> float:
        """The accuracy in the search."""
        return self.trial.scores[-1]

    @property
    def mean(self) -> float:
        """Over the other seeds, by which candidates are ranked; without other seeds, `single`."""
        return statistics.fmean(self.accuracies) if self.accuracies else self.single

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over the other seeds; None for fewer than two."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


def finished(ledger: Ledger) -> list[Trial]:
    """Trials that were trained to the end, the best one first; of equal ones the earlier one."""
    ended = [trial for trial in ledger.trials if trial.state == "finished"]
    return sorted(ended, key=lambda trial: (-trial.scores[-1], trial.number))


def ranking(search: Ledger, confirmation: Ledger | None) -> list[Candidate]:
    """The candidates, the best one first; without a confirmation only the best trial.

    A candidate that failed with one of the seeds comes after those that did not.
    """
    retrained = confirmation.trials if confirmation else []
    numbers = {trial.attributes["of"] for trial in retrained}
    if not numbers:
        return [Candidate(trial, ()) for trial in finished(search)[:1]]
    failed = {trial.attributes["of"] for trial in retrained if trial.state == "failed"}
    accuracies = {
        number: [
            trial.scores[-1] for trial in retrained if trial.attributes["of"] == number and trial.state == "finished"
        ]
        for number in sorted(numbers)
    }
    candidates = [Candidate(search.trials[number], tuple(found)) for number, found in accuracies.items()]
    return sorted(candidates, key=lambda one: (one.trial.number in failed, not one.accuracies, -one.mean))
