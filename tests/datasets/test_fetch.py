"""Fetching an archive: failures of the network, of the server and of the disk."""

import errno
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock, Timeout
from places import REPOSITORY
from tenacity import RetryCallState

from pipeline.datasets import transfer
from pipeline.datasets.address import Address
from pipeline.datasets.fetch import Archive, Checksum, fetch
from pipeline.errors import DataError, DownloadError
from pipeline.files import Project

BODY = bytes(range(256)) * 4000  # 1 MB
OTHER = BODY[::-1]


def sha256(data: bytes) -> Checksum:
    return Checksum("sha256", hashlib.sha256(data).hexdigest())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path)


@pytest.fixture
def get(project: Project) -> Callable[..., Archive]:
    def get(url: str, expected: Checksum | None = None) -> Archive:
        return fetch(Address.parse(url), project, expected, "a.zip")

    return get


@pytest.fixture
def dead_url() -> str:
    """An address on loopback where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/a.zip"


def named(project: Project, *endings: str) -> set[str]:
    """The names in downloads/, without the lock."""
    return {path.name for path in project.downloads.iterdir()} - {"a.zip.lock"}


# Without failures.


def test_a_file_is_fetched_once(server, get, project):
    server.files["a.zip"] = BODY
    archive = get(server.url("a.zip"))
    assert archive == Archive(project.downloads / "a.zip", sha256(BODY).value, fetched=True)
    assert archive.path.read_bytes() == BODY
    assert get(server.url("a.zip")) == archive
    assert len(server.requests) == 1
    assert named(project) == {"a.zip", "a.zip.json"}


def test_an_archive_put_in_downloads_by_hand_needs_no_network(dead_url, get, project):
    project.downloads.mkdir()
    (project.downloads / "a.zip").write_bytes(BODY)
    archive = get(dead_url, sha256(BODY))
    assert (archive.path.read_bytes(), archive.fetched) == (BODY, False)


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_local_file_is_read_in_place(tmp_path, get, project, form):
    path = tmp_path / "my images.zip"
    path.write_bytes(BODY)
    url = form.format(path if form == "{}" else str(path).replace(" ", "%20"))
    assert get(url, sha256(BODY)) == Archive(path, sha256(BODY).value, fetched=False)
    assert not project.downloads.exists()


def test_a_relative_path_starts_in_the_project_or_in_the_real_one_of_a_copy(tmp_path):
    root, home = tmp_path / "copy", tmp_path / "home"
    root.mkdir()
    home.mkdir()
    (home / "a.zip").write_bytes(OTHER)
    assert Address.parse("a.zip").path(Project(root, home)) == home / "a.zip"
    (root / "a.zip").write_bytes(BODY)
    assert Address.parse("a.zip").path(Project(root, home)) == root / "a.zip"


def test_a_file_that_the_server_labels_as_compressed_is_kept_as_it_is(server, get):
    server.files["a.zip"] = BODY
    server.content_encoding = "gzip"
    assert get(server.url("a.zip")).path.read_bytes() == BODY


def test_another_process_that_fetches_the_same_file_is_waited_for(server, get, project, capsys):
    server.files["a.zip"] = BODY
    project.downloads.mkdir()
    with FileLock(project.downloads / "a.zip.lock"):
        thread = threading.Thread(target=get, args=(server.url("a.zip"),))
        thread.start()
        while "waiting for another process" not in capsys.readouterr().out:
            assert thread.is_alive()
            time.sleep(0.01)
        assert server.requests == []
    thread.join(10)
    assert (project.downloads / "a.zip").read_bytes() == BODY


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
    assert named(project) == set()


def test_without_network_the_error_names_every_address_and_three_ways_out(dead_url, get, project, capsys):
    with pytest.raises(DownloadError) as error:
        get(dead_url, sha256(BODY))
    text = str(error.value)
    assert f"{dead_url} could not be fetched: no connection: " in text
    assert "set data.url in params.yaml to another address" in text
    assert f"put the archive at {project.downloads / 'a.zip'} (its SHA256 is {sha256(BODY).value})" in text
    assert "set data.name to digits" in text
    assert capsys.readouterr().err.count("trying again") == transfer.ATTEMPTS - 1
    assert named(project) == set()


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


# Files with other content.


def test_a_file_with_a_wrong_checksum_is_renamed_and_the_next_run_fetches_again(server, get, project):
    server.files["a.zip"] = OTHER
    with pytest.raises(DataError) as error:
        get(server.url("a.zip"), sha256(BODY))
    text = str(error.value)
    assert f"expected SHA-256 {sha256(BODY).value}, found {sha256(OTHER).value}" in text
    assert str(project.downloads / "a.zip.rejected") in text
    assert named(project) == {"a.zip.rejected"}
    server.files["a.zip"] = BODY
    assert get(server.url("a.zip"), sha256(BODY)).path.read_bytes() == BODY


def test_an_md5_is_checked_as_well(server, get):
    server.files["a.zip"] = OTHER
    with pytest.raises(DataError, match=r"expected MD5 0+, found [0-9a-f]{32}"):
        get(server.url("a.zip"), Checksum("md5", 32 * "0"))


def test_a_wrong_file_that_was_put_in_downloads_is_an_error_and_stays(dead_url, get, project):
    project.downloads.mkdir()
    path = project.downloads / "a.zip"
    path.write_bytes(OTHER)
    with pytest.raises(DataError) as error:
        get(dead_url, sha256(BODY))
    assert f"{path} has the wrong checksum: expected {sha256(BODY)}, found {sha256(OTHER).value}" in str(error.value)
    assert path.read_bytes() == OTHER


def test_a_wrong_local_file_is_an_error_and_stays(tmp_path, get):
    path = tmp_path / "local.zip"
    path.write_bytes(OTHER)
    with pytest.raises(DataError, match=rf"{path} has the wrong checksum"):
        get(path.as_uri(), sha256(BODY))
    assert path.read_bytes() == OTHER


def test_a_file_fetched_for_another_checksum_is_replaced(server, get):
    server.files["a.zip"] = OTHER
    get(server.url("a.zip"), sha256(OTHER))
    server.files["a.zip"] = BODY
    assert get(server.url("a.zip"), sha256(BODY)).path.read_bytes() == BODY


def test_a_file_fetched_from_another_address_with_the_same_name_is_not_used(server, get):
    server.files |= {"cats/a.zip": BODY, "dogs/a.zip": OTHER}
    assert get(server.url("cats/a.zip")).path.read_bytes() == BODY
    assert get(server.url("dogs/a.zip")).path.read_bytes() == OTHER
    assert get(server.url("dogs/a.zip?version=2")).path.read_bytes() == OTHER
    assert len(server.requests) == 3


def test_a_fetched_file_stays_until_another_one_replaces_it(server, get, dead_url):
    server.files["a.zip"] = BODY
    archive = get(server.url("a.zip"))
    with pytest.raises(DownloadError):
        get(dead_url)
    assert get(server.url("a.zip")) == archive
    assert len(server.requests) == 1


def test_a_file_that_a_person_put_over_a_fetched_one_is_never_removed(server, get, project):
    server.files["a.zip"] = BODY
    path = get(server.url("a.zip")).path
    path.write_bytes(OTHER)
    with pytest.raises(DataError, match="was left where it is"):
        get(server.url("a.zip"), sha256(BODY))
    assert path.read_bytes() == OTHER


def test_a_fetched_archive_with_bad_content_is_not_used_again(server, get, project):
    server.files["a.zip"] = OTHER
    error = get(server.url("a.zip")).unusable("is damaged")
    assert "a.zip is damaged. It was renamed to a.zip.rejected" in str(error)
    server.files["a.zip"] = BODY
    assert get(server.url("a.zip")).path.read_bytes() == BODY


# The disk, and addresses.


def test_a_full_disk_is_reported_before_the_download(server, get, monkeypatch, project):
    server.files["a.zip"] = BODY
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=500_000))
    with pytest.raises(DataError, match=r"no space left for a\.zip\.part: 1\.0 MB are needed in .*500\.0 kB are free"):
        get(server.url("a.zip"))
    assert named(project) == set()


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
    assert named(project) == {"a.zip.part", "a.zip.part.json"}
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


@pytest.mark.parametrize("url", ["http://mary:s3cr/et@host/a.zip", "http://[mary:s3cret@host/a.zip", "http:///a.zip"])
def test_a_malformed_url_is_refused_without_being_shown(url):
    with pytest.raises(DataError, match=r"data\.url is not a valid URL") as error:
        Address.parse(url)
    assert "s3cr" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://bucket/a.zip", "begins with s3://, which can't be fetched"),
        ("file://elsewhere/a.zip", "must name a file of this machine"),
        ("nowhere.zip", "nowhere.zip, which data.url names, does not exist"),
        ("data/a.zip", "which this stage writes and DVC empties"),
        (".", "is a directory where an archive is needed"),
    ],
)
def test_an_address_without_an_archive_is_an_error(get, project, url, words):
    project.data.mkdir()
    (project.data / "a.zip").write_bytes(BODY)
    with pytest.raises(DataError, match=words):
        get(url)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/images.tar.gz?v=1#top", "images.tar.gz"),
        ("https://host/a/..%2F..%2Fetc%2Fpasswd", "_.._etc_passwd"),
        ("https://host/.hidden", "hidden"),
        ("https://host/", "archive"),
    ],
)
def test_the_name_in_downloads_comes_from_the_url_and_stays_inside(url, name):
    assert Address.parse(url).file_name == name
