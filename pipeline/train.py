"""Trains the values of params.yaml on the training part, validates after each epoch, writes the model.

    python -m pipeline.train        (or `dvc repro train`)

Kill it at any moment: the next start goes on from the last epoch and, on a CPU, ends with the same numbers to the bit.
Reads data/train and data/meta.json; writes results/train: model.safetensors, history.csv (a row an epoch) and run.json
(where and from what the model was made). MLflow's run is opened here. With train.folds the figures are means of as many
networks, run.json has those of each, and the model is the first one's, which was trained on all but one part.
"""

import csv
import hashlib
import json
import shutil
import statistics
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli, config, provenance, tracking
from pipeline.config import Config, Model
from pipeline.errors import Diverged, OutOfMemory
from pipeline.files import Project, atomic_write

if TYPE_CHECKING:
    from pipeline.epoch import Epoch
    from pipeline.meta import Meta
    from pipeline.training.cross_validation import Training


def train(project: Project) -> None:
    """Raises ConfigError, DataError, Diverged, OutOfMemory; KeyboardInterrupt, with what is kept, when stopped."""
    settings = config.load(project.params)
    from pipeline import networks
    from pipeline.batches import data
    from pipeline.machine import Machine
    from pipeline.meta import load_meta
    from pipeline.training.cross_validation import Training
    from pipeline.training.device import Device
    from pipeline.training.progress import TrainingDisplay

    meta = load_meta(project.meta)
    device = Device.choose(settings.train.device, settings.train.precision, settings.train.threads, Machine.probe())
    device.prepare()
    images = data.load_images(project.training_data, meta)
    start = _Start.of(project.checkpoints / f"train-{_fingerprint(settings, meta)}")
    training = Training.of(settings, meta, images, device, start.folder)
    history = training.done
    counts = training.counts
    name = f"{_called(settings.model)} on {meta.name}"
    print(
        f"{name}: {networks.parameters(training.network):,} parameters; {counts['training']:,} images to train on, "
        f"{counts['validation']:,} to validate on"
        + (f", in the first of {settings.train.folds} folds" if settings.train.folds else "")
        + f"; {device.name}, {device.threads} threads, {device.precision}"
    )
    # The address as the data set tells it: without a password.
    values = settings.values() | ({"data.url": meta.source} if settings.data.url else {})
    if history:
        print(f"going on after epoch {len(history)} of {settings.train.epochs}")

    with tracking.Tracker(project) as tracker:
        run = tracker.open(start.key, name=name)
        # Ends the runs of trainings that were killed and did not go on, among other things.
        tracker.send_leftovers()
        made_from = provenance.collect(project)
        run.log_params({key: value for key, value in values.items() if not key.startswith("evaluate.")})
        run.set_tags(
            provenance.tags(made_from)
            | {f"device.{key}": str(value) for key, value in device.described().items()}
            | {"seed": str(settings.train.seed), "data.digest": meta.digest}
        )
        run.log_dataset(
            name=meta.name,
            digest=meta.digest,
            source=meta.source,
            counts=counts,
            shape=meta.shape,
            classes=len(meta.classes),
            context="training",
        )
        # Written before the process was killed, but perhaps not recorded any more.
        _record(run, training, history)
        with (
            _ending_recorded(run, start, history, settings.train.epochs),
            TrainingDisplay(settings.train.epochs, training.images_per_epoch, done=len(history)) as display,
        ):
            for epoch in training.fit(display.watched):
                history.append(epoch)
                display.show(epoch)
                _record(run, training, [epoch])
            networks.save(training.network, project.model)
            _write_history(project.history, history)
            record = {
                "key": start.key,
                "name": name,
                "started": start.started,
                "elapsed_s": history[-1].elapsed_s,
                "seconds_per_epoch": history[-1].elapsed_s / len(history),
                "peak_memory_bytes": device.peak_memory_bytes(),
                "folds": _folds(training),
                "device": device.described(),
                "platform": made_from.platform,
                "provenance": asdict(made_from),
                "data": asdict(meta) | counts,
                "values": values,
            }
            with atomic_write(project.run) as aside:
                aside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            run.log_file(project.history)
            run.log_model(training.network, images.pixels[:2].transpose(0, 3, 1, 2))
        run.finish("finished")
    start.forget()
    if len(history) < settings.train.epochs:
        print(f"ended after epoch {len(history)} of {settings.train.epochs} by train.early_stopping")
    if folds := _folds(training):
        print(f"{folds['count']} folds: validation accuracy {folds['mean']:.2%} ± {folds['sd']:.2%} (sd)")
    print(f"wrote {project.model.relative_to(project.root)} after {history[-1].elapsed_s:,.0f} s of training")


