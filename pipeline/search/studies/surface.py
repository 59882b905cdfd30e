"""What the model of learning curves believes of the two most important keys: predicted accuracies on a grid of them."""

from collections.abc import Sequence

import numpy as np

from pipeline.config import Choices, Scalar
from pipeline.reporting import search_pictures
from pipeline.reporting.search_history import SearchHistory, Surface
from pipeline.search.schedulers.base import TrialView
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values
from pipeline.search.studies.explanation import forecast_of

STEPS = 25
"""Values of a key that has more, at equal distances on its scale."""


def surface(history: SearchHistory, trials: Sequence[TrialView], space: Space) -> Surface | None:
    """None if there are too few trials or fewer than two keys to show. The other keys have the winner's values.

    The model is that of freeze-thaw search, whatever scheduler decided: it learns from all trials, finished or not.
    """
    forecast = forecast_of(trials, space, history.epochs)
    if forecast is None:
        return None
    centre = _winner(history, trials) or forecast.best(1)[0].values
    shares = search_pictures.importances(history)["shares"]
    axes = {name: values for name, _ in shares if name in centre and len(values := _values(name, centre, space)) > 1}
    if len(axes) < 2:
        return None
    across, up = list(axes)[:2]
    # A key that depends on one of the two becomes active with it: it then has params.yaml's own value.
    grid = [space.active({**space.fixed, **centre, across: x, up: y}) for y in axes[up] for x in axes[across]]
    shape = len(axes[up]), len(axes[across])
    accuracies, sds = (found.reshape(shape).round(5).tolist() for found in forecast.accuracies(grid))
    held = {name: value for name, value in centre.items() if name not in (across, up)}
    return Surface([across, up], [axes[across], axes[up]], accuracies, sds, held)


def _winner(history: SearchHistory, trials: Sequence[TrialView]) -> Values | None:
    return next((trial.values for trial in trials if trial.number == history.winner), None)


def _values(name: str, centre: Values, space: Space) -> list[Scalar]:
    """The values of a key that the grid has, in their order."""
    axis = space.axes[name]
    if isinstance(axis, Choices):
        return list(axis.choices)
    spaced = np.geomspace if axis.log else np.linspace
    numbers = spaced(float(axis.low), float(axis.high), STEPS).tolist()
    return list(dict.fromkeys(space.snapped({**centre, name: number})[name] for number in numbers))
