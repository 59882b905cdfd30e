import math
from pathlib import Path

from searches import owner

from pipeline.search.studies.deadline import Deadline


def test_the_owner_stops_in_order_once_the_deadline_has_passed(tmp_path: Path) -> None:
    for at_s, has_passed in ((math.inf, False), (0.0, True)):
        study = owner(tmp_path, trials=3, budget=3.0)
        study.watchers = (Deadline(at_s, study),)
        assert study.run() is not has_passed
        assert (study.stopping, study.halting) == (has_passed, False)


def test_without_hours_the_deadline_never_passes() -> None:
    assert Deadline.after(None).at_s == math.inf
    assert Deadline.after(1e-12).has_passed
    assert not Deadline.after(1.0).has_passed
