"""Checks of what the stages have written: do the files belong together, and has DVC what dvc.lock names?"""

import configparser
import csv
import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import records
from pipeline.config import read_yaml
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import Project
from pipeline.findings import Finding, Looked, Report, Weight, counted, some
from pipeline.records import Metrics, RunRecord
from pipeline.tracking import health as tracking
from pipeline.tracking.outbox import kept


def trained(project: Project) -> Report:
    """Whether the model, its record, its curves and metrics.json are of one training, on the data that lies here."""
    files = [project.model, project.run, project.history]
    missing = [path for path in files if not path.exists()]
    if len(missing) == len(files) and not project.metrics.exists():
        return
    if missing and not project.dvc_lock.exists():  # else `outputs` names them
        yield Finding(
            Weight.ERROR,
            f"of the trained model {some([path.name for path in missing])} is missing",
            str(project.train.relative_to(project.root)),
            "dvc repro",
        )
    try:
        run = records.read(RunRecord, project.run, stage="train") if project.run.exists() else None
        metrics = records.read(Metrics, project.metrics, stage="evaluate") if project.metrics.exists() else None
    except PipelineError as error:
        yield Finding.of(error, "results")
        return
    yield Looked(1, "trained model")
    if run and project.meta.exists():
        digest = json.loads(project.meta.read_bytes()).get("digest")
        if digest != run.data.digest:
            yield Finding(
                Weight.WARNING,
                f"the model was trained on other data ({run.data.digest[:19]}...) than data/ holds ({digest[:19]}...)",
                str(project.run.relative_to(project.root)),
                "dvc repro",
            )
    if metrics and project.history.exists():
        with project.history.open(newline="", encoding="utf-8") as file:
            last = list(csv.DictReader(file))[-1:]
        accuracy = metrics.train.validation_accuracy
        if last and abs(float(last[0]["validation_accuracy"]) - accuracy) > 1e-9:
            yield Finding(
                Weight.WARNING,
                f"metrics.json is of another training (validation accuracy {accuracy:.4f}) than "
                f"results/train/history.csv ({float(last[0]['validation_accuracy']):.4f})",
                project.metrics.name,
                "dvc repro -f evaluate",
            )
    recorded = tracking.recorded_keys(project)
    waiting = {outbox.key for outbox in kept(project.outbox)}
    if run and recorded is not None and run.key not in recorded and run.key not in waiting:
        yield Finding(
            Weight.WARNING,
            f"MLflow has no run of the model in {project.train.relative_to(project.root)}",
            "mlflow.db",
            "put mlflow.db and mlruns/ back from a copy; without one `dvc repro -f train` records it again",
        )


@dataclass(frozen=True)
class _Out:
    """An output that dvc.lock names."""

    name: str
    path: Path
    md5: str
    is_cached: bool
    """Whether DVC keeps it; else git does."""


def outputs(project: Project) -> Report:
    """Whether the outputs of dvc.lock are in the workspace and in DVC's cache."""
    if not project.dvc_lock.exists():
        return
    try:
        outs = list(_outs(project))
    except (ConfigError, KeyError, TypeError, AttributeError):
        yield Finding(Weight.ERROR, "dvc.lock can't be read", project.dvc_lock.name, "git checkout -- dvc.lock")
        return
    yield Looked(len(outs), "outputs of dvc.lock")
    cache = _cache(project)
    there = {out.name for out in outs if out.path.exists()}
    cached = {out.name for out in outs if out.is_cached and _is_cached(cache, out.md5)}
    changed = {out.name for out in outs if out.name in there and _differs(out)}
    has_remote = any(section.startswith(("remote", "'remote")) for section in _dvc_config(project).sections())
    for names, weight, what, remedy in (
        (
            lost := [out.name for out in outs if not out.is_cached and out.name not in there],
            Weight.ERROR,
            "{} missing, which git keeps: {}",
            f"git checkout -- {shlex.join(lost)}, or dvc repro",
        ),
        (
            [out.name for out in outs if out.is_cached and out.name not in there | cached],
            Weight.ERROR,
            "{} missing, in the workspace and in DVC's cache: {}",
            "dvc pull" if has_remote else "dvc repro",
        ),
        (
            [out.name for out in outs if out.name in cached - there],
            Weight.WARNING,
            "{} missing in the workspace, DVC's cache has them: {}",
            "dvc checkout",
        ),
        (
            [out.name for out in outs if out.name in changed],
            Weight.WARNING,
            "{} not what dvc.lock says: {}",
            "dvc repro; or `git checkout` and `dvc checkout --force` for what dvc.lock says",
        ),
        (
            [out.name for out in outs if out.is_cached and out.name in there - cached - changed],
            Weight.WARNING,
            "{} in the workspace alone, not in DVC's cache, so that `dvc push` can't share them: {}",
            "dvc commit --force",
        ),
    ):
        if names:
            verb = counted(len(names), "output is", "outputs are")
            yield Finding(weight, what.format(verb, some(names)), project.dvc_lock.name, remedy)


def _outs(project: Project) -> Iterator[_Out]:
    stages: dict[str, Any] = read_yaml(project.root / "dvc.yaml").get("stages", {})
    kept_by_git = {
        name
        for stage in stages.values()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind) or ()
        if isinstance(out, dict)
        for name, options in out.items()
        if (options or {}).get("cache") is False
    }
    for stage in read_yaml(project.dvc_lock)["stages"].values():
        for out in stage.get("outs", ()):
            if "md5" in out:
                yield _Out(out["path"], project.root / out["path"], out["md5"], out["path"] not in kept_by_git)


def _cache(project: Project) -> Path:
    folder = _dvc_config(project).get("cache", "dir", fallback="cache")
    return project.home / ".dvc" / Path(folder).expanduser() / "files" / "md5"


def _dvc_config(project: Project) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        found.read([project.home / ".dvc" / name for name in ("config", "config.local")], encoding="utf-8")
    except configparser.Error:
        return configparser.ConfigParser()
    return found


def _is_cached(cache: Path, md5: str) -> bool:
    """Whether the cache has a file, or a folder with all that it lists."""
    path = cache / md5[:2] / md5[2:]
    if not md5.endswith(".dir"):
        return path.exists()
    try:
        listed = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return all(_is_cached(cache, entry["md5"]) for entry in listed)


def _differs(out: _Out) -> bool:
    """Whether a file has another content than dvc.lock says; folders are not compared."""
    if out.md5.endswith(".dir") or not out.path.is_file():
        return False
    with out.path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != out.md5
