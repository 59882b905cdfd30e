"""From a figure back to all it hangs on, and from data or a commit to what was made from them."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import config, provenance, records
from pipeline.audit import chain, recorded
from pipeline.audit.chain import Facts, Link
from pipeline.config import Config
from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.files import Project, sha256
from pipeline.records import Metrics, RunRecord
from pipeline.tracking.reading import RecordedRun, Runs

_LEAST_DIGITS = 7
"""Of a commit or a digest that is given by its beginning."""


def of_files(project: Project) -> list[Link]:
    """What metrics.json hangs on, with what no longer holds on this disk. Raises PipelineError if a file is missing."""
    figures = records.read(Metrics, project.metrics, stage="evaluate")
    run = records.read(RunRecord, project.run, stage="train")
    problems = _problems(project, run, figures)
    return [
        replace(link, problem=problems.get(link.name, ""))
        for link in [*chain.links(chain.of_record(run, figures.evaluate)), Link("figures", str(project.metrics.name))]
    ]


def of_run(run: RecordedRun, runs: Runs) -> list[Link]:
    """What a run in MLflow hangs on. Raises PipelineError for a run that is no training."""
    values = {name: recorded.typed(text, name) for name, text in run.params.items()}
    if "model.family" not in values:
        raise PipelineError(f"{run} is no training: name a trial, or a run of `dvc repro`.")
    tags, metrics = run.tags, run.metrics
    accuracy = metrics.get("evaluate.accuracy")
    models = [version for model in runs.models(run) for version in model.versions or [f"models:/{model.id}"]]
    facts = Facts(
        source=tags.get("data.source") or str(values.get("data.url") or values.get("data.name", "")),
        archive_sha256=tags.get("data.archive_sha256"),
        digest=tags.get("data.digest", ""),
        counts=run.counts,
        dvc_data_hash=tags.get("dvc.data"),
        values=values,
        commit=tags.get("git.commit"),
        dirty=tags.get("git.dirty") == "true",
        versions={name.removeprefix("version."): tag for name, tag in tags.items() if name.startswith("version.")},
        device=", ".join(tags[name] for name in ("device.name", "device.type", "device.precision") if name in tags),
        run=str(run),
        weights_sha256=tags.get("model.sha256"),
        predictions="" if accuracy is None else f"test accuracy {accuracy:.2%}",
        models=tuple(models),
    )
    return chain.links(facts)


@dataclass(frozen=True)
class Made:
    """What was made from some data, or by some commit."""

    run: RecordedRun
    accuracy: float | None
    """0..1, of the validation part after the last epoch."""
    test_accuracy: float | None
    models: list[str]
    """Versions in the registry."""


def made_from(runs: Runs, *, data: str | None = None, commit: str | None = None) -> list[Made]:
    """The trainings in MLflow that were made from a data set or by a commit, each by the beginning of its hash.

    The last one comes first. Raises PipelineError for too short a beginning.
    """
    tag, start = ("data.digest", data) if data else ("git.commit", commit or "")
    start = start or ""
    if len(start.removeprefix("sha256:")) < _LEAST_DIGITS or not start.removeprefix("sha256:").isalnum():
        raise PipelineError(f"{start} is too short, or no hash: give at least {_LEAST_DIGITS} of its digits.")
    if data and not start.startswith("sha256:"):
        start = f"sha256:{start}"
    found = runs.search(f"tags.`{tag}` LIKE '{start}%'")
    return [
        Made(
            run,
            run.metrics.get("train.validation_accuracy"),
            run.metrics.get("evaluate.accuracy"),
            [version for model in runs.models(run) for version in model.versions],
        )
        for run in found
        if "model.family" in run.params
    ]


def _problems(project: Project, run: RunRecord, figures: Metrics) -> dict[str, str]:
    """What on this disk is no longer what the figures hang on, by link, each with what to do."""
    found: dict[str, str] = {}
    try:
        meta = records.load_meta(project.meta)
    except DataError as error:
        found["arrays"] = str(error)
    else:
        if meta.digest != run.data.digest:
            found["arrays"] = f"data/ holds {meta.digest} now: `dvc repro` trains on it."
    archive = project.downloads / Path(run.data.source).name
    if run.data.archive_sha256 and archive.is_file() and sha256(archive) != run.data.archive_sha256:
        found["archive"] = f"{archive} is another file now: delete it, and `dvc repro` fetches it again."
    try:
        changed = _changed_values(config.load(project.params), run.values)
    except ConfigError as error:
        found["values"] = str(error)
    else:
        if changed:
            found["values"] = f"params.yaml differs now in {', '.join(changed)}: `dvc repro` trains its values."
    if (digest := run.code_sha256) and digest != provenance.code_digest("train"):
        found["code"] = "the training code is other code now: `python -m pipeline.reproduce --code` goes back to it."
    if not project.model.is_file():
        found["weights"] = f"{project.model} is missing: `dvc checkout`, or `dvc repro`."
    elif run.model_sha256 and sha256(project.model) != run.model_sha256:
        found["weights"] = f"{project.model} is another file now: `dvc checkout`, or `dvc repro`."
    if problem := _of_predictions(project.predictions, figures.evaluate.accuracy, run.data.counts["test"]):
        found["predictions"] = problem
    if problem := _of_history(project.history, figures):
        found["figures"] = problem
    return found


def _changed_values(settings: Config, then: Mapping[str, Any]) -> list[str]:
    now = settings.values()
    return [name for name, value in now.items() if config.decides_training(name) and then.get(name, value) != value]


def _of_predictions(path: Path, accuracy: float, count: int) -> str:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            right = [row["actual"] == row["predicted"] for row in csv.DictReader(file)]
    except (OSError, KeyError):
        return f"{path} is missing or damaged: `dvc repro evaluate`."
    if len(right) != count or round(sum(right) / max(1, len(right)) - accuracy, 6):
        return f"{path} has {sum(right):,} of {len(right):,} right, metrics.json says {accuracy:.2%}: `dvc repro`."
    return ""


def _of_history(path: Path, figures: Metrics) -> str:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            last = list(csv.DictReader(file))[-1]
        same = float(last["validation_accuracy"]) == figures.train.validation_accuracy
    except (OSError, KeyError, IndexError, ValueError):
        return f"{path} is missing or damaged: `dvc checkout`, or `dvc repro`."
    return "" if same else f"{path} ends with other figures than metrics.json has: `dvc repro`."
