"""Trains the values of params.yaml on the training part, validates after each epoch, writes the model.

    python -m pipeline.train        (or `dvc repro train`)

It can be killed at any moment: the next start resumes after the last epoch and, on a CPU, ends with the same numbers to
the bit. It reads data/train and data/meta.json and writes results/train: model.safetensors, history.csv (a row per
epoch) and run.json (from what and where the model was made). It records the run in MLflow. With train.folds the figures
are means over the folds, run.json has those of each fold, and the model is that of the first fold.
"""

import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import cli, config, provenance, records, tracking
from pipeline.config import Config
from pipeline.errors import Diverged, OutOfMemory
from pipeline.files import Project, sha256, write_csv
from pipeline.outcome import Outcome
from pipeline.records import DeviceRecord, Epoch, Meta, Provenance, RunRecord, TrainingData

if TYPE_CHECKING:
    from pipeline.training.cross_validation import Training
    from pipeline.training.resume import Start


def train(project: Project) -> None:
    """Raises ConfigError, DataError, DownloadError, Diverged, OutOfMemory; KeyboardInterrupt when stopped."""
    settings = config.load(project.params)
    from pipeline import networks
    from pipeline.batches.images import load_images
    from pipeline.datasets.fingerprint import warn_of_change
    from pipeline.machine import Machine
    from pipeline.training.cross_validation import Training
    from pipeline.training.device import Device
    from pipeline.training.failures import memory_errors
    from pipeline.training.progress import TrainingDisplay
    from pipeline.training.resume import Start

    meta = records.load_meta(project.meta)
    warn_of_change(project, meta)
    _warn_of_unlisted_code(project, settings)
    device = Device.choose(settings.train.device, settings.train.precision, settings.train.threads, Machine.probe())
    with memory_errors(device, settings.train.batch_size):
        device.prepare()
    images = load_images(project.training_data, meta)
    start = Start.of(project, settings, meta)
    training = Training.of(settings, meta, images, device, start.folder)
    history, counts = training.done, training.counts
    name = f"{settings.model.label} on {meta.name}"
    print(
        f"{name}: {networks.parameters(training.network):,} parameters; {counts['training']:,} images to train on, "
        f"{counts['validation']:,} to validate on"
        + (f", in the first of {settings.train.folds} folds" if settings.train.folds else "")
        + f"; {device.name}, {device.threads} thread{'s' if device.threads > 1 else ''}, {device.precision}"
    )
    if history:
        print(f"resuming after epoch {len(history)} of {settings.train.epochs}")
    made_from = provenance.collect(project)
    if made_from.dvc_experiment:
        name = f"{made_from.dvc_experiment}: {name}"
    with tracking.StageTracker(project) as tracker:
        run = tracker.open(start.key, name=name)
        _describe(run, settings, meta, made_from, device.described(), counts)
        # A killed process may have saved epochs that it did not record. MLflow takes each once.
        _record(run, training, history)
        with (
            _outcome_recorded(run, start, training),
            TrainingDisplay(
                settings.train.epochs,
                training.images_per_epoch,
                done=len(history),
                before_s=history[-1].elapsed_s if history else 0.0,
            ) as display,
        ):
            with closing(training.fit(display.counting)) as fit:
                for epoch in fit:
                    history.append(epoch)
                    display.show(epoch)
                    _record(run, training, [epoch])
            temperature = training.calibrate(*training.infer())
            networks.save(training.network, project.model)
            _write_history(project.history, history)
            elapsed_s = history[-1].elapsed_s
            record = RunRecord(
                key=start.key,
                name=name,
                started=start.started,
                elapsed_s=elapsed_s,
                seconds_per_epoch=elapsed_s / len(history),
                peak_memory_bytes=device.peak_memory_bytes(),
                folds=training.folds,
                temperature=temperature,
                macs=networks.macs(training.network, meta),
                code=config.code_digests(settings),
                code_sha256=provenance.code_digest("train"),
                model_sha256=sha256(project.model),
                device=device.described(),
                platform=made_from.platform,
                provenance=made_from,
                data=TrainingData(**vars(meta), training=counts["training"], validation=counts["validation"]),
                values=_values(settings, meta),
            )
            records.write(record, project.run)
            run.log_metrics({"train.temperature": temperature})
            run.set_tags({"model.sha256": sha256(project.model)})
            run.log_file(project.history)
            run.log_weights(project.model, project.meta, settings.model, images.pixels[:2].transpose(0, 3, 1, 2))
        run.finish(Outcome.FINISHED)
    start.forget()
    if len(history) < settings.train.epochs:
        print(f"ended after epoch {len(history)} of {settings.train.epochs} by train.early_stopping")
    if folds := training.folds:
        print(f"{folds.count} folds: validation accuracy {folds.mean:.2%} ± {folds.sd:.2%} (sd)")
    print(f"wrote {project.model.relative_to(project.root)} after {elapsed_s:,.0f} s of training")


