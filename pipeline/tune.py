"""Searches the space that params.yaml declares; can be stopped, killed and started again at will.

examples:
  python -m pipeline.tune                          what params.yaml says: its space, its number of trials
  python -m pipeline.tune --trials 50              50 trials in all; the same command goes on after a stop or a kill
  python -m pipeline.tune --trials 80              30 more, after 50
  python -m pipeline.tune --hours 8 --study night  stops in order after 8 hours; another study beside the first
  python -m pipeline.tune --set train.epochs=9 --set tune.scheduler=asha --study quick
  python -m pipeline.tune --apply                  writes the winner into params.yaml, as soon as there is one
  python -m pipeline.tune --list                   the studies that are there

Ctrl-C stops after the running epochs, a second one at once. results/tune has what was found, `mlflow ui` every trial.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.command import guarded

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_STUDY = "main"


def tune(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for. Raises PipelineErrors; KeyboardInterrupt when stopped."""
    from rich.console import Console

    # With --json standard output is for machines alone.
    console = Console(stderr=arguments.json, width=None if sys.stdout.isatty() else 160)
    if arguments.list:
        _list(arguments, console)
    elif arguments.delete:
        _delete(arguments, console)
    else:
        _search(arguments, console)


def _search(arguments: argparse.Namespace, console: "Console") -> None:
    from pipeline import config
    from pipeline.files import Project
    from pipeline.search.session import Session, Wish

    project = Project.here()
    settings = config.load(project.params, _overrides(arguments))
    wish = Wish(arguments.study, arguments.hours, arguments.resume_only, arguments.apply)
    study = Session(project, settings, wish, console).run()
    if arguments.json:
        _print_json(study)


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """What stands in place of values of params.yaml, by dotted name. Raises ConfigError."""
    from pipeline import config
    from pipeline.errors import ConfigError

    found = {}
    for setting in arguments.set:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE, such as train.epochs=9, got {setting}")
        found[name.strip()] = config.parse_value(text, f"--set {name}")
    for option in ("trials", "workers", "workers_per_gpu"):
        value = getattr(arguments, option)
        if value is not None:
            found[f"tune.{option}"] = None if value == "auto" else value
    return found


def _list(arguments: argparse.Namespace, console: "Console") -> None:
    from pipeline.files import Project
    from pipeline.search import studies

    found = studies.all_of(Project.here())
    if arguments.json:
        _print_json(found)
    elif not found:
        console.print("There is no study yet: `python -m pipeline.tune` begins one.")
    else:
        console.print(studies.table(found))


def _delete(arguments: argparse.Namespace, console: "Console") -> None:
    from pipeline.errors import PipelineError
    from pipeline.files import Project
    from pipeline.search import studies

    project = Project.here()
    study = studies.one_of(project, arguments.study)
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise PipelineError("--delete asks before it deletes, and there is no terminal to ask on: add --yes.")
        console.print(studies.table([study]))
        if input(f"Delete the study {arguments.study} with its checkpoints? [y/N] ").strip().lower() != "y":
            console.print("Nothing was deleted.")
            return
    studies.delete(project, arguments.study)
    console.print(f"The study {arguments.study} is deleted. MLflow keeps its runs, results/tune what it wrote there.")


def _print_json(content: Any) -> None:
    import json

    print(json.dumps(content, indent=2))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=_count, metavar="N", help="configurations of the study in all")
    parser.add_argument("--study", default=DEFAULT_STUDY, type=_name, metavar="NAME", help=f"default: {DEFAULT_STUDY}")
    parser.add_argument("--hours", type=_hours, metavar="H", help="stop in order after so long, and keep what runs")
    parser.add_argument("--workers", type=_workers, metavar="N|auto", help="trials that train at a time")
    parser.add_argument("--workers-per-gpu", type=_count, metavar="K", help="trials that share a GPU")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a value in place of the one in params.yaml"
    )
    parser.add_argument("--apply", action="store_true", help="write the winner's values into params.yaml")
    parser.add_argument("--resume-only", action="store_true", help="go on with a study, never begin one")
    parser.add_argument("--list", action="store_true", help="show the studies that are there, and stop")
    parser.add_argument("--delete", action="store_true", help="delete the study that --study names")
    parser.add_argument("--yes", action="store_true", help="don't ask before deleting")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON; all else goes to stderr")
    arguments = parser.parse_args(argv)
    return guarded(lambda: tune(arguments))


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def _workers(text: str) -> int | str:
    return text if text == "auto" else _count(text)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number over 0, got {text}")
    return hours


def _name(text: str) -> str:
    if not text.replace("-", "").replace("_", "").isalnum() or not text.isascii() or len(text) > 60:
        raise argparse.ArgumentTypeError(f"must be up to 60 letters, digits, - and _, got {text}")
    return text


if __name__ == "__main__":
    raise SystemExit(main())
