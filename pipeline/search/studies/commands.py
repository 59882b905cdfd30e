"""The commands that messages advise, with the options without which they would not find the same study."""

import shlex
from collections.abc import Sequence

GRID = "grid-"
"""Prefix of the study of a grid, before the grid's name."""


def tune_command(study: str, given: Sequence[str], *options: str) -> str:
    """`python -m pipeline.tune` for a study; `given` are the values of --set that it was started with."""
    name = () if study == "main" else ("--study", study)
    return _command("pipeline.tune", *name, *options, given=given)


def resume_command(study: str, given: Sequence[str]) -> str:
    """The command that resumes a study, which may be that of a grid."""
    if study.startswith(GRID):
        return _command("pipeline.study", study.removeprefix(GRID), given=given)
    return tune_command(study, given, "--resume-only")


def _command(module: str, *words: str, given: Sequence[str]) -> str:
    return shlex.join(["python", "-m", module, *words, *(word for value in given for word in ("--set", value))])
