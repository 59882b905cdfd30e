import io
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib import image

from pipeline.reporting.study_plots import (
    BEST,
    Coordinate,
    Line,
    importances,
    parallel_coordinates,
)

RATE = Coordinate("train.learning_rate", log=True)
POLICY = Coordinate("augment.policy", choices=["flip", "crop_flip", "crop_flip_cutout"])
CUTOUT = Coordinate("augment.cutout")
LINES = [
    Line({"train.learning_rate": 0.02, "augment.policy": "flip"}, 0.5),
    Line({"train.learning_rate": 0.2, "augment.policy": "crop_flip_cutout", "augment.cutout": 0.3}, 0.9),
    Line({"train.learning_rate": 0.8, "augment.policy": "crop_flip_cutout", "augment.cutout": 0.6}, 0.8),
]


def pixels(png: bytes) -> np.ndarray:
    """float [height, width, 3] in 0..1."""
    return image.imread(io.BytesIO(png), format="png")[..., :3]


def share(png: bytes, colour: str) -> float:
    """The part of the image that has a colour."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return float(np.mean(np.abs(pixels(png) - wanted).max(axis=2) < 0.02))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: importances({"train.learning_rate": 0.7, "model.width": 0.3}),
        lambda: parallel_coordinates(LINES, [RATE, POLICY, CUTOUT]),
    ],
)
def test_an_image_is_the_same_again_whatever_the_users_settings(
    draw: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = draw()
    assert first.startswith(b"\x89PNG")
    monkeypatch.setitem(__import__("matplotlib").rcParams, "axes.facecolor", "black")
    assert draw() == first


@pytest.mark.parametrize(
    "draw",
    [
        lambda: importances({}),
        lambda: importances({"model.width": 0.0}),
        lambda: parallel_coordinates([], [RATE, POLICY]),
        lambda: parallel_coordinates(LINES[:1], [CUTOUT]),
        lambda: parallel_coordinates(LINES[:1] * 300, [RATE, POLICY]),
    ],
)
def test_a_study_of_nothing_or_of_one_thing_is_drawn_too(draw: Callable[[], bytes]) -> None:
    assert draw().startswith(b"\x89PNG")


def rows_of(png: bytes, colour: str, above: float = 0.85) -> np.ndarray:
    """Rows of the image that hold a colour; `above` leaves the legend out."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    rows = np.flatnonzero((np.abs(pixels(png) - wanted).max(axis=2) < 0.02).any(axis=1))
    return rows[rows < above * len(pixels(png))]


def test_bars_are_ranked_and_only_the_longest_are_drawn() -> None:
    scores = {f"model.key{number:02}": number / 1000 for number in range(40)}
    assert importances(scores) == importances(dict(list(scores.items())[20:]))
    assert importances(scores) != importances(dict(list(scores.items())[21:]))


def test_the_scale_of_an_axis_is_what_the_space_says() -> None:
    heights = []
    for rate in (0.02, 0.126, 0.8):
        best = Line({"train.learning_rate": rate}, 0.95)
        heights.append(rows_of(parallel_coordinates([*LINES, best], [RATE, RATE]), BEST, above=1).mean())
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=3), "the geometric middle"
    assert heights[0] - heights[2] > 300
    as_log = parallel_coordinates(LINES, [RATE, POLICY])
    assert as_log != parallel_coordinates(LINES, [Coordinate("train.learning_rate"), POLICY])
    assert as_log == parallel_coordinates(LINES[::-1], [RATE, POLICY])
    assert as_log != parallel_coordinates(LINES, [RATE, Coordinate("augment.policy", choices=POLICY.choices[::-1])])


def test_the_best_trial_stands_out_and_moves_with_its_values() -> None:
    one = parallel_coordinates(LINES, [RATE, POLICY, CUTOUT])
    other = parallel_coordinates(
        [*LINES, Line({"train.learning_rate": 0.02, "augment.policy": "flip"}, 0.95)], [RATE, CUTOUT]
    )
    assert share(one, BEST) > 0.002
    lowest = [rows_of(png, BEST, above=1).max() for png in (one, other)]
    assert lowest[1] > lowest[0] + 50, "down to where a key is not used"
