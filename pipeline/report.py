"""Puts what a training, its evaluation and a search found on one HTML page that opens from disk, without a network.

    python -m pipeline.report                      (or `dvc repro report`)
    python -m pipeline.report --open               opens the page in the browser too
    python -m pipeline.report --compare HEAD~1     beside the result of another commit, image by image
    python -m pipeline.report --compare ../other   beside the result of another project
    python -m pipeline.report --watch              again and again while a search runs; Ctrl-C ends it

The page answers five questions: is the model good, where does it fail, did training go well, what did the search learn,
can it be trusted and repeated. It is made from result files alone: the test set is not read, and of params.yaml only
report.language. The page and its pictures as PNG files go to results/report and into the run in MLflow;
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
    """Writes the page and its pictures and adds them to the run in MLflow. Raises PipelineError for damaged results."""
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
    print(f"writing {project.watch_page.relative_to(project.root)} every {WATCH_S} s; Ctrl-C ends it")
    try:
        while True:
            _write_watched(project, refresh_s=WATCH_S)
            if is_opened:
                _open(project.watch_page)
                is_opened = False
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        # A page that goes on loading itself would jump under the reader.
        _write_watched(project, refresh_s=None)
        raise


def _write_watched(project: Project, refresh_s: int | None) -> None:
    """Before a first `dvc repro`, and while one makes its results anew, the page shows the search alone."""
    from pipeline.reporting import page, results

    other = page.beside(project, tracking.run_pages(project), refresh_s=refresh_s)
    try:
        found: Results | str = results.read(project)
    except PipelineError as error:
        reason = str(error).replace(f"{project.root}/", "")
        found = other.language(
            "Only the search is shown, as there is no result of a training beside it. {reason}", reason=reason
        )
    page.write_alone(project.watch_page, found, other)


def _compared(project: Project, found: "Results", other: str) -> "Comparison":
    """This result beside that of a folder, if there is one of that name, or of a revision."""
    import tempfile

    from pipeline.reporting import before, comparison, results

    if found.predictions is None:
        raise PipelineError(f"{project.predictions} is missing: run `dvc repro` or `dvc pull`.")
    is_folder = (Path(other) / "results").is_dir()
    if not is_folder and not before.is_revision(project, other):
        raise PipelineError(f"--compare must name a commit or the folder of a project with results, got {other}.")
    with tempfile.TemporaryDirectory() as folder:
        then = Project(Path(other), Path(other)) if is_folder else Project(Path(folder), Path(folder))
        if not is_folder:
            for path in (then.predictions, then.run, then.mistakes):
                name = path.relative_to(then.root).as_posix()
                if (content := before.file_at(project, other, name)) is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            if not then.predictions.exists():
                raise PipelineError(
                    f"Neither git nor DVC's cache has {then.predictions.relative_to(then.root)} of {other}: `dvc fetch "
                    f"--all-commits` brings what was pushed, or `git worktree add ../other {other}`, `dvc repro` there "
                    "and `--compare ../other`."
                )
        predictions = results.read_predictions(then.predictions, found.classes)
        values = comparison.values_of(then.run.read_bytes() if then.run.is_file() else None)
        mistakes = results.read_mistakes(then.mistakes, found.classes) if then.mistakes.is_file() else None
    changed = comparison.changes(values, found.run.values)
    compared = comparison.compare(other, predictions, found.predictions, found.classes, changed)
    return comparison.with_images(compared, mistakes, found.mistakes)


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
