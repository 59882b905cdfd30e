"""Studies in a PostgreSQL database, for owners on several machines: `tune.storage`.

A password stands in the environment (PGPASSWORD) or in a file (PGPASSFILE, ~/.pgpass), never in the address. While the
database does not answer, an owner waits for it. A study's lock belongs to a connection of its owner: the database
releases it when that connection ends, however the owner died.
"""

import contextlib
import hashlib
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial
from sqlalchemy.exc import DBAPIError

from pipeline.errors import PipelineError

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE_S = 600.0
"""Seconds that an owner waits for a database that does not answer."""
_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "connect_timeout": 10}
"""With them a cut link is noticed within half a minute, by the database too."""


def _patient(method: Callable[Concatenate["Database", P], R]) -> Callable[Concatenate["Database", P], R]:
    """The method, tried again while the database does not answer. To be used on what can be done twice."""

    def patient(self: "Database", /, *arguments: P.args, **options: P.kwargs) -> R:
        return self.until_it_answers(lambda: method(self, *arguments, **options))

    return patient


class Database(optuna.storages.RDBStorage):
    """Optuna's storage in a database that may be away for minutes."""

    def __init__(self, url: str) -> None:
        """Raises PipelineError if the database can't be used; it says no password."""
        self._url = sqlalchemy.make_url(url)
        self._owned: dict[str, sqlalchemy.Connection] = {}
        try:
            super().__init__(url, engine_kwargs={"pool_pre_ping": True, "connect_args": _KEEPALIVES})
        except (ImportError, ModuleNotFoundError) as error:
            raise PipelineError(f'tune.storage: {error}: `pip install -e ".[cluster]"` installs it.') from error
        except (DBAPIError, StorageInternalError, RuntimeError) as error:
            raise PipelineError(f"tune.storage: {self} can't be used: {_reason(error)}.") from error
        weakref.finalize(self, self.engine.dispose)

    @staticmethod
    def is_new(url: str) -> bool:
        """Whether the database has no tables of Optuna's, which `Database` would create. Raises PipelineError."""
        try:
            engine = sqlalchemy.create_engine(url, connect_args=_KEEPALIVES, poolclass=sqlalchemy.NullPool)
            with engine.connect() as connection:
                return not sqlalchemy.inspect(connection).has_table("studies")
        except (ImportError, DBAPIError) as error:
            shown = sqlalchemy.make_url(url).render_as_string(hide_password=True)
            raise PipelineError(f"tune.storage: {shown} can't be used: {_reason(error)}.") from error

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def own(self, study: str) -> bool:
        """Takes the lock of a study for this process; False if another owner has it."""
        connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if connection.execute(sqlalchemy.text("SELECT pg_try_advisory_lock(:key)"), {"key": _key(study)}).scalar():
            self._owned[study] = connection
            return True
        connection.close()
        return False

    def is_owned(self, study: str) -> bool:
        """Whether any process holds the lock of a study."""
        # PostgreSQL keeps the two halves of the key.
        high, low = divmod(_key(study) % 2**64, 2**32)
        held = sqlalchemy.text(
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = :high AND objid = :low AND objsubid = 1"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        with self.engine.connect() as connection:
            return connection.execute(held, {"high": high, "low": low}).first() is not None

    def release(self, study: str) -> None:
        """Releases the lock of a study."""
        _end(self._owned.pop(study))

    def until_it_answers(self, work: Callable[[], R]) -> R:
        """What `work` returns, once the database answers. Raises PipelineError after PATIENCE_S, and if another owner
        has taken a study of this process in the meantime."""
        deadline, wait_s = time.monotonic() + PATIENCE_S, 0.2
        while True:
            try:
                return work()
            except (DBAPIError, StorageInternalError) as error:
                if not _is_away(error) or time.monotonic() > deadline:
                    raise PipelineError(
                        f"{self} can't be used: {_reason(error)}. Nothing is lost: the same command resumes the study."
                    ) from error
                if wait_s == 0.2:
                    print(f"{self} does not answer; waiting for it", file=sys.stderr)
                time.sleep(wait_s)
                wait_s = min(5.0, 2 * wait_s)
                self._own_again()

    def _own_again(self) -> None:
        """Takes the locks again that were lost with their connections."""
        for study in list(self._owned):
            lost = self._owned.pop(study)
            _end(lost)
            try:
                owned = self.own(study)
            except DBAPIError:
                self._owned[study] = lost  # still away
                continue
            if not owned:
                raise PipelineError(f"The study {study} has another owner by now: this one ends.")

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna's. A trial that was stored although the database did not say so is not stored again."""
        before = len(self.get_all_trials(study_id, deepcopy=False))

        def create() -> int:
            trials = self.get_all_trials(study_id, deepcopy=False)
            if len(trials) > before:
                return trials[-1]._trial_id
            return super(Database, self).create_new_trial(study_id, template_trial)

        return self.until_it_answers(create)

    get_all_trials = _patient(optuna.storages.RDBStorage.get_all_trials)
    get_study_id_from_name = _patient(optuna.storages.RDBStorage.get_study_id_from_name)
    get_study_user_attrs = _patient(optuna.storages.RDBStorage.get_study_user_attrs)
    set_study_user_attr = _patient(optuna.storages.RDBStorage.set_study_user_attr)
    set_trial_intermediate_value = _patient(optuna.storages.RDBStorage.set_trial_intermediate_value)
    set_trial_user_attr = _patient(optuna.storages.RDBStorage.set_trial_user_attr)

    def set_trial_state_values(self, trial_id: int, *arguments: Any, **options: Any) -> bool:
        def ended() -> bool:
            if self.get_trial(trial_id).state.is_finished():
                return True  # stored before, although the database did not say so
            return super(Database, self).set_trial_state_values(trial_id, *arguments, **options)

        return self.until_it_answers(ended)


def _end(connection: sqlalchemy.Connection) -> None:
    """Ends a connection, and with it its lock: closing alone would put both back into the pool."""
    with contextlib.suppress(DBAPIError, sqlalchemy.exc.InvalidRequestError):
        connection.invalidate()
    with contextlib.suppress(DBAPIError, sqlalchemy.exc.InvalidRequestError):
        connection.close()


def _is_away(error: Exception) -> bool:
    """Whether the database did not answer; else it answered with an error."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError) or (
        isinstance(cause, DBAPIError) and cause.connection_invalidated
    )


def _reason(error: Exception) -> str:
    text = str(error.__cause__ or error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


def _key(study: str) -> int:
    """A number for PostgreSQL's advisory locks: 64 bits with a sign."""
    return int.from_bytes(hashlib.sha256(f"pipeline study {study}".encode()).digest()[:8], "big", signed=True)
