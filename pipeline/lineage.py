"""Goes from a figure back to all it hangs on, or from data or a commit to what was made from them.

examples:
  python -m pipeline.lineage                        of metrics.json: source, arrays, split, values, code, weights, ...
  python -m pipeline.lineage "trial 7"              of a trial, or of a run in MLflow by its name or id
  python -m pipeline.lineage --data sha256:04f53fb  what was trained on this data set
  python -m pipeline.lineage --commit 829ce3f       what was trained by this commit

Of metrics.json each link is compared with what is on the disk now, and what no longer holds is named with what to do.
The exit code is then 1.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline.cli import guarded
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.audit.chain import Link
    from pipeline.audit.lineage import Made


def lineage(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for. Raises PipelineErrors, one if a link no longer holds."""
    from pipeline.audit.lineage import made_from, of_files, of_run
    from pipeline.files import Project
    from pipeline.tracking.reading import Runs

    project = Project.here()
    if arguments.data or arguments.commit:
        _show_made(made_from(Runs(project), data=arguments.data, commit=arguments.commit), arguments.json)
        return
    if arguments.run in (None, "metrics.json"):
        links = of_files(project)
    else:
        runs = Runs(project)
        links = of_run(runs.run(arguments.run), runs)
    _show_links(links, arguments.json)
    if broken := [link.name for link in links if link.problem]:
        raise PipelineError(f"{len(broken)} of {len(links)} links no longer hold here: {', '.join(broken)}.")


def _show_links(links: "Sequence[Link]", as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(link) for link in links], indent=2, ensure_ascii=False))
        return
    width = max(len(link.name) for link in links)
    for link in links:
        print(f"{link.name:<{width}}  {link.value}")
        for line in link.more:
            print(f"{'':<{width}}    {line}")
        if link.problem:
            print(f"{'':<{width}}  NO LONGER SO: {link.problem}")


def _show_made(made: "Sequence[Made]", as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(each) | {"run": asdict(each.run)} for each in made], indent=2, default=str))
        return
    if not made:
        raise PipelineError("Nothing in MLflow was made from that.")
    from rich.console import Console
    from rich.table import Table

    table = Table("run", "started", "ended", "validation", "test", "registered as", box=None, pad_edge=False)
    for each in made:
        figures = ("" if value is None else f"{value:.2%}" for value in (each.accuracy, each.test_accuracy))
        started = f"{each.run.started:%Y-%m-%d %H:%M}"
        table.add_row(f"{each.run.name} {each.run.id[:8]}", started, each.run.ended, *figures, ", ".join(each.models))
    Console(width=None if sys.stdout.isatty() else 160, markup=False).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.lineage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("run", nargs="?", metavar="RUN", help="metrics.json, or id, name or key of a run")
    what.add_argument("--data", metavar="DIGEST", help="what was made from the data set of this digest")
    what.add_argument("--commit", metavar="COMMIT", help="what was made by this commit")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    return guarded(lambda: lineage(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