@dataclass(frozen=True)
class _Start:
    """What a training that was stopped leaves for the next start: its checkpoints and the key of its MLflow run."""

    folder: Path
    key: str
    started: str

    @classmethod
    def of(cls, folder: Path) -> "_Start":
        """The start that `folder` remembers, or the first one."""
        note = folder / "start.json"
        if not note.is_file():
            content = {"key": uuid.uuid4().hex, "started": datetime.now(UTC).isoformat(timespec="seconds")}
            with atomic_write(note) as aside:
                aside.write_text(json.dumps(content), encoding="utf-8")
        return cls(folder, **json.loads(note.read_text(encoding="utf-8")))

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _fingerprint(settings: Config, meta: "Meta") -> str:
    """Names a training: equal for two starts only if all that decides its numbers is equal, the code included."""
    import torch

    decisive = {key: value for key, value in settings.values().items() if not key.startswith(("data.", "evaluate."))}
    weights = config.weights_digest(settings.model)
    given = [decisive, meta.digest, weights, torch.__version__, provenance.code_digest("train")]
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]


def _called(model: Model) -> str:
    if model.family == "pretrained":
        return f"pretrained {model.backbone}"
    # The others have their depth in their name.
    return f"{model.family}{model.depth}" if model.family in ("resnet", "plain", "speed") else model.family


def _folds(training: "Training") -> dict[str, Any] | None:
    """What cross-validation says after the last epoch, as run.json has it."""
    if len(training.parts) == 1:
        return None
    accuracies = training.accuracies(len(training.done))
    return {
        "count": len(accuracies),
        "validation_accuracy": accuracies,
        "mean": statistics.fmean(accuracies),
        "sd": statistics.stdev(accuracies),
    }


def _record(run: tracking.Run, training: "Training", epochs: Sequence["Epoch"]) -> None:
    for epoch in epochs:
        if epoch.number not in run.logged_steps:
            figures = {f"train.{key}": value for key, value in asdict(epoch).items() if key != "number"}
            if len(training.parts) > 1:
                figures["train.folds.sd"] = statistics.stdev(training.accuracies(epoch.number))
            run.log_metrics(figures, step=epoch.number)


@contextmanager
def _ending_recorded(run: tracking.Run, start: _Start, history: Sequence["Epoch"], epochs: int) -> Iterator[None]:
    """Names what ended the training in MLflow's run, whatever it was."""
    try:
        yield
    except KeyboardInterrupt:
        run.finish("interrupted")
        raise KeyboardInterrupt(f"{len(history)} of {epochs} epochs are kept, `dvc repro` goes on from there") from None
    except Diverged as error:
        run.set_tags({"ended.why": str(error)})
        run.finish("diverged")
        start.forget()  # to go on from there would end there again
        raise
    except OutOfMemory as error:
        run.set_tags({"ended.why": str(error)})
        run.finish("out of memory")
        raise
    except BaseException:
        run.finish("crashed")
        raise


def _write_history(path: Path, history: Sequence["Epoch"]) -> None:
    rows = [asdict(epoch) for epoch in history]
    for row in rows:
        row["epoch"] = row.pop("number")
    with atomic_write(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["epoch", *(key for key in rows[0] if key != "epoch")], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_stage(train, __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
