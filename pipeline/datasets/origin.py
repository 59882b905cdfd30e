"""Which file a partial download belongs to. It is stored beside it, so that parts of two files are never joined."""

import json
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import requests

from pipeline.datasets.address import Address
from pipeline.files import atomic_write


@dataclass(frozen=True)
class Origin:
    """What a server said of a file when its download began."""

    identity: str
    """Of the address (`Address.identity`)."""
    etag: str | None
    last_modified: str | None
    size_bytes: int | None
    """Of the whole file."""

    @classmethod
    def of(cls, source: Address, response: requests.Response, size_bytes: int | None) -> "Origin":
        return cls(source.identity, response.headers.get("ETag"), response.headers.get("Last-Modified"), size_bytes)

    @classmethod
    def load(cls, part: Path) -> "Origin | None":
        """That of the partial file `part`; None if there is none or it is damaged."""
        try:
            return cls(**json.loads(_beside(part).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @staticmethod
    def delete(part: Path) -> None:
        _beside(part).unlink(missing_ok=True)

    def save(self, part: Path) -> None:
        with atomic_write(_beside(part)) as aside:
            aside.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @property
    def validator(self) -> str | None:
        """For the header If-Range: a strong ETag, else the date (RFC 9110, section 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def contradicts(self, other: "Origin") -> bool:
        """Whether a field that both have differs."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return any(mine is not None and yours is not None and mine != yours for mine, yours in pairs)


def _beside(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
