"""The page's pictures as PNG files: drawn from the page's data, the same again, and of whatever there is."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import write_beside, write_results
from made_searches import history, surface
from matplotlib import image

from pipeline.reporting import answers, drawings, results, search_drawings, search_pictures
from pipeline.reporting.language import ENGLISH
from pipeline.reporting.search_history import SearchHistory, TrialHistory
from pipeline.reporting.study_plots import BEST

OF_A_SEARCH = {
    *("optimisation_history", "learning_curves", "importances", "parallel_coordinates"),
    *("values_of_keys", "rungs", "timeline", "surface"),
}


def data_of(found: SearchHistory) -> dict[str, Any]:
    return search_pictures.as_data(found, {})


def rows_of(png: bytes, colour: str) -> np.ndarray:
    """Rows of the image that hold a colour."""
    pixels = image.imread(io.BytesIO(png), format="png")[..., :3]
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.flatnonzero((np.abs(pixels - wanted).max(axis=2) < 0.02).any(axis=1))


def test_a_result_has_its_pictures_and_without_predictions_those_that_need_none(tmp_path: Path) -> None:
    project = write_results(tmp_path)
    without = answers.pictures(results.read(project), None, None, ENGLISH)
    assert set(drawings.of_result(without)) == {"training_speed", "accuracies"}
    write_beside(project)
    found = drawings.of_result(answers.pictures(results.read(project), None, None, ENGLISH))
    assert set(found) == {"training_speed", "accuracies", "reliability", "coverage", "slices"}
    assert all(png.startswith(b"\x89PNG") for png in found.values())


@pytest.mark.slow
def test_a_search_has_all_its_pictures_the_same_ones_again_whatever_the_users_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = search_drawings.of_search(data_of(history()))
    assert set(first) == OF_A_SEARCH
    monkeypatch.setitem(__import__("matplotlib").rcParams, "axes.facecolor", "black")
    assert search_drawings.of_search(data_of(history())) == first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"trials": [], "events": [], "surface": None}, OF_A_SEARCH),
        ({"importances": {}, "surface": surface(up="augment.policy")}, set()),
        ({"events": [], "surface": surface(up="train.batch_size")}, {"timeline"}),
        ({"keys": (), "importances": {}, "surface": None}, {"parallel_coordinates", "values_of_keys", "surface"}),
    ],
)
def test_a_search_that_lacks_something_has_the_other_pictures(changes: dict[str, Any], missing: set[str]) -> None:
    found = search_drawings.of_search(data_of(replace(history(), **changes)))
    assert OF_A_SEARCH - set(found) - missing <= {"importances"}
    assert not set(found) & missing


@pytest.mark.slow
def test_twelve_trials_of_one_epoch_and_two_thousand_are_drawn() -> None:
    assert set(search_drawings.of_search(data_of(history(12, epochs=1)))) == OF_A_SEARCH
    assert set(search_drawings.of_search(data_of(history(2000, epochs=6)))) == OF_A_SEARCH


def search_of(*trials: tuple[str, float]) -> dict[str, Any]:
    """Trials of one epoch, each with its state and accuracy."""
    made = [TrialHistory(number, state, state, {}, [score]) for number, (state, score) in enumerate(trials)]
    return data_of(history(4, epochs=1, trials=made, events=[], keys=(), importances={}, surface=None))


def test_the_line_of_the_best_is_that_of_finished_trials() -> None:
    pruned = [("pruned", 0.9)] * 8
    flat = rows_of(search_drawings.progress(search_of(("finished", 0.5), *pruned)), BEST)
    stepped = rows_of(search_drawings.progress(search_of(("finished", 0.5), *pruned[1:], ("finished", 0.9))), BEST)
    assert len(rows_of(search_drawings.progress(search_of(*pruned)), BEST)) == 0
    assert np.ptp(flat) < 10, "one height"
    assert np.ptp(stepped) > 200, "a step up"


def test_a_few_trials_that_learned_nothing_do_not_press_the_others_into_a_line() -> None:
    good = [("finished", 0.8 + 0.01 * number) for number in range(15)]
    low, lower = (rows_of(search_drawings.progress(search_of(*good, ("pruned", bad))), BEST) for bad in (0.1, 0.05))
    assert low.tolist() == lower.tolist()
    assert np.ptp(low) > 250
