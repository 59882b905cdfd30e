"""What a killed training leaves for the next start, and which trainings may resume from it."""

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
    """The first start of a training; later starts find it again by the training's fingerprint."""

    folder: Path
    """Of its checkpoints."""
    key: str
    """Of its run in MLflow."""
    started: str
    """ISO 8601."""

    @classmethod
    def of(cls, project: Project, settings: Config, meta: Meta) -> "Start":
        """The start that a killed training of these values left, or a new one."""
        folder = project.checkpoints / f"train-{fingerprint(settings, meta)}"
        note = folder / "start.json"
        if not note.is_file():
            content = {"key": uuid.uuid4().hex, "started": datetime.now(UTC).isoformat(timespec="seconds")}
            with atomic_write(note) as aside:
                aside.write_text(json.dumps(content), encoding="utf-8")
        return cls(folder, **json.loads(note.read_text(encoding="utf-8")))

    def forget(self) -> None:
        """Deletes the checkpoints: the training has ended, or would end the same way again."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint(settings: Config, meta: Meta) -> str:
    """Names a training: equal for two starts only if all that decides its numbers is equal, the code included."""
    decisive = {key: value for key, value in settings.values().items() if not key.startswith(("data.", "evaluate."))}
    weights = config.weights_digest(settings.model)
    given = [decisive, meta.digest, weights, torch.__version__, provenance.code_digest("train")]
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]
