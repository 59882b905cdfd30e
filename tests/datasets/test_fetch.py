"""Fetching an archive: what is in downloads/ already, and files with other content."""

import threading
import time

import pytest
from bodies import BODY, OTHER, downloaded, sha256
from filelock import FileLock

from pipeline.datasets import transfer
from pipeline.datasets.fetch import Archive, Checksum
from pipeline.errors import DataError, DownloadError

# Files that are at hand.


def test_a_file_is_fetched_once(server, get, project):
    server.files["a.zip"] = BODY
    archive = get(server.url("a.zip"))
    assert archive == Archive(project.downloads / "a.zip", sha256(BODY).value, fetched=True)
    assert archive.path.read_bytes() == BODY
    assert get(server.url("a.zip")) == archive
    assert len(server.requests) == 1
    assert downloaded(project) == {"a.zip", "a.zip.json"}


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


def test_without_network_the_error_names_every_address_and_three_ways_out(dead_url, get, project, capsys):
    with pytest.raises(DownloadError) as error:
        get(dead_url, sha256(BODY))
    text = str(error.value)
    assert f"{dead_url} could not be fetched: no connection: " in text
    assert "set data.url in params.yaml to another address" in text
    assert f"put the file at {project.downloads / 'a.zip'} (its SHA256 is {sha256(BODY).value})" in text
    assert "set data.name to digits" in text
    assert capsys.readouterr().err.count("trying again") == transfer.ATTEMPTS - 1
    assert downloaded(project) == set()


# Files with other content.


def test_a_file_with_a_wrong_checksum_is_renamed_and_the_next_run_fetches_again(server, get, project):
    server.files["a.zip"] = OTHER
    with pytest.raises(DataError) as error:
        get(server.url("a.zip"), sha256(BODY))
    text = str(error.value)
    assert f"expected SHA-256 {sha256(BODY).value}, found {sha256(OTHER).value}" in text
    assert str(project.downloads / "a.zip.rejected") in text
    assert downloaded(project) == {"a.zip.rejected"}
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
