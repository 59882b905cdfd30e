"""Contents of downloaded files, and what downloads/ holds."""

import hashlib

from pipeline.datasets.fetch import Checksum
from pipeline.files import Project

BODY = bytes(range(256)) * 4000  # 1 MB
OTHER = BODY[::-1]


def sha256(data: bytes) -> Checksum:
    return Checksum("sha256", hashlib.sha256(data).hexdigest())


def downloaded(project: Project) -> set[str]:
    """The names in downloads/, without the lock."""
    return {path.name for path in project.downloads.iterdir()} - {"a.zip.lock"}
