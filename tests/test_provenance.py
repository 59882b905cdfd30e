"""pipeline.provenance in real git repositories."""

import platform
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline import provenance
from pipeline.files import Project

LOCK = """
schema: '2.0'
stages:
  download:
    cmd: python -m pipeline.download
    outs:
    - path: data/test
      md5: 1111111111111111111111111111111a.dir
    - path: data/train
      md5: 2222222222222222222222222222222b.dir
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path)


@pytest.fixture
def repository(project: Project) -> Project:
    """A repository with one commit that also holds outputs of the pipeline."""
    project.params.write_text("train:\n  epochs: 1\n")
    for path in (project.dvc_lock, project.metrics, project.history):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old\n")
    git(project.root, "init", "--quiet")
    commit(project.root)
    return project


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=me", "-c", "user.email=me@example.org", "commit", "--quiet", "--message", "all")


def test_a_clean_repository_gives_its_commit(repository: Project) -> None:
    found = provenance.collect(repository)
    assert (found.git_commit, found.git_dirty) == (git(repository.root, "rev-parse", "HEAD"), False)


def test_a_changed_file_makes_it_dirty(repository: Project) -> None:
    repository.params.write_text("train:\n  epochs: 2\n")
    assert provenance.collect(repository).git_dirty is True


def test_outputs_and_untracked_files_do_not_make_it_dirty(repository: Project) -> None:
    for path in (repository.dvc_lock, repository.metrics, repository.history, repository.root / "notes.txt"):
        path.write_text("new\n")
    assert provenance.collect(repository).git_dirty is False


def test_code_outside_the_projects_folder_makes_it_dirty_too(repository: Project) -> None:
    inside = repository.root / "examples" / "digits"
    inside.mkdir(parents=True)
    (inside / "metrics.json").write_text("old\n")
    commit(repository.root)
    (inside / "metrics.json").write_text("new\n")
    assert provenance.collect(Project(inside, inside)).git_dirty is False
    repository.params.write_text("train:\n  epochs: 2\n")
    assert provenance.collect(Project(inside, inside)).git_dirty is True


def test_before_the_first_commit_nothing_is_known(project: Project) -> None:
    git(project.root, "init", "--quiet")
    found = provenance.collect(project)
    assert (found.git_commit, found.git_dirty) == (None, None)


def test_outside_a_repository_nothing_is_known(project: Project) -> None:
    found = provenance.collect(project)
    assert (found.git_commit, found.git_dirty) == (None, None)


def test_without_git_nothing_is_known(repository: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = provenance.collect(repository)
    assert (found.git_commit, found.git_dirty) == (None, None)


def test_the_data_is_identified_by_dvcs_hash_of_the_training_set(project: Project) -> None:
    project.dvc_lock.write_text(LOCK)
    assert provenance.collect(project).dvc_data_hash == "2222222222222222222222222222222b.dir"


@pytest.mark.parametrize(
    "lock", [None, "", "schema: '2.0'\n", "stages: []\n", "stages:\n  download:\n    outs:\n    - path: data\n", "{"]
)
def test_without_a_valid_lock_the_hash_of_the_data_is_unknown(project: Project, lock: str | None) -> None:
    if lock is not None:
        project.dvc_lock.write_text(lock)
    assert provenance.collect(project).dvc_data_hash is None


def test_the_versions_are_those_of_the_installed_packages(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    assert provenance.collect(project).versions == {"python": platform.python_version(), "torch": version("torch")}


def test_the_name_of_an_experiment_is_that_which_dvc_gives(repository: Project) -> None:
    found = provenance.collect(repository, {"DVC_EXP_NAME": "tarot-tipi"})
    assert provenance.tags(found)["dvc.experiment"] == "tarot-tipi"
    assert "dvc.experiment" not in provenance.tags(provenance.collect(repository, {}))


def test_tags_have_all_known_values_and_no_others(repository: Project) -> None:
    repository.dvc_lock.write_text(LOCK)
    found = provenance.collect(repository)
    tags = provenance.tags(found)
    assert (
        tags.items()
        >= {
            "git.commit": found.git_commit,
            "git.dirty": "false",
            "dvc.data": "2222222222222222222222222222222b.dir",
            "host": socket.gethostname(),
            "version.torch": version("torch"),
            "version.python": platform.python_version(),
            "mlflow.source.git.commit": found.git_commit,
            "mlflow.source.type": "LOCAL",
        }.items()
    )
    unknown = provenance.Provenance(None, None, None, {}, "Linux", "here")
    assert not {"git.commit", "git.dirty", "dvc.data", "mlflow.source.git.commit"} & set(provenance.tags(unknown))


def test_a_user_without_a_name_is_left_out(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(provenance.getpass, "getuser", unknown)
    assert "mlflow.user" not in provenance.tags(provenance.collect(project))


def test_the_source_is_the_program_without_its_folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/me/project/pipeline/train.py"])
    assert provenance.tags(provenance.collect(project))["mlflow.source.name"] == "pipeline/train.py"
