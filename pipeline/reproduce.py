"""Trains a recorded result again and compares every epoch with what MLflow has of it.

examples:
  python -m pipeline.reproduce                      the training of the last dvc repro
  python -m pipeline.reproduce --trial 7            trial 7 of the study main, pruned or not
  python -m pipeline.reproduce --trial 7 --study night
  python -m pipeline.reproduce "confirm 2"          a training of the confirmation; or a run by its name or id
  python -m pipeline.reproduce RUN --code           with the code of the recorded commit, in a temporary worktree

First it lists what differs between then and here, and what that does: harmless, may change digits, will change results.
Device, precision and number of threads are those on record where they are to be had. On a CPU with the same versions
and threads every epoch is the same to the bit, however often a trial was paused or killed. A GPU adds in another order
each time: there figures are compared within --tolerance.

The exit code is 0 if the epochs are identical or within the tolerance, 1 if not. Nothing is recorded or written.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from pipeline.cli import guarded
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from rich.console import Console

TOLERANCE = 0.02
DEFAULT_STUDY = "main"


class NotReproduced(PipelineError):
    """The figures are others."""


def reproduce(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for. Raises NotReproduced and other PipelineErrors."""
    from rich.console import Console

    from pipeline.audit.reproduction import Request, reproduced
    from pipeline.files import Project

    console = Console(
        file=sys.stderr if arguments.json else sys.stdout,
        width=None if sys.stdout.isatty() else 160,
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    study = arguments.study if arguments.trial is not None else None
    request = Request(arguments.run, study, arguments.trial, arguments.code, arguments.tolerance)
    with redirect_stdout(sys.stderr):  # the progress of the training
        found = reproduced(Project.here(), request, lambda about: _show(about, console))
    if arguments.json:
        print(json.dumps(found, indent=2))
    if found["verdict"] == "different":
        raise NotReproduced(found["sentence"])
    console.print(found["sentence"])


def _show(about: dict[str, Any], console: "Console") -> None:
    from rich.table import Table

    console.print(about["run"])
    if about["differences"]:
        table = Table("differs", "then", "here", "weight", box=None, pad_edge=False)
        for each in about["differences"]:
            table.add_row(each["name"], each["then"][:40], each["now"][:40], each["weight"])
        console.print(table)
    else:
        console.print("Nothing that is on record differs here.")
    for sentence in about["lacking"]:
        console.print(f"Not on record: {sentence}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help="id, name or key of a run; default: the last dvc repro's")
    parser.add_argument("--trial", type=_number, metavar="N", help="a trial of a study, in place of RUN")
    parser.add_argument("--study", default=DEFAULT_STUDY, metavar="NAME", help=f"of --trial, default: {DEFAULT_STUDY}")
    parser.add_argument("--code", action="store_true", help="train with the code of the recorded commit")
    parser.add_argument(
        "--tolerance",
        type=_share,
        default=TOLERANCE,
        metavar="X",
        help="the most that an accuracy (0..1) may differ by, and a loss relative to itself (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON; all else goes to stderr")
    arguments = parser.parse_args(argv)
    if arguments.run and arguments.trial is not None:
        parser.error("name a RUN or a --trial, not both")
    return guarded(lambda: reproduce(arguments))


def _number(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be the number of a trial, got {text}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
