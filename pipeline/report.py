"""Puts what a training and its evaluation found on one HTML page that opens from disk, without a network.

    python -m pipeline.report       (or `dvc repro report`)

The page has the result with its interval, learning curves, the confusion matrix, the most certain mistakes as images,
grids (`python -m pipeline.study`) if there are any, and how all of it was made. It is made from result files alone:
neither params.yaml nor the test set is read. The page, learning_curves.png and confusion_matrix.png go to
results/report and into the run in MLflow.
"""

import sys
from collections.abc import Sequence

from pipeline import cli, tracking
from pipeline.files import Project
from pipeline.outcome import Outcome


def report(project: Project) -> None:
    """Writes the page and its figures and adds them to the run in MLflow. Raises PipelineError for damaged results."""
    from pipeline.reporting import page, results

    found = results.read(project)
    index, *figures = page.write(project, found)
    with tracking.StageTracker(project) as tracker:
        run = tracker.open(found.run.key, name=found.run.name)
        run.log_file(index, folder="report")
        for figure in figures:
            run.log_file(figure, folder="plots")
        run.finish(Outcome.FINISHED)
    if found.source_change:
        print(f"warning: {found.source_change}", file=sys.stderr)
    print(f"wrote {index.relative_to(project.root)}: open it in a browser")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_stage(report, __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
