"""Downloading over HTTP: failures of the network, of the server and of the disk."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from bodies import BODY, OTHER, downloaded, sha256
from filelock import FileLock, Timeout
from places import REPOSITORY
from tenacity import RetryCallState

from pipeline.datasets import transfer
from pipeline.datasets.address import Address
from pipeline.errors import DataError, DownloadError


def test_a_file_that_the_server_labels_as_compressed_is_kept_as_it_is(server, get):
    server.files["a.zip"] = BODY
    server.content_encoding = "gzip"
    assert get(server.url("a.zip")).path.read_bytes() == BODY


# Lost connections.


def test_a_download_resumes_after_a_lost_connection(server, get, answer):
    server.files["a.zip"] = BODY
    server.answers = [answer(drop_after=600_000), answer(drop_after=100_000)]
    assert get(server.url("a.zip")).path.read_bytes() == BODY
    assert [request.get("Range") for request in server.requests] == [None, "bytes=600000-", "bytes=700000-"]
    assert [request.get("If-Range") for request in server.requests] == [None, '"one"', '"one"']


def test_attempts_that_bring_bytes_are_not_limited_like_those_that_bring_none(server, get, answer):
    server.files["a.zip"] = BODY
    server.answers = [answer(drop_after=50_000) for _ in range(2 * transfer.ATTEMPTS)]
    assert get(server.url("a.zip")).path.read_bytes() == BODY


def test_a_server_without_ranges_sends_all_of_it_again(server, get, answer):
    server.files["a.zip"] = BODY
    server.ranges = False
    server.answers = [answer(drop_after=600_000)]
    assert get(server.url("a.zip")).path.read_bytes() == BODY
    assert [request.get("Range") for request in server.requests] == [None, "bytes=600000-"]


def test_a_server_that_sends_ranges_in_pieces_is_asked_for_the_rest(server, get, answer):
    server.files["a.zip"] = BODY
    server.answers = [answer(drop_after=600_000), answer(most_of_range=100_000)]
    assert get(server.url("a.zip")).path.read_bytes() == BODY
    assert [request.get("Range") for request in server.requests] == [None, "bytes=600000-", "bytes=700000-"]


@pytest.mark.parametrize("ignore_if_range", [False, True])
def test_parts_of_two_versions_of_a_file_are_not_joined(server, get, answer, ignore_if_range):
    server.files["a.zip"] = BODY
    server.answers = [answer(drop_after=600_000), answer(status=404)]
    with pytest.raises(DownloadError, match=r"first 600\.0 kB are kept"):
        get(server.url("a.zip"))
    server.files["a.zip"], server.etag = OTHER, '"two"'
    server.answers = [answer(ignore_if_range=ignore_if_range) for _ in range(transfer.ATTEMPTS)]
    assert get(server.url("a.zip")).path.read_bytes() == OTHER


def test_nothing_is_resumed_without_proof_that_it_is_the_same_file(server, get, answer):
    server.files["a.zip"] = BODY
    server.etag = None
    server.answers = [answer(drop_after=600_000)]
    assert get(server.url("a.zip")).path.read_bytes() == BODY
    assert "Range" not in server.requests[1]


def test_any_partial_file_is_resumed_when_there_is_a_checksum(server, get, project):
    server.files["a.zip"] = BODY
    project.downloads.mkdir()
    (project.downloads / "a.zip.part").write_bytes(BODY[:400_000])
    assert get(server.url("a.zip"), sha256(BODY)).path.read_bytes() == BODY
    assert [request.get("Range") for request in server.requests] == ["bytes=400000-"]


def test_a_partial_file_of_another_file_is_fetched_again_from_the_start(server, get, project, capsys):
    server.files["a.zip"] = BODY
    project.downloads.mkdir()
    (project.downloads / "a.zip.part").write_bytes(OTHER[:400_000])
    assert get(server.url("a.zip"), sha256(BODY)).path.read_bytes() == BODY
    assert [request.get("Range") for request in server.requests] == ["bytes=400000-", None]
    assert "came from another file" in capsys.readouterr().out


@pytest.mark.parametrize("excess", [b"", b"too much"])
def test_a_partial_file_as_long_as_the_whole_or_longer_is_handled(server, get, project, excess):
    server.files["a.zip"] = BODY
    project.downloads.mkdir()
    (project.downloads / "a.zip.part").write_bytes(BODY + excess)
    assert get(server.url("a.zip"), sha256(BODY)).path.read_bytes() == BODY


def test_a_killed_download_is_resumed_by_the_next_run(server, get, project, answer):
    server.files["a.zip"] = BODY
    server.answers = [answer(stall_after=700_000)]
    code = (
        "import pathlib\n"
        "from pipeline.files import Project\n"
        "from pipeline.datasets.address import Address\n"
        "from pipeline.datasets.fetch import fetch\n"
        f"root = pathlib.Path({str(project.root)!r})\n"
        f"fetch(Address.parse({server.url('a.zip')!r}), Project(root, root), None, 'a.zip')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL)
    part = project.downloads / "a.zip.part"
    try:
        while not (part.exists() and part.stat().st_size > 500_000):
            assert process.poll() is None
            time.sleep(0.01)
        with pytest.raises(Timeout):
            FileLock(project.downloads / "a.zip.lock").acquire(timeout=0)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (project.downloads / "a.zip").exists()
    size = part.stat().st_size
    assert get(server.url("a.zip")).path.read_bytes() == BODY
    assert server.requests[-1]["Range"] == f"bytes={size}-"


# Servers that refuse.


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_is_busy_is_asked_again(server, get, answer, status, capsys):
    server.files["a.zip"] = BODY
    server.answers = [answer(status=status), answer(status=status)]
    assert get(server.url("a.zip")).path.read_bytes() == BODY
    assert capsys.readouterr().err.count(f"the server answered {status}") == 2


def test_retry_after_is_respected(server, get, answer):
    server.files["a.zip"] = BODY
    server.answers = [answer(status=503, headers={"Retry-After": "1"})]
    started = time.monotonic()
    get(server.url("a.zip"))
    assert time.monotonic() - started >= 1


def test_the_waits_between_attempts_grow(monkeypatch):
    monkeypatch.undo()
    waits = []
    for attempt in range(1, 8):
        state = RetryCallState(None, None, (), {})
        state.attempt_number = attempt
        waits.append(transfer._wait(state))
    assert 1 <= waits[0] <= 2 < waits[2] < waits[4] <= 30 == waits[6]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_request_is_not_repeated(server, get, answer, status, project):
    server.answers = [answer(status=status)]
    with pytest.raises(DownloadError, match=f"{server.host}/a.zip could not be fetched: the server answered {status}"):
        get(server.url("a.zip"))
    assert len(server.requests) == 1
    assert downloaded(project) == set()


def test_the_target_of_a_redirect_is_named_too(server, dead_url, get, answer):
    server.answers = [answer(status=302, headers={"Location": dead_url}) for _ in range(transfer.ATTEMPTS)]
    with pytest.raises(DownloadError) as error:
        get(server.url("a.zip"))
    assert f"{server.url('a.zip')} and {dead_url} could not be fetched" in str(error.value)


def test_a_server_that_never_sends_the_whole_file_is_given_up(server, get, answer, project):
    server.files["a.zip"] = BODY
    server.ranges = False
    server.answers = [answer(drop_after=0) for _ in range(transfer.ATTEMPTS)]
    with pytest.raises(DownloadError, match="the connection "):
        get(server.url("a.zip"))
    assert not (project.downloads / "a.zip").exists()


# The disk, and secrets.


def test_a_full_disk_is_reported_before_the_download(server, get, monkeypatch, project):
    server.files["a.zip"] = BODY
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=500_000))
    with pytest.raises(DataError, match=r"no space left for a\.zip\.part: 1\.0 MB are needed in .*500\.0 kB are free"):
        get(server.url("a.zip"))
    assert downloaded(project) == set()


def test_a_disk_that_fills_up_is_reported_and_the_next_run_resumes(server, get, monkeypatch, project):
    server.files["a.zip"] = BODY
    fsync, synced = os.fsync, []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 3:  # after two for the record beside the partial file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"no space left while fetching .*a\.zip in .*downloads: 1\.0 MB are needed"):
        get(server.url("a.zip"))
    assert downloaded(project) == {"a.zip.part", "a.zip.part.json"}
    assert get(server.url("a.zip")).path.read_bytes() == BODY


def test_user_password_and_query_are_sent_to_the_server_and_shown_nowhere(server, get, project, capsys, answer):
    server.files["a.zip"] = BODY
    server.answers = [answer(status=503), answer(drop_after=1000), answer(status=404)]
    url = server.url("a.zip?token=hush", user="mary:s3cret@")
    with pytest.raises(DownloadError) as error:
        get(url)
    get(url)
    assert server.requests[-1]["Authorization"] == "Basic bWFyeTpzM2NyZXQ="
    assert server.requests[-1]["path"] == "/a.zip?token=hush"
    files = b"".join(path.read_bytes() for path in project.downloads.iterdir() if path.name != "a.zip")
    seen = str(error.value) + str(capsys.readouterr()) + repr(Address.parse(url)) + files.decode()
    assert f"{server.host}/a.zip?..." in seen
    assert not any(secret in seen for secret in ("mary", "s3cret", "hush"))


def test_a_password_is_not_shown_when_nothing_answers(dead_url, get, capsys):
    with pytest.raises(DownloadError) as error:
        get(dead_url.replace("://", "://mary:s3cret@"))
    assert "s3cret" not in str(error.value) + str(capsys.readouterr())
    assert error.value.__cause__ is None
