"""Searches the space that params.yaml declares; can be stopped, killed and started again at will.

examples:
  python -m pipeline.tune                          what params.yaml says: its space, its number of trials
  python -m pipeline.tune --trials 50              50 trials in all; the same command resumes after a stop or a kill
  python -m pipeline.tune --trials 80              30 more, after 50
  python -m pipeline.tune --hours 8 --study night  stops in order after 8 hours; another study beside the first
  python -m pipeline.tune --set train.epochs=9 --set tune.scheduler=asha --study quick
  python -m pipeline.tune --apply                  writes the winner into params.yaml, as soon as there is one
  python -m pipeline.tune --explain                what its model expects, what it has not tried, if more is worth it
  python -m pipeline.tune --list                   the studies that are there

Ctrl-C stops after the running epochs, a second one at once. results/tune has what was found, `mlflow ui` every trial.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.cli import guarded
from pipeline.search.studies import options

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_STUDY = "main"


def tune(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for. Raises PipelineErrors; KeyboardInterrupt when stopped."""
    console = options.console(arguments)
    if arguments.list:
        _list(arguments, console)
    elif arguments.delete:
        _delete(arguments, console)
    elif arguments.explain:
        _explain(arguments, console)
    else:
        _search(arguments, console)


def _search(arguments: argparse.Namespace, console: "Console") -> None:
    from pipeline import config
    from pipeline.datasets.fingerprint import warn_of_change
    from pipeline.files import Project
    from pipeline.records import load_meta
    from pipeline.search.studies.session import Session, TuneOptions

    project = Project.here()
    settings = config.load(project.params, options.overrides(arguments))
    wanted = TuneOptions(
        arguments.study,
        hours=arguments.hours,
        resume_only=arguments.resume_only,
        apply=arguments.apply,
        given=tuple(arguments.set),
    )
    session = Session(project, settings, wanted, console)
    warn_of_change(project, load_meta(project.meta))
    results = session.run()
    if arguments.json:
        options.print_json(results)


def _explain(arguments: argparse.Namespace, console: "Console") -> None:
    from dataclasses import asdict

    from pipeline import config
    from pipeline.files import Project
    from pipeline.search.studies import explanation

    project = Project.here()
    settings = config.load(project.params, options.overrides(arguments))
    found, ledger = explanation.of_study(project, arguments.study, settings)
    if arguments.json:
        options.print_json(asdict(found) if found else None)
    else:
        explanation.show(found, ledger, console)


def _list(arguments: argparse.Namespace, console: "Console") -> None:
    from pipeline.files import Project
    from pipeline.search.studies import catalog

    found = catalog.all_of(Project.here())
    if arguments.json:
        options.print_json(found)
    elif not found:
        console.print("There is no study yet: `python -m pipeline.tune` begins one.")
    else:
        console.print(catalog.table(found))


def _delete(arguments: argparse.Namespace, console: "Console") -> None:
    from pipeline.errors import PipelineError
    from pipeline.files import Project
    from pipeline.search.studies import catalog

    project = Project.here()
    study = catalog.one_of(project, arguments.study)
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise PipelineError("--delete asks before it deletes, and there is no terminal to ask on: add --yes.")
        console.print(catalog.table([study]))
        if input(f"Delete the study {arguments.study} with its checkpoints? [y/N] ").strip().lower() != "y":
            console.print("Nothing was deleted.")
            return
    catalog.delete(project, arguments.study)
    console.print(f"The study {arguments.study} is deleted. MLflow keeps its runs, results/tune what it wrote there.")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parsed(argv)
    return guarded(lambda: tune(arguments))


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=options.count, metavar="N", help="configurations of the study in all")
    parser.add_argument(
        "--study", default=DEFAULT_STUDY, type=options.name, metavar="NAME", help=f"default: {DEFAULT_STUDY}"
    )
    parser.add_argument("--hours", type=_hours, metavar="H", help="stop in order after so many hours, and keep all")
    parser.add_argument("--apply", action="store_true", help="write the winner's values into params.yaml")
    parser.add_argument("--resume-only", action="store_true", help="resume a study, never begin one")
    parser.add_argument("--explain", action="store_true", help="what the model thinks of the study, and stop")
    parser.add_argument("--delete", action="store_true", help="delete the study that --study names")
    parser.add_argument("--yes", action="store_true", help="don't ask before deleting")
    options.add_to(parser)
    return parser.parse_args(argv)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number over 0, got {text}")
    return hours


if __name__ == "__main__":
    raise SystemExit(main())
