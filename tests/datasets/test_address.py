"""data.url: URLs and paths."""

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
