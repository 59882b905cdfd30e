"""Downloads one file over HTTP. After a lost connection the next one resumes where it ended."""

import os
import re
import sys
from pathlib import Path
from typing import Any, cast

import requests
import urllib3
from requests.exceptions import ConnectTimeout, ProxyError, SSLError, Timeout
from rich.filesize import decimal
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from pipeline.datasets import address, disk, progress
from pipeline.datasets.origin import Origin
from pipeline.errors import DownloadError

ATTEMPTS = 5  # in a row that bring no byte
MOST_ATTEMPTS = 100
BACK_OFF = wait_exponential_jitter(initial=1, max=30, jitter=1)
LONGEST_RETRY_AFTER_S = 60.0
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0

_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
_CHUNK_BYTES = 1 << 18


class _Interrupted(Exception):
    """A failure that may not repeat at the next attempt."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class _Refused(Exception):
    """A failure that will repeat at every attempt."""


class Transfer:
    """Downloads `source` to `part`. The caller renames the complete file.

    A partial file is resumed if the server proves by ETag or date that it still has the same file. Without such a proof
    it is resumed only if `checked`, which says that the caller compares a checksum afterwards.
    """

    def __init__(self, source: address.Address, part: Path, checked: bool) -> None:
        self.source, self.part, self.checked = source, part, checked
        self.resumed = False
        """Whether `part` holds bytes of an earlier run."""
        self._tried: dict[str, None] = {str(source): None}
        self._received = self._fruitless = 0
        self._session = requests.Session()

    def run(self) -> None:
        """Raises DownloadError, which names every address tried, and DataError if the disk is full."""
        self.resumed = bool(self._offset())
        retrying = Retrying(
            retry=retry_if_exception(_transient),
            stop=self._stop,
            wait=_wait,
            before_sleep=self._announce,
            reraise=True,
        )
        try:
            with self._session:
                retrying(self._attempt)
        except (requests.RequestException, urllib3.exceptions.HTTPError, _Interrupted, _Refused) as error:
            tried = " and ".join(self._tried)
            offset = self._offset()
            kept = f" The first {decimal(offset)} are kept; the next run resumes from there." if offset else ""
            # No chained traceback: the message of requests may contain the URL with its password.
            raise DownloadError(f"{tried} could not be fetched: {reason(error)}.{kept}") from None

    def discard(self) -> None:
        """Deletes the partial file, so that the next run starts from the beginning."""
        self.part.unlink(missing_ok=True)
        Origin.delete(self.part)

    def _attempt(self) -> None:
        self._received = 0
        offset = self._offset()
        origin = Origin.load(self.part)
        if origin and offset and offset == origin.size_bytes:
            return
        # Many servers label a .tar.gz as a gzip-encoded .tar. `identity` and raw reading keep the file as it is.
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if origin and origin.validator:
                headers["If-Range"] = origin.validator
        timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        try:
            response = self._session.get(self.source.request_url, headers=headers, stream=True, timeout=timeout)
        except requests.RequestException as error:
            if error.request is not None and error.request.url:
                self._tried[address.redacted(error.request.url)] = None
            raise
        with response:
            self._tried |= dict.fromkeys(address.redacted(hop.url) for hop in (*response.history, response))
            offset, size_bytes = self._begin(response, offset, origin)
            self._receive(response, offset, size_bytes)

    def _begin(self, response: requests.Response, offset: int, origin: Origin | None) -> tuple[int, int | None]:
        """The offset at which the body belongs, and the size of the whole file if the server says it."""
        status = response.status_code
        content_range = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
        start, total = content_range.groups() if content_range else (None, None)
        size_bytes = int(total) if total and total != "*" else None
        if status == 200:
            length = response.headers.get("Content-Length", "")
            size_bytes = int(length) if length.isdigit() else None
            offset = 0
            self.resumed = False
        elif status == 206 and offset:
            size_bytes = size_bytes or (origin.size_bytes if origin else None)
            fresh = Origin.of(self.source, response, size_bytes)
            if start != str(offset) or (origin and fresh.contradicts(origin)):
                self.discard()
                raise _Interrupted("the file at that address has changed since its first part was fetched")
        elif status == 416 and offset:
            if size_bytes == offset and self.checked:
                return offset, size_bytes
            self.discard()
            raise _Interrupted("the server has less of the file than was fetched before")
        elif status in _TRANSIENT_STATUS:
            after = response.headers.get("Retry-After", "")
            raise _Interrupted(f"the server answered {_status(response)}", float(after) if after.isdigit() else 0.0)
        else:
            raise _Refused(f"the server answered {_status(response)}")
        if size_bytes is not None:
            disk.require(size_bytes - offset, self.part.parent, self.part.name)
        Origin.of(self.source, response, size_bytes).save(self.part)
        return offset, size_bytes

    def _receive(self, response: requests.Response, offset: int, size_bytes: int | None) -> None:
        if response.status_code == 416:
            return
        with (
            disk.disk_errors(f"fetching {self.source}", self.part.parent, size_bytes),
            progress.byte_bar(self.part.stem, size_bytes, offset) as advance,
            self.part.open("ab" if offset else "wb") as file,
        ):
            body = response.raw.stream(_CHUNK_BYTES, decode_content=False)
            while chunk := self._next(body):
                file.write(chunk)
                self._received += len(chunk)
                advance(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        if size_bytes is not None and self._size() != size_bytes:
            if self._size() > size_bytes:
                self.discard()
            raise _Interrupted(f"the connection ended after {decimal(self._size())} of {decimal(size_bytes)}")

    def _next(self, body: Any) -> bytes:
        """The next piece of the body; empty at its end. A lost connection must not look like an error of the disk."""
        try:
            return cast(bytes, next(body, b""))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Interrupted(f"the connection broke off ({reason(error)})") from None

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _offset(self) -> int:
        """How many bytes of the partial file can be kept."""
        origin = Origin.load(self.part)
        if self.checked or (origin and origin.identity == self.source.identity and origin.validator):
            return self._size()
        return 0

    def _stop(self, state: RetryCallState) -> bool:
        self._fruitless = 0 if self._received else self._fruitless + 1
        return self._fruitless >= ATTEMPTS or state.attempt_number >= MOST_ATTEMPTS

    def _announce(self, state: RetryCallState) -> None:
        assert state.outcome is not None and state.next_action is not None
        error = state.outcome.exception()
        assert error is not None
        print(f"{self.source}: {reason(error)}; trying again in {state.next_action.sleep:.0f} s", file=sys.stderr)


def _transient(error: BaseException) -> bool:
    if isinstance(error, SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return isinstance(error, (_Interrupted, requests.ConnectionError, Timeout))


def _wait(state: RetryCallState) -> float:
    """Seconds to wait: the back-off, or Retry-After if the server asks for longer."""
    error = state.outcome.exception() if state.outcome else None
    asked = min(error.retry_after_s, LONGEST_RETRY_AFTER_S) if isinstance(error, _Interrupted) else 0.0
    return max(BACK_OFF(state), asked)


def _status(response: requests.Response) -> str:
    return f"{response.status_code} {response.reason or ''}".strip()


def reason(error: BaseException) -> str:
    """The reason as text, without the path, the query and the user of a URL."""
    if isinstance(error, (_Interrupted, _Refused)):
        return str(error)
    if isinstance(error, ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
    if isinstance(error, (Timeout, urllib3.exceptions.ReadTimeoutError)):
        return f"no data for {READ_TIMEOUT_S:.0f} s"
    if isinstance(error, SSLError):
        return "its certificate could not be verified, or the encrypted connection failed"
    if isinstance(error, ProxyError):
        return "the proxy of this machine refused or did not answer (see HTTPS_PROXY)"
    if isinstance(error, requests.ConnectionError):
        inner = error.args[0] if error.args else error
        if isinstance(inner, urllib3.exceptions.ProtocolError):
            return "the server closed the connection without an answer"
        cause = getattr(inner, "reason", inner)
        return "no connection: " + re.sub(r"^\w+\(.*?\): ", "", str(cause))
    if isinstance(error, requests.TooManyRedirects):
        return "it redirects endlessly"
    return type(error).__name__
