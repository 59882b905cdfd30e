import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_results import Page, data_in, write_results
from made_searches import history, surface

from pipeline.reporting import page as pages
from pipeline.reporting import results, search_history, search_pictures
from pipeline.reporting.search_history import Event, SearchHistory, TrialHistory


def page_with(root: Path, search: SearchHistory | str, **links: str) -> Page:
    return Page(pages.page(results.read(write_results(root)), pages.Beside(search, links=links)))


def pictures_of(page: Page) -> set[str]:
    return {div["data-picture"] for div in page.all("div") if "data-picture" in div}


OF_A_SEARCH = {
    "progress",
    "curves_of_trials",
    "importances",
    "parallel",
    "values_of_keys",
    "rungs",
    "surface",
    "timeline",
}


def test_a_search_has_all_its_pictures_and_its_trials(tmp_path: Path) -> None:
    page = page_with(tmp_path, history())
    assert pictures_of(page) >= OF_A_SEARCH
    assert "The study main: 30 of 30 trials, 83 epochs of training in 2 min 00 s, scheduler freeze_thaw." in page.text
    assert "Trial" in page.text
    assert "3 diverged 3 \N{MULTIPLICATION SIGN}: the loss was <nan> in epoch 1" in page.text
    assert len(data_in(page)["search"]["trials"]) == 30
    assert "without stopping early" in page.text


def test_a_trial_leads_to_its_run_in_mlflow(tmp_path: Path) -> None:
    links = {"study-abc-trial-0003": "#/experiments/1/runs/f00"}
    first, *_, fourth = data_in(page_with(tmp_path, history(4), **links))["search"]["trials"]
    assert first["page"] is None
    assert fourth["page"] == "http://127.0.0.1:5000/#/experiments/1/runs/f00"


def test_without_a_search_the_page_says_how_to_make_one(tmp_path: Path) -> None:
    nothing = search_history.read(tmp_path / "history.json")
    assert isinstance(nothing, str)
    page = page_with(tmp_path / "project", nothing)
    assert "No search has been made here yet. python -m pipeline.tune --trials 50 makes one" in page.text
    assert not OF_A_SEARCH & pictures_of(page)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"study": "main"}', "\x00"])
def test_a_damaged_history_is_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "history.json").write_text(content)
    found = search_history.read(tmp_path / "history.json")
    assert isinstance(found, str)
    assert "history.json is damaged or of another version" in found


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    search_history.write(history(), tmp_path / "history.json")
    again = search_history.read(tmp_path / "history.json")
    assert isinstance(again, SearchHistory)
    assert [trial.values for trial in again.trials] == [trial.values for trial in history().trials]
    assert json.loads(json.dumps(search_pictures.as_data(again, {}))) == json.loads(
        json.dumps(search_pictures.as_data(history(), {}))
    )


def failed(number: int) -> TrialHistory:
    return TrialHistory(number, "failed", "out of memory", {"train.learning_rate": 0.1}, [], why="8 GB are not enough")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trials": [], "events": [], "winner": None}, "The study main has no trial yet."),
        (
            {"trials": [failed(0), failed(1)], "events": [], "winner": None, "importances": {}},
            "No trial of the study was trained for a whole epoch",
        ),
        ({"is_running": True}, "The study was running when this page was written."),
        ({"importances": {}}, "that a key alone explains; too few trials have finished for more"),
        ({"keys": ()}, "What did stopping early save?"),
        ({"surface": None}, "Too few trials or keys, or a study of an earlier version"),
        ({"surface": None, "is_running": True}, "The model's belief is computed at the end of a search."),
        ({"winner": None}, "Which values won, and was it luck?"),
    ],
)
def test_what_a_search_lacks_is_a_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    page = page_with(tmp_path, replace(history(), **changes))
    assert sentence in page.text


def test_twelve_trials_of_one_epoch_have_a_page(tmp_path: Path) -> None:
    page = page_with(tmp_path, history(12, epochs=1, importances={}))
    assert pictures_of(page) >= OF_A_SEARCH
    assert data_in(page)["search"]["rungs"] == [11]


def test_a_study_that_an_earlier_version_began_has_no_times(tmp_path: Path) -> None:
    page = page_with(tmp_path, history(with_events=False))
    assert pictures_of(page) == pictures_of(page) - {"timeline"}
    assert "An earlier version recorded no times" in page.text


def test_the_best_so_far_stands_over_the_epochs_that_were_spent_by_then() -> None:
    trials = [
        TrialHistory(0, "finished", "finished", {}, [0.5, 0.6]),
        TrialHistory(1, "pruned", "pruned", {}, [0.9]),
        TrialHistory(2, "finished", "finished", {}, [0.1, 0.8]),
    ]
    order = [(2, 1), (0, 1), (1, 1), (0, 2), (2, 2)]
    events = [Event(float(at), "trial", trial, "epoch", epoch) for at, (trial, epoch) in enumerate(order)]
    found = search_pictures.as_data(replace(history(3, epochs=2), trials=trials, events=events), {})
    assert found["progress"]["best"] == [
        {"trial": 0, "spent": 4, "score": 0.6},
        {"trial": 2, "spent": 5, "score": 0.8},
    ]
    assert found["rungs"] == [3, 2]


