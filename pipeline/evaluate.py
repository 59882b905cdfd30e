"""Scores the model on the test set, which nothing else reads, and writes what `dvc metrics diff` compares.

    python -m pipeline.evaluate     (or `dvc repro evaluate`)

Reads data/test and the model; writes metrics.json (train's last epoch and the test figures) and, below
results/evaluate, predictions.csv, probabilities.npy, confusion_matrix.csv, per_class.csv, mistakes.npz, suspects.npz
(labels that are probably wrong) and appearance.csv (brightness, contrast and sharpness of the images). Always in fp32,
the precision of the model that MLflow keeps. With evaluate.tta flip the figures of test-time augmentation are added as
evaluate.tta_flip; all others are without it. The MLflow run that train opened gets the figures too.
"""

from collections.abc import Sequence

from pipeline import cli, config, records, tracking
from pipeline.files import Project
from pipeline.outcome import Outcome


def evaluate(project: Project) -> None:
    """Raises ConfigError, DataError; PipelineError where the model is missing or is not that of params.yaml."""
    settings = config.load(project.params)
    record = records.read(records.RunRecord, project.run, stage="train")
    from pipeline.evaluation.scoring import score_model

    scored = score_model(project, settings, record)
    figures = scored.metrics.evaluate
    with tracking.StageTracker(project) as tracker:
        run = tracker.open(record.key, name=record.name)
        # As tags: a model can be evaluated again with other values, and MLflow's params are for good.
        run.set_tags({key: value for key, value in settings.values().items() if config.decides_scoring(key)})
        run.log_metrics(records.flat(figures, "evaluate"), step=settings.train.epochs)
        run.log_table(scored.per_class, "per_class.json")
        run.log_file(project.confusion_matrix)
        run.log_file(project.predictions)
        run.finish(Outcome.FINISHED)
    print(
        f"test accuracy {figures.accuracy:.2%} (95 % interval {figures.accuracy_low:.2%} to "
        f"{figures.accuracy_high:.2%}), macro F1 {figures.macro_f1:.4f}, NLL {figures.nll:.4f}, "
        f"ECE {figures.ece:.4f}, {figures.images_per_second:,.0f} images/s"
    )
    if (before := figures.uncalibrated) and record.temperature != 1:
        print(
            f"before calibration by the validation part (temperature {record.temperature:.3f}): NLL {before.nll:.4f}, "
            f"ECE {before.ece:.4f}"
        )
    if flip := figures.tta_flip:
        print(f"tta_flip: test accuracy {flip.accuracy:.2%}, NLL {flip.nll:.4f}, ECE {flip.ece:.4f}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_stage(evaluate, __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
