"""What the model believes of the two most important keys, on a search whose answer is known."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from made_searches import history
from searches import EPOCHS, SPACE, curve

from pipeline.config import Choices, Range
from pipeline.reporting.search_history import Key, SearchHistory
from pipeline.search.schedulers.base import TrialView
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values
from pipeline.search.studies import explanation
from pipeline.search.studies.surface import STEPS, surface

SHARES = {"train.momentum": 0.2, "train.learning_rate": 0.8}


def search_of(values: Sequence[Values], space: Space = SPACE, winner: int | None = 0) -> SearchHistory:
    return history(
        4, epochs=EPOCHS, keys=[Key(name) for name in space.names], importances=SHARES, winner=winner, surface=None
    )


def trained(values: Sequence[Values]) -> list[TrialView]:
    """Each fourth to its end, the others for an epoch or two."""
    until = [EPOCHS if number % 4 == 0 else 1 + number % 2 for number in range(len(values))]
    return [
        TrialView(number, one, tuple(curve(one)[:end]), "finished" if end == EPOCHS else "paused", end)
        for number, (one, end) in enumerate(zip(values, until, strict=True))
    ]


def test_the_model_expects_the_best_where_it_is_and_is_surer_where_it_has_seen_trials() -> None:
    values = SPACE.spread(40, seed=1)
    found = surface(search_of(values), trained(values), SPACE)
    assert found
    assert found.keys == ["train.learning_rate", "train.momentum"], "the more important one first"
    assert [len(numbers) for numbers in found.values] == [STEPS, STEPS]
    accuracies = np.array(found.accuracies)
    row, column = divmod(int(accuracies.argmax()), STEPS)
    assert abs(np.log10(float(found.values[0][column] or 0) / 0.03)) < 0.6
    assert found.values[1][row] == pytest.approx(0.5, abs=0.25)  # type: ignore[arg-type]
    assert accuracies.max() == pytest.approx(0.95, abs=0.03)
    slow = [one for one in SPACE.spread(80, seed=1) if float(one["train.learning_rate"] or 0) < 0.03]
    half = surface(search_of(slow), trained(slow), SPACE)
    assert half
    sds = np.array(half.sds)
    assert sds[:, -5:].mean() > 2 * sds[:, :12].mean()


def test_too_few_trials_or_keys_have_none() -> None:
    values = SPACE.spread(40, seed=1)
    assert surface(search_of(values), trained(values)[:7], SPACE) is None
    alone = Space({"train.learning_rate": SPACE.axes["train.learning_rate"]}, {"train.learning_rate": 0.1})
    only = replace(search_of(values), importances={"train.learning_rate": 1.0})
    assert surface(only, trained(values), alone) is None


def test_other_keys_have_the_winners_values_and_choices_are_all_there() -> None:
    space = Space(
        {
            "train.learning_rate": Range(low=0.001, high=1.0, log=True),
            "train.momentum": Range(low=0.0, high=0.9, step=0.3),
            "augment.policy": Choices(choices=("none", "flip")),
        },
        {"train.learning_rate": 0.1, "train.momentum": 0.9, "augment.policy": "none"},
    )
    values = space.spread(20, seed=0)
    found = surface(search_of(values, space, winner=4), trained(values), space)
    assert found
    assert found.held == {"augment.policy": values[4]["augment.policy"]}
    assert list(found.values[1]) == [0.0, 0.3, 0.6, 0.9]
    by_policy = replace(search_of(values, space), importances={"augment.policy": 0.9, "train.momentum": 0.1})
    again = surface(by_policy, trained(values), space)
    assert again
    assert [list(numbers) for numbers in again.values] == [["none", "flip"], [0.0, 0.3, 0.6, 0.9]]


def test_a_search_without_a_winner_shows_the_surface_around_the_best_prediction() -> None:
    values = SPACE.spread(12, seed=2)
    trials = [replace(one, state="paused", scores=one.scores[:2], until=2) for one in trained(values)]
    found = surface(replace(search_of(values, winner=None), importances={}), trials, SPACE)
    assert found is None or set(found.keys) == set(SPACE.names)


def test_a_model_that_fails_costs_the_picture_and_not_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise np.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(explanation, "Forecast", fail)
    values = SPACE.spread(20, seed=1)
    assert surface(search_of(values), trained(values), SPACE) is None
