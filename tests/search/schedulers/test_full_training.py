import math

import pytest

from pipeline.search.schedulers.base import FullTraining, RemainingBudget, Resume, Start, TrialView

PLENTY = RemainingBudget(trials=10, epochs=math.inf)


def test_without_a_scheduler_trials_train_to_their_end() -> None:
    scheduler = FullTraining(9)
    assert scheduler.decide([], PLENTY) == Start(9)
    assert scheduler.decide([TrialView(0, {}, (0.5,) * 9, "finished", 9)], PLENTY) == Start(9)
    assert scheduler.decide([], RemainingBudget(trials=0, epochs=math.inf)) is None
    assert scheduler.decide([], RemainingBudget(trials=1, epochs=8)) is None


def test_without_a_scheduler_a_paused_trial_resumes_to_its_end() -> None:
    assert FullTraining(9).decide([TrialView(0, {}, (0.5,), "paused", 1)], PLENTY) == Resume(0, 9)
    assert FullTraining(9).decide([TrialView(0, {}, (0.5,), "paused", 1)], RemainingBudget(trials=1, epochs=7)) is None


def test_a_training_of_no_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        FullTraining(0)
