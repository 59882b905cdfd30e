import io
from pathlib import Path

from rich.console import Console
from searches import EPOCHS, curve, owner

from pipeline.outcome import Outcome
from pipeline.search.engines.base import Failed
from pipeline.search.engines.simulated import SimulatedEngine
from pipeline.search.studies import display as study_display
from pipeline.search.studies.display import StudyDisplay, on_a_line


def shown(tmp_path: Path, *, terminal: bool, until_epoch: int | None = None) -> str:
    """What a study of 4 trials prints; on a terminal, the last table before it ends."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, height=20, color_system=None)
    study = owner(tmp_path, engine=SimulatedEngine(curve), trials=4, budget=3.0)
    display = StudyDisplay(console, study.ledger, title="trial", trials=4, epochs=EPOCHS, budget=3.0)
    study.watchers = (display,)
    study.run()
    display.failed(
        study.ledger.trials[1],
        Failed(1, Outcome.CRASHED, "Traceback (most recent call last):\n  ...\nValueError: x"),
    )
    if terminal:
        console.print(display._drawn())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_has_a_line_for_each_rung_and_each_end(tmp_path: Path) -> None:
    lines = shown(tmp_path, terminal=False).splitlines()
    assert lines[0].startswith("trial 0: paused after epoch 3, validation ")
    assert "(ETA " in lines[0]
    assert sum("paused after epoch 3" in line for line in lines) == 4
    assert sum(": finished, validation " in line for line in lines) == 3
    assert lines[-1].startswith("trial 1: crashed and is tried again: ValueError: x")


def test_a_terminal_shows_every_trial_the_best_and_how_far_the_search_is(tmp_path: Path) -> None:
    text = shown(tmp_path, terminal=True)
    assert "study: 4 of 4 trials (1 pruned, 3 finished)" in text
    assert "best " in text and "(trial " in text
    assert "3.3 of 3.0 full trainings" in text
    assert "learning_rate 0.1  momentum 0.9" in text
    # A failure gets a line besides the table; rungs are only in the table.
    assert "crashed and is tried again" in text
    assert "paused after" not in text


def test_a_terminal_shows_the_expected_ends_of_trials_that_are_not_over(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=20, color_system=None)
    study = owner(tmp_path, trials=4, budget=3.0)
    display = StudyDisplay(console, study.ledger, title="trial", trials=4, epochs=EPOCHS, budget=3.0)
    display.expect = lambda: dict.fromkeys(range(4), (0.8125, 0.0123))
    study.watchers = (display,)
    study.run()
    study.ledger.trials[0].state, study.ledger.trials[1].state = "running", "finished"
    console.print(display._table())
    assert isinstance(console.file, io.StringIO)
    rows = console.file.getvalue().splitlines()
    (running,), (finished,) = ([row for row in rows if row.split()[0] == number] for number in "01")
    assert "81.2% ± 1.2" in running and "±" not in finished


def test_a_narrow_terminal_loses_the_end_of_the_values_and_nothing_else(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=62, height=20, color_system=None)
    study = owner(tmp_path, trials=4, budget=3.0)
    study.run()
    display = StudyDisplay(console, study.ledger, title="trial", trials=4, epochs=EPOCHS, budget=3.0)
    console.print(display._table())
    assert isinstance(console.file, io.StringIO)
    header, *rows = console.file.getvalue().splitlines()
    assert header.split() == ["trial", "epoch", "rung", "validation", "state", "values"]
    assert len(rows) == 4
    for row in rows:
        assert len(row.rstrip()) <= 62
        number, epochs, _, accuracy, state, *_ = row.split()
        assert study.ledger.trials[int(number)].status == state
        assert epochs == str(len(study.ledger.trials[int(number)].scores))
        assert accuracy.endswith("%")
    assert any("…" in row for row in rows)


def test_values_are_shown_on_a_line_without_their_section() -> None:
    line = on_a_line({"train.learning_rate": 0.123456, "model.depth": 20, "augment.policy": "none"})
    assert line == "learning_rate 0.123  depth 20  policy none"


def test_values_are_shown_as_yaml_writes_them() -> None:
    values = {"train.clip_norm": None, "train.momentum": 0.123456, "model.width": 8, "augment.flip": "random"}
    assert on_a_line(values) == "clip_norm null  momentum 0.123  width 8  flip random"
    assert study_display.shown(True) == "true"
