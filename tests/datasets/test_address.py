"""data.url: URLs and paths."""

import base64

import pytest
from bodies import BODY, OTHER

from pipeline.datasets.address import Address
from pipeline.errors import DataError
from pipeline.files import Project


def test_a_relative_path_starts_in_the_project_or_in_the_real_one_of_a_copy(tmp_path):
    root, home = tmp_path / "copy", tmp_path / "home"
    root.mkdir()
    home.mkdir()
    (home / "a.zip").write_bytes(OTHER)
    assert Address.parse("a.zip").path(Project(root, home)) == home / "a.zip"
    (root / "a.zip").write_bytes(BODY)
    assert Address.parse("a.zip").path(Project(root, home)) == root / "a.zip"


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


def test_environment_variables_in_query_and_password_are_inserted_in_the_request_alone(
    get, server, project, monkeypatch, capsys
):
    monkeypatch.setenv("DATA_TOKEN", "sig=hush%3D")
    monkeypatch.setenv("DATA_PASSWORD", "s3cr/et")
    server.files["a.zip"] = BODY
    url = server.url("a.zip?${DATA_TOKEN}&v=1", user="mary:${DATA_PASSWORD}@")
    archive = get(url)
    assert archive.path.read_bytes() == BODY
    (request,) = server.requests
    assert request["path"] == "/a.zip?sig=hush%3D&v=1"
    assert base64.b64decode(request["Authorization"].removeprefix("Basic ")) == b"mary:s3cr/et"
    written = "".join(path.read_text(errors="replace") for path in project.downloads.iterdir() if path != archive.path)
    printed = capsys.readouterr()
    assert "hush" not in written + printed.out + printed.err
    assert "s3cr" not in written + printed.out + printed.err
    monkeypatch.setenv("DATA_TOKEN", "sig=renewed")  # a new secret fetches nothing again
    get(url)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://host/a.zip?t=${NOT_SET}", "the environment variable NOT_SET, which is not set"),
        ("https://host/${HOME}/a.zip", r"\$\{HOME\} in its host or path"),
        ("https://${HOME}/a.zip", r"\$\{HOME\} in its host or path"),
    ],
)
def test_environment_variables_that_can_not_be_used_are_refused(url, words):
    with pytest.raises(DataError, match=words):
        Address.parse(url)


def test_a_password_of_netrc_is_used(get, server, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login mary password hush\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.files["a.zip"] = BODY
    get(server.url("a.zip"))
    assert base64.b64decode(server.requests[0]["Authorization"].removeprefix("Basic ")) == b"mary:hush"
