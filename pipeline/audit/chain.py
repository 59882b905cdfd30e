"""What a figure hangs on, link by link, from the source of the images to the predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline import config
from pipeline.config import Scalar
from pipeline.records import EvaluateFigures, RunRecord

SPLIT = ("train.validation", "train.validation_share", "train.validation_seed", "train.folds")


@dataclass(frozen=True)
class Facts:
    """What is on record of a training, wherever it is on record."""

    source: str
    archive_sha256: str | None
    digest: str
    counts: Mapping[str, int]
    dvc_data_hash: str | None
    values: Mapping[str, Scalar]
    commit: str | None
    dirty: bool
    versions: Mapping[str, str]
    device: str
    run: str
    """Its name, or its key, in MLflow."""
    weights_sha256: str | None
    predictions: str
    """What was predicted, and how well; empty if nothing was."""
    models: tuple[str, ...] = ()
    """In MLflow's registry."""


@dataclass(frozen=True)
class Link:
    """One thing that a result hangs on."""

    name: str
    value: str
    more: list[str] = field(default_factory=list)
    problem: str = ""
    """Why the link no longer holds here; empty if it does, or if that is not known."""


def of_record(run: RunRecord, figures: EvaluateFigures | None = None) -> Facts:
    """What run.json says, and metrics.json."""
    device = run.device
    return Facts(
        source=run.data.source,
        archive_sha256=run.data.archive_sha256,
        digest=run.data.digest,
        counts={"training": run.data.training, "validation": run.data.validation, "test": run.data.counts["test"]},
        dvc_data_hash=run.provenance.dvc_data_hash,
        values=run.values,
        commit=run.provenance.git_commit,
        dirty=bool(run.provenance.git_dirty),
        versions=run.provenance.versions,
        device=f"{device.name}, {device.type}, {_threads(device.threads)}, {device.precision}",
        run=f"{run.name}, {run.key}",
        weights_sha256=run.model_sha256,
        predictions=""
        if figures is None
        else f"{run.data.counts['test']:,} test images, accuracy {figures.accuracy:.2%}",
    )


def links(facts: Facts) -> list[Link]:
    """From the source of the images to the predictions. What is not on record is left out."""
    defaults = config.defaults()
    changed = [
        f"{name} = {_text(value)}"
        for name, value in facts.values.items()
        if name in defaults and value != defaults[name] and config.decides_training(name) and name != "train.seed"
    ]
    split = [f"{name.removeprefix('train.')} = {_text(facts.values[name])}" for name in SPLIT if name in facts.values]
    counts = ", ".join(f"{count:,} {part}" for part, count in facts.counts.items())
    dirty = " with uncommitted changes" if facts.dirty else ""
    found = [
        Link("source", facts.source),
        Link("archive", f"sha256:{facts.archive_sha256}" if facts.archive_sha256 else ""),
        Link("arrays", facts.digest, [f"in DVC {facts.dvc_data_hash}"] if facts.dvc_data_hash else []),
        Link("split", counts or "by the values", split),
        Link("values", f"{len(changed)} that differ from the defaults" if changed else "the defaults", changed),
        Link("seed", _text(facts.values.get("train.seed"))),
        Link("code", f"commit {facts.commit}{dirty}" if facts.commit else ""),
        Link("environment", facts.device, [" ".join(pair) for pair in facts.versions.items()]),
        Link("training", facts.run),
        Link("weights", f"sha256:{facts.weights_sha256}" if facts.weights_sha256 else "", list(facts.models)),
        Link("predictions", facts.predictions),
    ]
    return [link for link in found if link.value]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _text(value: Scalar) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
