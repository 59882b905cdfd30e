"""Checks of params.yaml, and of the data set on disk and its source."""

from pipeline import config
from pipeline.datasets import arrays, fingerprint
from pipeline.datasets.verifying import differences
from pipeline.errors import ConfigError, DataError
from pipeline.files import Project
from pipeline.findings import Finding, Looked, Report, Weight
from pipeline.records import load_meta


def params(project: Project) -> Report:
    """Whether params.yaml is valid."""
    yield Looked(1, "params.yaml")
    try:
        config.load(project.params)
    except ConfigError as error:
        yield Finding(
            Weight.ERROR, str(error), project.params.name, "correct it; `python -m pipeline.config` checks it"
        )


def data(project: Project, *, quick: bool = False) -> Report:
    """Whether the arrays are those of meta.json, and whether their source has changed."""
    there = [path for path in arrays.files(project).values() if path.exists()]
    if not there and not project.meta.exists():
        return  # nothing was downloaded yet, or dvc.lock has it
    try:
        meta = load_meta(project.meta)
    except DataError as error:
        yield Finding.of(error, str(project.meta.relative_to(project.root)))
        return
    yield Looked(sum(meta.counts.values()), "images")
    for sentence in differences(project, meta, quick=quick):
        yield Finding(Weight.ERROR, sentence, "data", "dvc checkout --force download, or dvc repro -f download")
    if change := fingerprint.change(project, meta):
        what, _, _ = change.partition(". Run")
        yield Finding(Weight.WARNING, what, meta.source, "dvc repro -f download")
