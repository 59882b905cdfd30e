import math
from dataclasses import replace

import pytest

from pipeline.config import Config
from pipeline.search.studies.budget import Goal, budget_of


@pytest.mark.parametrize(
    ("values", "budget"),
    [
        ({"tune.trials": 50, "train.epochs": 20}, 20.0),
        ({"tune.trials": 2, "train.epochs": 10}, 1.2),  # both begin, and one is finished
        ({"tune.budget": 7.5}, 7.5),
        ({"tune.scheduler": "none"}, math.inf),
        ({"tune.scheduler": "none", "tune.budget": 3.0}, 3.0),
    ],
)
def test_the_budget_is_that_of_params_yaml_or_a_share_of_the_trials(
    settings: Config, values: dict[str, float | str], budget: float
) -> None:
    assert budget_of(settings.with_values(values)) == pytest.approx(budget)


def test_a_complete_study_is_complete_for_a_smaller_goal_and_not_for_a_larger_one() -> None:
    goal = Goal(trials=20, budget=8.0, confirm=3, seeds=2)
    assert not goal.is_covered_by(None)
    assert goal.is_covered_by(goal.record())
    for name in ("trials", "budget", "confirm", "seeds"):
        value = getattr(goal, name)
        assert replace(goal, **{name: value - 1}).is_covered_by(goal.record())
        assert not replace(goal, **{name: value + 1}).is_covered_by(goal.record())
    patient = replace(goal, patience=9)
    of_before = {key: value for key, value in goal.record().items() if key != "patience"}
    assert patient.is_covered_by(goal.record()) and not goal.is_covered_by(patient.record())
    assert goal.is_covered_by(of_before)
    unlimited = replace(goal, budget=None)
    assert not unlimited.is_covered_by(goal.record())
    assert goal.is_covered_by(unlimited.record())
