"""data.url as an `Address`: an http(s) URL, a file:// URL or a path, which never shows a password."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

from pipeline.errors import DataError
from pipeline.files import Project


@dataclass(frozen=True)
class Address:
    """Where data lies. str() is what messages and meta.json show: without user, password and query."""

    url: str = field(repr=False)
    """As params.yaml has it, secrets included: for the request alone."""

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Raises DataError for what is neither http, https, file nor a path."""
        scheme, separator, _ = url.partition("://")
        if separator and scheme.lower() not in ("http", "https", "file"):
            raise DataError(
                f"data.url begins with {scheme}://, which can't be fetched: "
                "it must be an http, https or file URL, or a path."
            )
        address = cls(url)
        if address.remote:
            try:
                # Reading the port finds most passwords with a slash or hash in them, which would be taken for a path.
                parts = urlsplit(url)
                sound = bool(parts.hostname) and parts.port != 0
            except ValueError:
                sound = False
            if not sound:
                raise DataError(
                    "data.url is not a valid URL: its host or port can't be read. "
                    "Special characters in a user or password must be percent-encoded."
                )
        return address

    @property
    def remote(self) -> bool:
        return self.url.lower().startswith(("http://", "https://"))

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def identity(self) -> str:
        """Tells two addresses apart whose shown text is the same, and tells nothing else."""
        parts = urlsplit(self.url)
        bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
        return hashlib.sha256(bare.encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """The name that the file of a URL gets in downloads/, with nothing in it that a file system could mind."""
        name = unquote(PurePosixPath(urlsplit(self.url).path).name)
        return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "archive"

    def path(self, project: Project) -> Path:
        """The local file or directory; a relative path starts in the project. Raises DataError when it is missing."""
        if self.url.lower().startswith("file:"):
            parts = urlsplit(self.url)
            if parts.hostname not in (None, "localhost"):
                raise DataError(f"data.url must name a file of this machine (file:///path), got {self}.")
            path = Path(url2pathname(parts.path))
        else:
            path = Path(self.url).expanduser()
        # In DVC's copies for experiments, what git does not track is only in the real project.
        candidates = [folder / path for folder in dict.fromkeys((project.root, project.home))]
        found = next((candidate for candidate in candidates if candidate.exists()), None)
        if found is None:
            raise DataError(f"{candidates[0]}, which data.url names, does not exist. Correct data.url in params.yaml.")
        if found.resolve().is_relative_to(project.data.resolve()):
            raise DataError(
                f"data.url names {found}, inside of {project.data}, which this stage writes and DVC empties. "
                "Move it to another folder and set data.url to that."
            )
        return found


def shown(url: str) -> str:
    """A URL as messages may show it; a path as it is."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return bare + ("?..." if parts.query else "")
