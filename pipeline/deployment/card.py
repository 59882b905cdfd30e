"""The model card of exported files, in the format of Hugging Face: a YAML head for machines, then text for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import config
from pipeline.deployment.checking import HEADINGS, Measured
from pipeline.deployment.opened import Opened
from pipeline.evaluation.comparing import Part
from pipeline.files import atomic_write
from pipeline.records import Meta, RunRecord

NAME = "MODEL_CARD.md"


def write(
    path: Path,
    *,
    model: Opened,
    label: str,
    meta: Meta,
    part: Part,
    measured: Sequence[Measured],
    device: str,
    licence: str,
    record: RunRecord | None,
) -> None:
    """`label` is the network's short name. `measured` begins with the network itself. `record` is that of its training,
    where it is known.
    """
    title = f"{label} on {meta.name}"
    exported = measured[1:]
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": {"type": meta.name, "name": meta.name, "split": part.name},
            "metrics": [{"type": "accuracy", "name": f"accuracy ({one.form})", "value": one.accuracy}],
        }
        for one in exported
    ]
    head = {
        "license": licence,
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", model.network["family"], *(one.form for one in exported)],
        "datasets": [meta.name],
        "metrics": ["accuracy"],
        "model-index": [{"name": title, "results": results}],
    }
    text = f"---\n{config.yaml_text(head)}---\n\n# {title}\n\n{_body(model, meta, part, measured, device, record)}"
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _body(
    model: Opened, meta: Meta, part: Part, measured: Sequence[Measured], device: str, record: RunRecord | None
) -> str:
    channels, height, width = model.shape
    classes = ", ".join(model.classes[:20]) + (
        f", and {len(model.classes) - 20} more" if len(model.classes) > 20 else ""
    )
    colour = "greyscale (colours become their luminance)" if channels == 1 else "RGB"
    counts = ", ".join(f"{count:,} {name}" for name, count in meta.counts.items())
    sections = {
        "Intended use": (
            f"It names which of {len(model.classes)} classes an image shows: {classes}. The probabilities are "
            "calibrated on the validation part.\n\n"
            "It names one of these classes for every image, also for one that shows none of them, or that differs from "
            "the training images in light, camera or framing. Measure it on images of your own before you rely on it."
        ),
        "Input and output": (
            f"`images`: uint8 [N, {channels}, {height}, {width}], {colour}, raw values from 0 to 255: normalisation is "
            "part of the network. A larger image is cut to its centre square and resized (bilinear, with "
            f"antialiasing). `logits`: float32 [N, {len(model.classes)}]; their softmax gives the probabilities. Class "
            "names, shape and resizing are in the metadata of each file, under `description`.\n\n"
            f"    python -m pipeline.predict IMAGE --model {measured[-1].path.name}"
        ),
        "Training data": f"{meta.name}, from {meta.source}: {counts} images. Digest: {meta.digest}.",
        "Training": _training(record) if record else f"The network is {model.name}.",
        "Figures": (
            f"On all {len(part):,} images of the {part.name} part, and by time on {device}. The difference is that of "
            f"probabilities to those of the network itself.\n\n{_table(measured)}"
        ),
    }
    return "\n".join(f"## {heading}\n\n{text}\n" for heading, text in sections.items())


def _training(record: RunRecord) -> str:
    values: Mapping[str, Any] = record.values
    chosen = ", ".join(
        f"{key} {values[key]}"
        for key in ("train.epochs", "train.batch_size", "train.optimizer", "train.learning_rate", "train.weight_decay")
        if key in values
    )
    commit = f", commit {record.provenance.git_commit}" if record.provenance.git_commit else ""
    return (
        f"{record.data.training:,} images, {chosen}, {record.elapsed_s:,.0f} s on {record.device.name}{commit}. The "
        f"run in MLflow is `{record.name}` (pipeline.key {record.key}); it has all values."
    )


def _table(measured: Sequence[Measured]) -> str:
    rows = [("form", *HEADINGS[1:]), ("---",) * len(HEADINGS), *(one.fields for one in measured)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
