"""data.url as an `Address`: an http(s) URL, a file:// URL or a path. Its text never contains a password."""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

from pipeline.errors import DataError
from pipeline.files import Project

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Address:
    """The location of data. str() gives the text for messages and meta.json, without user, password and query."""

    url: str = field(repr=False)
    """As in params.yaml. It may contain secrets."""

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Raises DataError if `url` is neither an http, https or file URL nor a path."""
        scheme, separator, _ = url.partition("://")
        if separator and scheme.lower() not in ("http", "https", "file"):
            raise DataError(
                f"data.url begins with {scheme}://, which can't be fetched: "
                "it must be an http, https or file URL, or a path."
            )
        address = cls(url)
        if address.remote:
            try:
                # A slash or hash in a password ends the host too early. Reading the port finds most of these cases.
                parts = urlsplit(address.request_url)
                valid = bool(parts.hostname) and parts.port != 0
            except ValueError:
                valid = False
            if not valid:
                raise DataError(
                    "data.url is not a valid URL: its host or port can't be read. "
                    "Special characters in a user or password must be percent-encoded."
                )
        return address

    def below(self, name: str) -> "Address":
        """The file `name` in the folder that this address names."""
        if "://" not in self.url:
            return Address(str(Path(self.url, name)))
        parts = urlsplit(self.url)
        return Address(urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}")))

    @property
    def request_url(self) -> str:
        """The URL with the values of the environment variables that it names as ${NAME}. Only a request may use it.

        Values in the user or password are percent-encoded, those in the query are taken as they are. Raises DataError
        if a variable is missing, or is named in another place, where its value would be shown.
        """
        if not self.remote or not _VARIABLE.search(self.url):
            return self.url
        parts = urlsplit(self.url)
        user, at, host = parts.netloc.rpartition("@")
        if misplaced := _VARIABLE.search(host + parts.path + parts.fragment):
            raise DataError(
                f"data.url has {misplaced[0]} in its host or path. Environment variables are for secrets, and may "
                "stand in its user, its password or behind its question mark."
            )
        netloc = _VARIABLE.sub(lambda match: quote(_value(match[1]), safe=""), user) + at + host
        query = _VARIABLE.sub(lambda match: _value(match[1]), parts.query)
        return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))

    @property
    def remote(self) -> bool:
        return self.url.lower().startswith(("http://", "https://"))

    def __str__(self) -> str:
        return redacted(self.url)

    @property
    def identity(self) -> str:
        """SHA-256 of the URL without user and password. It tells addresses apart that differ only in the query."""
        parts = urlsplit(self.url)
        bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
        return hashlib.sha256(bare.encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """Name of the file in downloads/, of characters that every file system allows."""
        name = unquote(PurePosixPath(urlsplit(self.url).path).name)
        return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "archive"

    def path(self, project: Project) -> Path:
        """The local file or directory. A relative path starts in the project.

        Raises DataError if it is missing, on another machine, or below data/.
        """
        if self.url.lower().startswith("file:"):
            parts = urlsplit(self.url)
            if parts.hostname not in (None, "localhost"):
                raise DataError(f"data.url must name a file of this machine (file:///path), got {self}.")
            found = project.given_path(url2pathname(parts.path))
        else:
            found = project.given_path(self.url)
        if not found.exists():
            raise DataError(f"{found}, which data.url names, does not exist. Correct data.url in params.yaml.")
        if found.resolve().is_relative_to(project.data.resolve()):
            raise DataError(
                f"data.url names {found}, inside {project.data}, which this stage writes and DVC empties. "
                "Move it to another folder and set data.url to that folder."
            )
        return found


def _value(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise DataError(
            f"data.url names the environment variable {variable}, which is not set. Set it (export {variable}=...) and "
            "run again."
        )
    return value


def redacted(url: str) -> str:
    """A URL without user, password and query; a path unchanged."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return bare + ("?..." if parts.query else "")
