import dataclasses
import math

import pytest

from pipeline.search.schedulers.asha import Asha
from pipeline.search.schedulers.base import RemainingBudget, Resume, Start, TrialView

PLENTY = RemainingBudget(trials=10, epochs=math.inf)


def view(number: int, *scores: float, state: str = "paused", until: int | None = None) -> TrialView:
    return TrialView(number, {"x": number}, scores, state, len(scores) if until is None else until)  # type: ignore[arg-type]


def test_rungs_grow_by_the_reduction_factor_up_to_a_full_training() -> None:
    assert Asha(27).rungs == (1, 3, 9, 27)
    assert Asha(20).rungs == (1, 3, 9, 20)
    assert Asha(52, first_rung=4, reduction_factor=2).rungs == (4, 8, 16, 32, 52)
    assert Asha(1).rungs == (1,)
    assert Asha(5, first_rung=5).rungs == (5,)


def test_a_new_trial_starts_while_too_few_are_at_the_first_rung() -> None:
    asha = Asha(9)
    assert asha.decide([], PLENTY) == Start(1)
    assert asha.decide([view(0, 0.9), view(1, 0.1)], PLENTY) == Start(1)


def test_the_best_third_resumes_before_a_new_one_starts() -> None:
    trials = [view(0, 0.1), view(1, 0.9), view(2, 0.5)]
    assert Asha(9).decide(trials, PLENTY) == Resume(1, 3)
    # Of six the best two resume; the best one has already.
    trials = [view(0, 0.1), view(1, 0.9, 0.9, 0.9), view(2, 0.5), view(3, 0.6), view(4, 0.2), view(5, 0.3)]
    assert Asha(9).decide(trials, PLENTY) == Resume(3, 3)
    # Of five only the best one: the third quotient is not whole.
    assert Asha(9).decide(trials[:5], PLENTY) == Start(1)


def test_the_highest_rung_goes_first() -> None:
    below = [view(number, 0.9 - number / 100) for number in range(3, 12)]
    above = [view(number, 0.95, 0.95, 0.95 + number / 100) for number in range(3)]
    # 12 have been at epoch 1, of which 4 resume, and 3 at epoch 3, of which the best one does.
    assert Asha(9).decide([*above, *below], PLENTY) == Resume(2, 9)
    one_running = [*above[:2], dataclasses.replace(above[2], state="running", until=9)]
    assert Asha(9).decide([*one_running, *below], PLENTY) == Resume(3, 3)


def test_a_trial_that_was_overtaken_waits() -> None:
    trials = [view(0, 0.5), view(1, 0.4), view(2, 0.3), view(3, 0.8), view(4, 0.7), view(5, 0.6)]
    assert Asha(9).decide(trials[:3], PLENTY) == Resume(0, 3)
    assert Asha(9).decide(trials, PLENTY) == Resume(3, 3)
    after = [*trials[:3], view(3, 0.8, 0.8, 0.8), view(4, 0.7, 0.7, 0.7), trials[5]]
    assert Asha(9).decide(after, PLENTY) == Start(1)


def test_ended_trials_count_in_the_rungs_that_they_reached_and_never_resume() -> None:
    trials = [view(0, 0.9, state="failed"), view(1, 0.8, state="pruned"), view(2, 0.7)]
    assert Asha(9).decide(trials, PLENTY) == Start(1)
    # A trial that failed before its first rung says nothing about the others.
    trials = [view(0, state="failed", until=1), view(1, 0.8), view(2, 0.7)]
    assert Asha(9).decide(trials, PLENTY) == Start(1)


def test_asha_spends_no_more_than_is_left() -> None:
    trials = [view(0, 0.1), view(1, 0.9), view(2, 0.5)]
    assert Asha(9).decide(trials, RemainingBudget(trials=1, epochs=3)) == Resume(1, 3)
    # An epoch is reserved for the trial that has not started.
    assert Asha(9).decide(trials, RemainingBudget(trials=1, epochs=2)) == Start(1)
    assert Asha(9).decide(trials, RemainingBudget(trials=1, epochs=1.5)) == Start(1)
    assert Asha(9).decide(trials, RemainingBudget(trials=1, epochs=0.5)) is None
    assert Asha(9).decide(trials[:2], RemainingBudget(trials=0, epochs=math.inf)) is None


def test_asha_resumes_the_best_of_2_000_trials() -> None:
    reached = (1, 1, 1, 3, 3, 9, 27)
    trials = [
        view(number, *[math.sin(number * 12.9898) ** 2] * epochs, state="finished" if epochs == 27 else "paused")
        for number in range(2_000)
        for epochs in [reached[number % 7]]
    ]
    decision = Asha(27).decide(trials, PLENTY)
    assert isinstance(decision, Resume)
    waiting = [trial for trial in trials if trial.state == "paused" and trial.until == trials[decision.number].until]
    assert trials[decision.number].scores[0] == max(trial.scores[0] for trial in waiting)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": 9, "first_rung": 0}, "first_rung must be at least 1, got 0"),
        ({"epochs": 9, "first_rung": 10}, r"first_rung must be at most epochs \(9\), got 10"),
        ({"epochs": 9, "reduction_factor": 1}, "reduction_factor must be at least 2, got 1"),
    ],
)
def test_asha_refuses_settings_that_make_no_rungs(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Asha(**settings)
