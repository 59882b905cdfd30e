"""What stages recorded, sent to MLflow: in tests no process in the background does it."""

from pathlib import Path

from pipeline.files import Project
from pipeline.tracking import __main__ as tracking


def deliver(root: Path) -> None:
    """Sends all records of the project in `root`; waits for the process in the background, if one was started."""
    tracking.send(Project(root, root))
