import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.files import Project, atomic_write, is_locked


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "results" / "metrics.json"
    with atomic_write(path) as aside:
        aside.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_after_an_error_the_file_is_unchanged_and_no_other_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("before")
    with pytest.raises(RuntimeError), atomic_write(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_while_writing_leaves_the_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("before")
    code = (
        "import os, sys, pathlib, signal\n"
        "from pipeline.files import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as aside:\n"
        "    aside.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert path.read_text() == "before"


def test_files_get_the_permissions_that_the_user_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with atomic_write(path) as aside:
        aside.write_text("whole")
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_the_home_of_a_project_is_where_its_dvc_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "examples" / "flowers"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert Project.here() == Project(inside, inside)
    (tmp_path / ".dvc").mkdir()
    assert Project.here() == Project(inside, tmp_path)


def test_a_copy_of_dvc_for_an_experiment_has_the_real_project_as_its_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "one"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    project = Project.here()
    assert (project.params.parent, project.checkpoints.parent, project.downloads.parent) == (copy, tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["weights/own.pth", "./weights/own.pth", "weights"])
def test_a_path_of_params_yaml_starts_in_the_copy_of_an_experiment_and_then_in_the_project(
    tmp_path: Path, name: str
) -> None:
    project = Project(tmp_path / "copy", tmp_path / "home")
    assert project.given_path(name) == tmp_path / "copy" / name
    for folder in ("home", "copy"):
        (tmp_path / folder / "weights").mkdir(parents=True)
        (tmp_path / folder / "weights" / "own.pth").touch()
        assert project.given_path(name) == tmp_path / folder / name
    assert project.given_path(str(tmp_path)) == tmp_path


def test_a_path_of_params_yaml_may_begin_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Project(Path("/a"), Path("/b")).given_path("~/own.pth") == tmp_path / "own.pth"


def test_whether_a_lock_is_held_is_seen_without_changing_it(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert not is_locked(path)
    assert not path.exists()
    with FileLock(path):
        assert is_locked(path)
    assert not is_locked(path)
