import io
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib import image

from pipeline.reporting.degradation_plot import KINDS, Network, degradation


def network(kind: str, depth: int | None, end: float, epochs: int = 9) -> Network:
    """One whose errors fall from 90 % to `end` in training, and to a little more in validation and test."""
    curve = [end + (0.9 - end) * 0.5**epoch for epoch in range(1, epochs + 1)]
    return Network(kind, depth, curve, [error + 0.02 for error in curve], end + 0.04)


STUDY = [network(kind, depth, end) for kind, depth, end in (("plain", 8, 0.1), ("plain", 20, 0.3), ("resnet", 8, 0.1))]


def pixels(png: bytes) -> np.ndarray:
    """float [height, width, 3] in 0..1."""
    return image.imread(io.BytesIO(png), format="png")[..., :3]


def places(png: bytes, colour: str) -> np.ndarray:
    """[n, 2]: row and column of the pixels that have a colour."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.argwhere(np.abs(pixels(png) - wanted).max(axis=2) < 0.02)


def test_the_figure_is_the_same_again_whatever_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    first = degradation(STUDY)
    assert first.startswith(b"\x89PNG")
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "black")
    assert degradation(STUDY) == first


@pytest.mark.parametrize(
    "networks",
    [
        [],
        STUDY[:1],
        [replace(STUDY[0], test=None)],
        [replace(STUDY[0], training=[], validation=[], test=None), STUDY[1]],
        [network("vgg16", None, 0.1, epochs=1)],
        [network("resnet", depth, 0.0) for depth in (20, 32, 44, 56, 110, 1202)],
    ],
    ids=["none", "one", "untested", "one that never learned", "an epoch", "many depths"],
)
def test_a_study_of_little_is_drawn_too(networks: list[Network]) -> None:
    assert degradation(networks).startswith(b"\x89PNG")


def test_each_kind_is_a_panel_where_depth_is_varied_and_a_colour_where_it_is_not() -> None:
    one = degradation([network("plain", 8, 0.1), network("plain", 20, 0.3)])
    two = degradation(STUDY)
    assert pixels(two).shape[1] > 1.3 * pixels(one).shape[1]
    families = [network("resnet18", None, 0.1), network("vgg16", None, 0.4)]
    both, first = degradation(families), degradation(families[:1])
    assert pixels(both).shape[1] < pixels(one).shape[1]
    assert [len(places(both, colour)) > 1000 for colour in KINDS[:3]] == [True, True, False]
    assert [len(places(first, colour)) > 1000 for colour in KINDS[:3]] == [True, False, False]


def test_the_line_over_depth_rises_where_deeper_networks_are_worse() -> None:
    def heights(deeper: float) -> tuple[float, float]:
        png = degradation([network("plain", 8, 0.2), network("plain", 20, deeper)])
        found = places(png, KINDS[0])
        found = found[found[:, 1] < 0.93 * pixels(png).shape[1]]  # without the name at the end of the line
        left, right = np.quantile(found[:, 1], [0.05, 0.95])
        return found[found[:, 1] <= left, 0].mean(), found[found[:, 1] >= right, 0].mean()

    left, right = heights(0.4)
    assert right < left - 50, "rows count from the top"
    left, right = heights(0.1)
    assert right > left + 50


def test_names_of_lines_that_end_at_the_same_error_do_not_cover_each_other() -> None:
    alike = degradation([network(kind, depth, 0.1) for kind in ("plain", "resnet") for depth in (8, 20)])
    width = pixels(alike).shape[1]
    rows = [{row for row, column in places(alike, colour) if column > 0.955 * width} for colour in KINDS[:2]]
    assert rows[0]
    assert rows[1]
    assert not rows[0] & rows[1]