def _warn_of_unlisted_code(project: Project, settings: Config) -> None:
    if unlisted := provenance.unlisted(project, [file for file, _ in config.code_places(settings)]):
        print(
            f"warning: the stage train in dvc.yaml does not depend on {', '.join(unlisted)}, so `dvc repro` does not "
            f"see when that changes: write `- {unlisted[0]}` under its deps.",
            file=sys.stderr,
        )


def _values(settings: Config, meta: Meta) -> dict[str, config.Scalar]:
    """All values, with the address of the data as meta.json has it, which is without a password."""
    return settings.values() | ({"data.url": meta.source} if settings.data.url else {})


def _describe(
    run: tracking.Run,
    settings: Config,
    meta: Meta,
    made_from: Provenance,
    device: DeviceRecord,
    counts: dict[str, int],
) -> None:
    """Records the values, tags and data set of a run, before its first epoch."""
    values = _values(settings, meta)
    with run.batch():
        run.log_params({key: value for key, value in values.items() if not config.decides_scoring(key)})
        run.set_tags(
            provenance.tags(made_from)
            | {f"device.{key}": str(value) for key, value in asdict(device).items()}
            | {"seed": str(settings.train.seed)}
            | config.content_tags(settings)
            | meta.tags()
        )
        run.log_dataset(meta, counts, context="training")
    for file, place in config.code_places(settings):
        run.log_file(file, place)


def _record(run: tracking.Run, training: "Training", epochs: Sequence[Epoch]) -> None:
    for epoch in epochs:
        figures = {f"train.{key}": value for key, value in asdict(epoch).items() if key != "number"}
        if len(training.parts) > 1:
            figures["train.folds.sd"] = statistics.stdev(training.accuracies(epoch.number))
        run.log_metrics(figures, step=epoch.number)


@contextmanager
def _outcome_recorded(run: tracking.Run, start: "Start", training: "Training") -> Iterator[None]:
    """A context that ends the run in MLflow with the outcome of a training that does not finish."""
    try:
        yield
    except KeyboardInterrupt:
        run.finish(Outcome.INTERRUPTED)
        raise KeyboardInterrupt(
            f"{training.kept} of {training.config.epochs} epochs are kept, `dvc repro` resumes there"
        ) from None
    except Diverged as error:
        run.set_tags({"ended.why": str(error)})
        run.finish(Outcome.DIVERGED)
        start.forget()  # the checkpoints, from which it would diverge again
        raise
    except OutOfMemory as error:
        run.set_tags({"ended.why": str(error)})
        run.finish(Outcome.OUT_OF_MEMORY)
        raise
    except BaseException:
        run.finish(Outcome.CRASHED)
        raise


def _write_history(path: Path, history: Sequence[Epoch]) -> None:
    columns = [field.name for field in fields(Epoch)]
    rows = [[getattr(epoch, column) for column in columns] for epoch in history]
    write_csv(path, ["epoch", *columns[1:]], rows)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_stage(train, __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
