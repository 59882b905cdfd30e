"""What a partial file is the beginning of, kept beside it, so that two different files are never glued together."""

import json
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import requests

from pipeline.datasets.address import Address
from pipeline.files import atomic_write


@dataclass(frozen=True)
class Origin:
    identity: str
    """Of the address."""
    etag: str | None
    last_modified: str | None
    size_bytes: int | None
    """Of the whole file."""

    @classmethod
    def of(cls, source: Address, response: requests.Response, size_bytes: int | None) -> "Origin":
        return cls(source.identity, response.headers.get("ETag"), response.headers.get("Last-Modified"), size_bytes)

    @classmethod
    def load(cls, part: Path) -> "Origin | None":
        try:
            return cls(**json.loads(_beside(part).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @staticmethod
    def forget(part: Path) -> None:
        _beside(part).unlink(missing_ok=True)

    def save(self, part: Path) -> None:
        with atomic_write(_beside(part)) as aside:
            aside.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @property
    def validator(self) -> str | None:
        """What If-Range accepts: a strong ETag, else the date (RFC 9110, section 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def contradicts(self, other: "Origin") -> bool:
        """Whether something that both know is not the same."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return any(mine is not None and yours is not None and mine != yours for mine, yours in pairs)


def _beside(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
