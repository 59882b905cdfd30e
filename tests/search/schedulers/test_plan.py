"""Several decisions at once, for searches with many workers."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.config import Choices, Range
from pipeline.search.schedulers.asha import Asha
from pipeline.search.schedulers.base import FullTraining, RemainingBudget, Resume, Scheduler, Start, TrialView
from pipeline.search.schedulers.freeze_thaw import MODELLED, SPACING, FreezeThaw, modelled
from pipeline.search.space.space import Space

EPOCHS = 9
SPACE = Space(
    {"rate": Range(low=0.001, high=1.0, log=True, when={}), "policy": Choices(choices=("none", "flip"), when={})},
    {"rate": 0.1, "policy": "none"},
)
SCHEDULERS = [FullTraining(EPOCHS), Asha(EPOCHS), FreezeThaw(SPACE, EPOCHS)]


def study(paused: int, running: int = 0, seed: int = 0) -> list[TrialView]:
    """Paused trials at the rungs 1 and 3, then running ones without a score."""
    draw = np.random.default_rng(seed)
    values = SPACE.random(draw, paused + running)
    found = []
    for number, configuration in enumerate(values):
        until = 1 if number % 3 or number >= paused else 3
        scores = tuple(sorted(draw.random(until))) if number < paused else ()
        found.append(TrialView(number, configuration, scores, "paused" if scores else "running", until))
    return found


def carried_out(trials: Sequence[TrialView], decision: Start | Resume) -> list[TrialView]:
    """The trials after a decision."""
    if isinstance(decision, Start):
        values = decision.values or {"rate": 0.1}
        return [*trials, TrialView(len(trials), values, (), "running", decision.until)]
    return [
        dataclasses.replace(trial, state="running", until=decision.until) if trial.number == decision.number else trial
        for trial in trials
    ]


def cost(trials: Sequence[TrialView], decision: Start | Resume) -> int:
    return decision.until - (trials[decision.number].until if isinstance(decision, Resume) else 0)


@pytest.mark.parametrize("scheduler", SCHEDULERS[:2], ids=lambda scheduler: type(scheduler).__name__)
@pytest.mark.parametrize("epochs", [math.inf, 60.0, 12.0])
def test_a_plan_is_as_many_decisions_in_a_row(scheduler: Scheduler, epochs: float) -> None:
    trials, left = study(30), RemainingBudget(5, epochs)
    planned = scheduler.plan(trials, left, 12)
    for decision in planned:
        assert scheduler.decide(trials, left) == decision
        left = RemainingBudget(left.trials - isinstance(decision, Start), left.epochs - cost(trials, decision))
        trials = carried_out(trials, decision)
    assert len(planned) == 12 or scheduler.decide(trials, left) is None


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: type(scheduler).__name__)
def test_a_plan_of_one_is_the_decision(scheduler: Scheduler) -> None:
    trials, left = study(12), RemainingBudget(5, 60.0)
    assert scheduler.plan(trials, left, 1) == [scheduler.decide(trials, left)]
    assert scheduler.plan(trials, RemainingBudget(0, 0.0), 1) == []


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: type(scheduler).__name__)
@pytest.mark.parametrize("epochs", [200.0, 20.0, 5.0, 0.0])
def test_a_plan_keeps_to_the_budget_and_names_no_trial_twice(scheduler: Scheduler, epochs: float) -> None:
    trials = study(40, running=20)
    planned = scheduler.plan(trials, RemainingBudget(6, epochs), 64)
    resumed = [decision.number for decision in planned if isinstance(decision, Resume)]
    assert len(resumed) == len(set(resumed))
    assert all(trials[number].state == "paused" for number in resumed)
    assert len(planned) - len(resumed) <= 6
    assert sum(cost(trials, decision) for decision in planned) <= epochs


def test_new_configurations_of_a_plan_differ_and_keep_a_distance() -> None:
    planned = FreezeThaw(SPACE, EPOCHS).plan(study(20, running=20), RemainingBudget(500, math.inf), 16)
    new = [decision.values for decision in planned if isinstance(decision, Start) and decision.values]
    assert len(new) > 2
    places = SPACE.encode(new)
    distances = np.sqrt(((places[:3, None] - places[None, :3]) ** 2).sum(2))
    assert distances[np.triu_indices(3, 1)].min() >= SPACING * math.sqrt(places.shape[1])
    assert len({frozenset(values.items()) for values in new}) == len(new)


def test_a_study_without_results_begins_with_a_spread() -> None:
    planned = FreezeThaw(SPACE, EPOCHS).plan([], RemainingBudget(500, math.inf), 32)
    assert [decision.values for decision in planned if isinstance(decision, Start)] == SPACE.spread(32, 0)


def test_the_model_stays_small_however_many_workers_there_are() -> None:
    trials = study(3000, running=1024)
    assert len(modelled(trials)) == MODELLED
    kept = {trial.state for trial in modelled(trials)}
    assert kept == {"paused", "running"}
