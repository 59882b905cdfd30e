"""Where the tests find the repository, and its example."""

import shutil
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent

QUICK_STUDY = ("--set", "train.epochs=3", "--set", "tune.confirm=2", "--set", "tune.confirm_seeds=2")
"""Options of a search of seconds, on the digits."""


def copy_example(root: Path) -> None:
    """examples/digits without what a run in place may have left there."""
    for name in ("params.yaml", "dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / "examples" / "digits" / name, target)
