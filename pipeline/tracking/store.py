"""Which MLflow store the environment names. Whatever is printed or recorded of it shows no password."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pipeline.errors import TrackingError
from pipeline.files import Project

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Store:
    """An MLflow tracking store and the experiment in it."""

    uri: str = field(repr=False)
    """For MLflow alone: it may hold a password."""
    experiment: str
    home: Path
    """The project whose runs it holds."""

    @classmethod
    def of(cls, project: Project, environment: Mapping[str, str] = os.environ) -> "Store":
        """The store of MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.

        The defaults are mlflow.db in the project and the experiment "pipeline". Raises TrackingError for an address
        that is wrong whatever the store would answer, and for MLFLOW_EXPERIMENT_ID without a name.
        """
        home = project.home.resolve()
        uri = environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"
        experiment = environment.get("MLFLOW_EXPERIMENT_NAME") or "pipeline"
        if environment.get("MLFLOW_EXPERIMENT_ID") and not environment.get("MLFLOW_EXPERIMENT_NAME"):
            raise TrackingError(
                f"MLFLOW_EXPERIMENT_ID is {environment['MLFLOW_EXPERIMENT_ID']}, but experiments are chosen by name "
                "here: set MLFLOW_EXPERIMENT_NAME, or unset MLFLOW_EXPERIMENT_ID for the experiment pipeline."
            )
        scheme, _, rest = uri.partition("://")
        store = cls(uri, experiment, home)
        if scheme.partition("+")[0] not in SCHEMES:
            raise TrackingError(
                f"MLFLOW_TRACKING_URI must begin with {', '.join(f'{scheme}://' for scheme in SCHEMES)}, got {store}."
            )
        if scheme in ("http", "https"):
            try:
                parts = urlsplit(uri)
                sound = parts.hostname and (parts.port is None or parts.port > 0) and " " not in uri
            except ValueError:
                sound = False
            if not sound:
                raise TrackingError(
                    f"MLFLOW_TRACKING_URI must be {scheme}://host or {scheme}://host:port, got {store}."
                )
        if scheme == "sqlite":
            # Relative to the home, like all that outlives a run, not to the copy that `dvc exp run --temp` works in.
            path = home / rest.removeprefix("/").partition("?")[0]
            if not path.parent.is_dir():
                raise TrackingError(f"MLFLOW_TRACKING_URI is {store}, but there is no folder {path.parent}.")
            if path.is_dir() or (path.is_file() and path.stat().st_size and not _is_sqlite(path)):
                raise TrackingError(f"{path} is not an SQLite database: move it away, or set MLFLOW_TRACKING_URI.")
            store = cls(f"sqlite:///{path}", experiment, home)
        return store

    def __str__(self) -> str:
        if self.is_own:
            return self.own_database.name  # the same after the project was moved
        try:
            _ = urlsplit(self.uri).port
        except ValueError:
            # A password with a slash: the parts of the URI can't be told apart, so all before the last @ is hidden.
            scheme, _, rest = self.uri.partition("://")
            return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else self.uri
        return without_credentials(self.uri)

    @property
    def id(self) -> str:
        """A short name for the store and the experiment."""
        return hashlib.sha256(f"{self} {self.experiment}".encode()).hexdigest()[:8]

    @property
    def database(self) -> Path | None:
        """The file of an SQLite store."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:") else None

    @property
    def artifacts(self) -> Path:
        """The folder of the runs' artifacts, unless a server keeps them."""
        return self.home / "mlruns" / quote(self.experiment, safe="")

    @property
    def own_database(self) -> Path:
        """The file that plain `mlflow ui` opens in the project."""
        return self.home / "mlflow.db"

    @property
    def is_own(self) -> bool:
        return self.database == self.own_database

    @property
    def is_server(self) -> bool:
        return self.uri.startswith(("http:", "https:"))

    def redacted(self, text: str) -> str:
        """`text` without the credentials of the store, or of any URI in it."""
        userinfo = "" if self.database else self.uri.partition("://")[2].rpartition("@")[0]
        password = userinfo.partition(":")[2]
        variables = map(os.environ.get, ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"))
        for secret in filter(None, [userinfo, password, unquote(password), *variables]):
            text = text.replace(secret, "***")
        return without_credentials(text)


def without_credentials(text: str) -> str:
    """`text` without users, passwords and tokens in its URIs and in their parameters."""
    if "://" in text:
        text = re.sub(r"://[^/\s]*@", "://***@", text)
    if "=" not in text:
        return text
    return re.sub(r"((?:password|passwd|pwd|token|secret)=)[^&\s'\"]+", r"\1***", text, flags=re.IGNORECASE)


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"
