import io
import signal
from pathlib import Path

import pytest
from rich.console import Console
from searches import owner

from pipeline.search.studies.display import StudyDisplay
from pipeline.search.studies.signals import stopping


def test_ctrl_c_stops_in_order_then_at_once_and_then_whatever_happens(tmp_path: Path) -> None:
    study = owner(tmp_path)
    display = StudyDisplay(Console(file=io.StringIO()), study.ledger, title="trial", trials=1, epochs=9, budget=1.0)
    before = signal.getsignal(signal.SIGINT)
    with stopping(study, display):
        signal.raise_signal(signal.SIGINT)
        assert (study.stopping, study.halting) == (True, False)
        assert "Ctrl-C again stops at once" in display.note
        signal.raise_signal(signal.SIGINT)
        assert study.halting
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_does_not_wait_for_an_epoch(tmp_path: Path) -> None:
    study, console = owner(tmp_path), Console(file=io.StringIO())
    with stopping(study, StudyDisplay(console, study.ledger, title="", trials=1, epochs=9, budget=1.0)):
        signal.raise_signal(signal.SIGTERM)
    assert study.halting
