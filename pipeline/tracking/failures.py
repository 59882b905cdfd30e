"""MLflow's errors in two kinds: the store is unreachable and worth another try, or it refuses for good."""

import re

from pipeline.tracking.store import Store

_FORBIDDEN = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}
_REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "MALFORMED_REQUEST",
    "NOT_FOUND",
    "NOT_IMPLEMENTED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}


class Unreachable(Exception):
    """The store did not answer, or was too busy: worth another try."""


class Refused(Exception):
    """The store answered with a refusal: another try would end the same."""


def explained(store: Store, error: Exception, *, connecting: bool = False) -> Unreachable | Refused:
    """The kind of an error of MLflow, or of the network; `connecting` says that the store was never reached before."""
    if isinstance(error, ImportError):
        return Refused(f"{error}: install what this kind of store needs")
    from mlflow.exceptions import MlflowException, RestException
    from requests.exceptions import HTTPError
    from sqlalchemy.exc import OperationalError

    reason = _reason(store.redacted(str(error)), type(error).__name__)
    unreachable, refused = Unreachable(reason), Refused(reason)
    if isinstance(error, MlflowException):
        if connecting and (
            error.error_code in _FORBIDDEN | _REFUSALS | {"ENDPOINT_NOT_FOUND"}
            or store.database
            or "valid JSON" in str(error)
        ):
            return refused
        # An answer that is not MLflow's may come from a gateway in front of a server that is away.
        own = isinstance(error, RestException) or not store.is_server
        return refused if own and error.error_code in _REFUSALS else unreachable
    if isinstance(error, HTTPError) and error.response is not None:
        return refused if error.response.status_code in (400, 413, 415, 422) else unreachable
    if isinstance(error, OperationalError):
        return refused if connecting and store.database and "locked" not in reason else unreachable
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return unreachable
    return refused


def _reason(text: str, kind: str) -> str:
    """The essence of an error's text, on one line."""
    if found := re.search(
        r"Connection (?:refused|reset|aborted)|timed out|Remote end closed|Name or service not known|"
        r"Temporary failure in name resolution|No route to host|Network is unreachable|too many \d+ error responses",
        text,
    ):
        return found[0].lower()
    line = " ".join(text.split()) or kind
    return line if len(line) <= 300 else f"{line[:300]}..."
