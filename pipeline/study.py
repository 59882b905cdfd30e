"""Trains all combinations of a study that params.yaml declares; can be stopped, killed and started again at will.

examples:
  python -m pipeline.study depth                   plain networks and ResNets at several depths: the degradation problem
  python -m pipeline.study depth --set train.epochs=5     the same command resumes it after a stop or a kill
  python -m pipeline.study --list                  the studies of params.yaml, and the state of each

A study is a section of params.yaml: study.NAME.space has the keys that it varies, study.NAME.values overrides other
values of the file. results/study/NAME gets a table with the test error of each trial, the learning curves, and a figure
if depth or family varies; `mlflow ui` has every trial. Nothing is chosen: for that there is `python -m pipeline.tune`,
which never looks at the test set.
"""

import argparse
from collections.abc import Sequence

from pipeline.cli import guarded
from pipeline.search.studies import options


def study(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for. Raises PipelineErrors; KeyboardInterrupt when stopped."""
    from pipeline.datasets.fingerprint import warn_of_change
    from pipeline.files import Project
    from pipeline.records import load_meta
    from pipeline.search.studies import grid
    from pipeline.search.studies.grid_results import GridResults
    from pipeline.search.studies.session import Session, TuneOptions

    console, project, given = options.console(arguments), Project.here(), options.overrides(arguments)
    spec = grid.GridSpec.of(project, arguments.name, given)
    ending = GridResults(project, spec, console, grid.measure)
    wanted = TuneOptions(spec.study, given=tuple(arguments.set))
    session = Session(project, spec.settings, wanted, console, ending)
    warn_of_change(project, load_meta(project.meta))
    results = session.run()
    if arguments.json:
        options.print_json(results)


def list_studies(arguments: argparse.Namespace) -> None:
    """Prints the studies that params.yaml declares."""
    from rich.table import Table

    from pipeline.files import Project
    from pipeline.search.studies import grid

    found = grid.all_of(Project.here(), options.overrides(arguments))
    console = options.console(arguments)
    if arguments.json:
        options.print_json(found)
    elif not found:
        console.print("params.yaml declares no study: its section study is empty.")
    else:
        table = Table("study", "varies", "combinations", "states", box=None, pad_edge=False)
        for one in found:
            states = ", ".join(f"{count} {state}" for state, count in one["states"].items())
            table.add_row(one["study"], ", ".join(one["varies"]), str(one["combinations"]), states or "not begun")
        console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", type=options.name, metavar="NAME", help="of a study of params.yaml")
    options.add_to(parser)
    arguments = parser.parse_args(argv)
    if not arguments.name and not arguments.list:
        parser.error("name a study; --list shows those of params.yaml")
    return guarded(lambda: list_studies(arguments) if arguments.list else study(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
