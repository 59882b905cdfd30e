"""Where the tests find the repository."""

from pathlib import Path

REPOSITORY = Path(__file__).parent.parent

QUICK_STUDY = ("--set", "train.epochs=3", "--set", "tune.confirm=2", "--set", "tune.confirm_seeds=2")
"""Options of a search of seconds, on the digits."""
