"""Which trainings may resume from the checkpoints of a killed one, and where these are."""

import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from pipeline import config, provenance
from pipeline.config import Config
from pipeline.files import Project, atomic_write
from pipeline.records import Meta


@dataclass(frozen=True)
class Start:
    """The first start of a training. Later starts find it by the training's fingerprint."""

    folder: Path
    """The folder of the checkpoints."""
    key: str
    """The key of the run in MLflow."""
    started: str
    """The time, as ISO 8601."""

    @classmethod
    def of(cls, project: Project, settings: Config, meta: Meta) -> "Start":
        """The start of a killed training with the same fingerprint, or a new one."""
        folder = project.checkpoints / f"train-{fingerprint(settings, meta)}"
        note = folder / "start.json"
        if not note.is_file():
            content = {"key": uuid.uuid4().hex, "started": datetime.now(UTC).isoformat(timespec="seconds")}
            with atomic_write(note) as aside:
                aside.write_text(json.dumps(content), encoding="utf-8")
        return cls(folder, **json.loads(note.read_text(encoding="utf-8")))

    def forget(self) -> None:
        """Deletes the checkpoints, after a training that ended or would diverge again."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint(settings: Config, meta: Meta) -> str:
    """Equal for two trainings only if all that decides their numbers is equal, to the last bit and code included."""
    values = {
        key: value
        for key, value in settings.values().items()
        if config.decides_training(key) or config.is_of_the_machine(key)
    }
    content = [config.weights_digest(settings.model), config.code_digests(settings)]
    given = [values, meta.digest, content, torch.__version__, provenance.code_digest("train")]
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]
