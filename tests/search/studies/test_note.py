from typing import Any

from pipeline.search.studies import note
from pipeline.search.studies.results import CandidateRecord, StudyRecord


def record(*candidates: CandidateRecord) -> StudyRecord:
    content: dict[str, Any] = {"study": "main", "trials": 8, "states": {"pruned": 6, "finished": 2}, "epochs": 18}
    content |= {"full_trainings": 3.0, "epochs_without_pruning": 48, "winner": None, "importances": {}, "tune": {}}
    return StudyRecord(**content, candidates=list(candidates))


def test_the_description_has_the_winner_the_best_and_what_to_do() -> None:
    best = CandidateRecord(3, {"train.learning_rate": 0.123456, "model.width": 16}, 1.0, 0.9935, 0.004, 3)
    other = CandidateRecord(0, {"train.learning_rate": 0.1, "augment.policy": "a|b"}, 0.96, 0.96, None, 0)
    text = note.description(record(best, other), "python -m pipeline.tune --apply")
    assert "**8 trials** (2 finished, 6 pruned), 18 epochs: 38% of the 48" in text
    assert "**Winner: trial 3**, validation accuracy 99.35% ± 0.40 (3 seeds)" in text
    assert "| trial | in the search | with new seeds | train.learning_rate | model.width | augment.policy |" in text
    assert "| 3 | 100.00% | 99.35% ± 0.40 (3 seeds) | 0.123 | 16 |  |" in text
    assert "| 0 | 96.00% | 96.00% | 0.1 |  | a\\|b |" in text
    assert "`python -m pipeline.tune --apply`" in text


def test_a_search_that_finished_nothing_says_where_to_look() -> None:
    assert "No trial was trained to the end" in note.description(record(), "")
