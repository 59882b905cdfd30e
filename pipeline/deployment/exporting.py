"""What `python -m pipeline.export` does: converts, checks, describes and records a network."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import config, records
from pipeline.config import Model
from pipeline.deployment import card
from pipeline.deployment.checking import Measured, measure
from pipeline.deployment.converting import ENDINGS, Converter
from pipeline.deployment.opened import Located, Opened, locate, read
from pipeline.errors import PipelineError
from pipeline.evaluation.comparing import PartName, compare, read_part
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.records import Meta, RunRecord
from pipeline.tracking import StageTracker

CALIBRATION_IMAGES = 512
"""Of the validation part: what the ranges of int8 are measured on."""


@dataclass(frozen=True)
class Order:
    """What the command line asks for."""

    model: str | None
    forms: Sequence[str]
    output: Path | None
    part: PartName
    licence: str
    threads: int


@dataclass(frozen=True)
class Done:
    """What there is to show."""

    rows: list[tuple[str, ...]]
    summary: str


def export_files(project: Project, order: Order) -> Done:
    """Raises ConfigError, DataError; PipelineError where there is no such model, or a package is missing."""
    from pipeline.exporting import onnx

    if {"onnx", "int8"} & set(order.forms):
        onnx.require("onnx", "onnxscript", "onnxruntime")
    settings, meta = config.load(project.params), records.load_meta(project.meta)
    paths = {form: _target(project, order, form) for form in order.forms}
    source = locate(project, order.model)
    model = read(source, order.threads)
    _check_data(model, meta)
    record = records.read(RunRecord, project.run, stage="train") if order.model is None else None
    part = read_part(project, settings, meta, order.part)
    validation = part if order.part == "validation" else read_part(project, settings, meta, "validation")

    def calibration() -> npt.NDArray[np.uint8]:
        places = np.linspace(0, len(validation) - 1, min(CALIBRATION_IMAGES, len(validation))).astype(int)
        return np.concatenate([validation.pixels(int(place), 1) for place in places])

    converter = Converter(source)
    measured: list[Measured] = []
    for form, path in paths.items():
        converter.write(form, path, calibration)
        exported = read(Located(str(path), path), order.threads)
        comparison = compare(part, model.probabilities, exported.probabilities)
        measured.append(measure(form, path, exported, comparison.accuracy_after, comparison))
    measured.insert(0, measure("network", source.path, model, comparison.accuracy_before))
    folder = measured[-1].path.parent
    device = f"{_processor()}, {order.threads} thread{'s' if order.threads > 1 else ''}"
    card.write(
        folder / card.NAME,
        model=model,
        label=_label(model),
        meta=meta,
        part=part,
        measured=measured,
        device=device,
        licence=order.licence,
        record=record,
    )
    recorded = _record(project, folder / card.NAME, record, source)
    files = ", ".join(str(one.path) for one in measured[1:])
    return Done(
        [one.fields for one in measured],
        f"Compared on all {len(part):,} images of the {part.name} part. Latency: {device}.\n"
        f"Written: {files} and {folder / card.NAME}{recorded}.",
    )


def _check_data(model: Opened, meta: Meta) -> None:
    if model.digest != meta.digest:
        raise PipelineError(
            f"{model.name} was trained on {model.data} with the digest {model.digest}, but data/ holds {meta.name} "
            f"with the digest {meta.digest}: export it where its data is, which it is checked on."
        )


def _target(project: Project, order: Order, form: str) -> Path:
    ending = ENDINGS[form]
    if order.output is None:
        return project.exports.relative_to(project.root) / f"model{ending}"
    if len(order.forms) > 1:
        return order.output / f"model{ending}"
    if order.output.suffix != (suffix := f".{ending.rpartition('.')[2]}"):
        raise PipelineError(f"--output must end in {suffix} for {form}, got {order.output}.")
    return order.output


def _label(model: Opened) -> str:
    family = str(model.network["family"])
    # The code of a user's network may be elsewhere.
    return family if config.is_own(family) else Model.model_validate_json(json.dumps(model.network)).label


def _processor() -> str:
    from pipeline.machine import Machine
    from pipeline.training.device import Device

    return Device.choose("cpu", "fp32", None, Machine.probe()).name


def _record(project: Project, path: Path, record: RunRecord | None, source: Located) -> str:
    """Adds the card to the run of the network in MLflow, whose outcome stays. Returns what there is to say of it."""
    key = record.key if record else source.key
    if key is None:
        return ""
    with StageTracker(project) as tracker:
        run = tracker.open(key)
        run.log_file(path)
        run.finish(source.ended or Outcome.FINISHED)
    return ", which the run in MLflow gets too"
