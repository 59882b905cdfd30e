"""Puts what a training, its evaluation and a search found on one HTML page that opens from disk, without a network.

    python -m pipeline.report                      (or `dvc repro report`)
    python -m pipeline.report --open               opens the page in the browser too
    python -m pipeline.report --compare HEAD~1     beside the result of another commit, image by image
    python -m pipeline.report --compare ../other   beside the result of another project
    python -m pipeline.report --watch              again and again while a search runs; Ctrl-C ends it

The page answers five questions: is the model good, where does it fail, did training go well, what did the search learn,
can it be trusted and repeated. It is made from result files alone: the test set is not read, and of params.yaml only
report.language. The page, learning_curves.png and confusion_matrix.png go to results/report and into the run in MLflow;
the page of --compare is results/compare/index.html, that of --watch results/watch/index.html.
"""

import argparse
import sys
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import cli, tracking
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.outcome import Outcome

if TYPE_CHECKING:
    from pipeline.reporting.comparison import Comparison
    from pipeline.reporting.results import Results

WATCH_S = 10
"""Between two pages while a search runs."""


def report(project: Project) -> None:
    """Writes the page and its figures and adds them to the run in MLflow. Raises PipelineError for damaged results."""
    from pipeline.reporting import page, results

    found = results.read(project)
    index, *figures = page.write(project, found, page.beside(project, tracking.run_pages(project)))
    with tracking.StageTracker(project) as tracker:
        run = tracker.open(found.run.key, name=found.run.name)
        run.log_file(index, folder="report")
        for figure in figures:
            run.log_file(figure, folder="plots")
        run.finish(Outcome.FINISHED)
    if found.source_change:
        print(f"warning: {found.source_change}", file=sys.stderr)
    print(f"wrote {index.relative_to(project.root)}: open it in a browser")


def compare(project: Project, other: str) -> None:
    """Writes a page with this result beside that of a revision or of a folder. Raises PipelineErrors."""
    from pipeline.reporting import page, results

    found = results.read(project)
    comparison = _compared(project, found, other)
    beside = page.beside(project, tracking.run_pages(project), comparison=comparison)
    page.write_alone(project.comparison_page, found, beside)
    print(comparison.verdict())
    print(f"wrote {project.comparison_page.relative_to(project.root)}: open it in a browser")


def watch(project: Project, *, is_opened: bool = False) -> None:
    """Writes a page that loads itself again, every few seconds, until Ctrl-C. Raises KeyboardInterrupt then."""
    from pipeline.reporting import page, results

    print(f"writing {project.watch_page.relative_to(project.root)} every {WATCH_S} s; Ctrl-C ends it")
    refresh_s: int | None = WATCH_S
    try:
        while True:
            other = page.beside(project, tracking.run_pages(project), refresh_s=refresh_s)
            page.write_alone(project.watch_page, results.read(project), other)
            if is_opened:
                _open(project.watch_page)
                is_opened = False
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        # A page that goes on loading itself would jump under the reader.
        page.write_alone(project.watch_page, results.read(project), page.beside(project, tracking.run_pages(project)))
        raise


def _compared(project: Project, found: "Results", other: str) -> "Comparison":
    """This result beside that of a folder, if there is one of that name, or of a revision."""
    import tempfile

    from pipeline.reporting import before, comparison, results

    if found.predictions is None:
        raise PipelineError(f"{project.predictions} is missing: run `dvc repro` or `dvc pull`.")
    predictions, run = (path.relative_to(project.root) for path in (project.predictions, project.run))
    if (Path(other) / "results").is_dir():
        then = results.read_predictions(Path(other) / predictions, found.classes)
        kept = Path(other) / run
        values = comparison.values_of(kept.read_bytes() if kept.is_file() else None)
    elif before.is_revision(project, other):
        content = before.file_at(project, other, predictions.as_posix())
        if content is None:
            raise PipelineError(
                f"Neither git nor DVC's cache has {predictions} of {other}: `dvc fetch --all-commits` brings what was "
                f"pushed, or `git worktree add ../other {other}`, `dvc repro` there and `--compare ../other`."
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "predictions.csv"
            path.write_bytes(content)
            then = results.read_predictions(path, found.classes)
        values = comparison.values_of(before.file_at(project, other, run.as_posix()))
    else:
        raise PipelineError(f"--compare must name a commit or the folder of a project with results, got {other}.")
    changed = comparison.changes(values, found.run.values)
    return comparison.compare(other, then, found.predictions, found.classes, changed)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parsed(argv)

    def work() -> None:
        project = Project.here()
        if arguments.watch:
            watch(project, is_opened=arguments.open)
            return
        if arguments.compare:
            compare(project, arguments.compare)
        else:
            report(project)
        if arguments.open:
            _open(project.comparison_page if arguments.compare else project.page)

    return cli.guarded(work)


def _open(page: Path) -> None:
    if not webbrowser.open(page.as_uri()):
        print(f"There is no browser to open {page} in.", file=sys.stderr)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--compare", metavar="REV", help="a commit, or the folder of another project")
    how.add_argument("--watch", action="store_true", help=f"write the page every {WATCH_S} s while a search runs")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
