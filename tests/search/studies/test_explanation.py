import math

import numpy as np
import pytest

from pipeline.config import Choices, Range
from pipeline.search.schedulers.base import TrialView
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values
from pipeline.search.studies import explanation
from pipeline.search.studies.explanation import explain

EPOCHS = 8
SPACE = Space(
    {
        "train.learning_rate": Range(low=1e-4, high=1.0, log=True, when={}),
        "train.momentum": Range(low=0.0, high=0.99, when={}),
        "train.schedule": Choices(choices=("constant", "cosine", "one_cycle"), when={}),
    },
    {"train.learning_rate": 0.01, "train.momentum": 0.5, "train.schedule": "constant"},
)


def curve(values: Values) -> tuple[float, ...]:
    """The learning rate alone decides; the best one is 0.01."""
    end = 0.9 - 0.1 * (math.log10(float(values["train.learning_rate"])) + 2) ** 2  # type: ignore[arg-type]
    return tuple(end * (1 - 0.5**epoch) for epoch in range(1, EPOCHS + 1))


def trial(number: int, values: Values, epochs: int) -> TrialView:
    state = "finished" if epochs == EPOCHS else "paused"
    return TrialView(number, values, curve(values)[:epochs], state, epochs)  # type: ignore[arg-type]


TRIALS = [
    trial(number, {**values, "train.schedule": "constant" if number < 6 else "one_cycle"}, EPOCHS if number < 6 else 2)
    for number, values in enumerate(SPACE.spread(12, 0))
]


def test_what_matters_what_is_untried_and_what_trials_will_reach_is_said() -> None:
    found = explain(TRIALS, SPACE, EPOCHS, seed=0)
    assert found and found.gain
    assert max(found.importances, key=found.importances.__getitem__) == "train.learning_rate"
    assert sum(found.importances.values()) == pytest.approx(1)
    assert found.unfinished == {"train.schedule": ["cosine", "one_cycle"]}
    for each in found.expected:
        end = curve(TRIALS[each.trial].values)[-1]
        assert each.end == pytest.approx(end, abs=max(3 * each.sd, 1e-9))
        assert (each.sd == 0) == (each.state == "finished")
    assert [each.end for each in found.expected] == sorted((each.end for each in found.expected), reverse=True)
    assert 0 <= found.gain.low <= found.gain.mean <= found.gain.high
    text = " ".join(explanation.sentences(found))
    assert "train.schedule cosine, one_cycle" in text and "20 more trials" in text


def test_more_trials_promise_less_where_the_best_is_known() -> None:
    def gain(rates: list[float]) -> float:
        spread = zip(rates, np.random.default_rng(0).uniform(0, 0.99, len(rates)).tolist(), strict=True)
        values = [{**SPACE.fixed, "train.learning_rate": rate, "train.momentum": momentum} for rate, momentum in spread]
        found = explain([trial(number, each, EPOCHS) for number, each in enumerate(values)], SPACE, EPOCHS, seed=0)
        assert found and found.gain
        return found.gain.mean

    far, around = np.geomspace(1e-4, 1e-3, 10).tolist(), np.geomspace(1e-3, 0.1, 10).tolist()
    assert gain(far) > 3 * gain(around)


def test_of_few_trials_nothing_is_said() -> None:
    assert explain(TRIALS[:3], SPACE, EPOCHS, seed=0) is None
    assert explain([], SPACE, EPOCHS, seed=0) is None