def test_the_timeline_has_a_lane_for_each_training_at_a_time_and_cuts_pauses() -> None:
    events = [
        Event(0.0, "trial", 0, "sent", 1),
        Event(0.0, "trial", 1, "sent", 1),
        Event(10.0, "trial", 0, "reached", 1),
        Event(10.0, "trial", 2, "sent", 2),
        Event(20.0, "trial", 1, "ended", 1),
        Event(30.0, "trial", 2, "stopped", 1),
        Event(100_000.0, "trial", 2, "sent", 2),
        Event(100_005.0, "trial", 2, "ended", 2),
    ]
    found = search_pictures.as_data(replace(history(3), events=events), {})["timeline"]
    assert found["lanes"] == 2
    assert [(bar["trial"], bar["lane"], bar["from"], bar["to"]) for bar in found["bars"]] == [
        (0, 0, 0, 10),
        (1, 1, 0, 20),
        (2, 0, 10, 30),
        (2, 0, 90, 95),
    ]
    assert [cut["seconds"] for cut in found["cuts"]] == [99_970]


def test_many_trials_are_thinned_and_the_page_says_so(tmp_path: Path) -> None:
    search = history(2000, epochs=6)
    project = write_results(tmp_path)
    began_s = time.monotonic()
    page = Page(pages.page(results.read(project), pages.Beside(search)))
    assert time.monotonic() - began_s < 20
    found = data_in(page)["search"]
    assert len(found["drawn"]) <= search_pictures.MOST_LINES
    assert search.winner in found["drawn"]
    assert f"Drawn are {len(found['drawn'])} of 1,800 trials: the best 100" in page.text
    assert len(found["trials"]) == 2000
    assert len(page.html) < 8_000_000


def test_the_surface_says_where_the_model_expects_most_and_where_it_is_unsure(tmp_path: Path) -> None:
    page = page_with(tmp_path, history())
    assert "The model expects most at train.learning_rate 0.0562 and augment.cutout 0.5: 89.99 % ± 2.16." in page.text
    assert "Other keys have the winner's values: train.momentum 0.9." in page.text
    found = data_in(page)["search"]["surface"]
    assert found["contour"]
    assert len(found["areas"]) == len(found["levels"]) - 1
    assert all(found["areas"])
    ((*ring,),) = found["unsure"]
    assert min(x for x, _ in ring) > 500, "on the right"


def area(ring: list[list[int]]) -> float:
    """Of a polygon (Gauss's formula)."""
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True)) / 2


def test_the_areas_of_a_surface_fill_it_without_overlap() -> None:
    found = search_pictures.as_data(history(), {})["surface"]
    # A hole turns the other way than what is around it.
    total = sum(area(ring) for rings in found["areas"] for ring in rings)
    assert abs(total) == pytest.approx(1000 * 1000, rel=0.002)


@pytest.mark.parametrize("up", ["train.batch_size", "augment.policy"])
def test_a_key_of_few_choices_makes_cells(up: str) -> None:
    found = search_pictures.as_data(history(surface=surface(up=up)), {})["surface"]
    assert not found["contour"]
    assert found["areas"] == found["unsure"] == []
    assert len(found["accuracies"]) == len(found["keys"][1]["values"])


def test_a_flat_surface_has_levels_too() -> None:
    flat = replace(surface(), accuracies=[[0.5] * 25] * 25, sds=[[0.0] * 25] * 25)
    found = search_pictures.as_data(history(surface=flat), {})["surface"]
    assert found["levels"][0] < 0.5 < found["levels"][-1]
    assert found["unsure"] == []


def test_importances_without_finished_trials_find_the_key_that_decides() -> None:
    shares = dict(search_pictures.importances(history(60, importances={}))["shares"])
    assert max(shares, key=lambda name: shares[name]) == "train.learning_rate"
    assert search_pictures.importances(history(4, importances={}))["shares"] == []


def test_other_seeds_of_the_same_values_stand_beside_the_result(tmp_path: Path) -> None:
    run_values = {"train.learning_rate": 0.2, "train.batch_size": 128}
    search = history()
    confirmation = [
        TrialHistory(number, "finished", "finished", run_values, [0.5] * 19 + [score], of=0)
        for number, score in enumerate([0.90, 0.92, 0.91])
    ]
    page = page_with(tmp_path, replace(search, confirmation=confirmation))
    assert "with 3 other seeds: validation accuracy 91.00 % ± 1.00" in page.text
    assert len(data_in(page)["seeds"]) == 3
    assert "91.00 % ± 1.00 (3 seeds)" in page.text
