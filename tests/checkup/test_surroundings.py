import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from pipeline.checkup import surroundings
from pipeline.files import Project
from pipeline.findings import Finding, Looked, Weight
from pipeline.machine import Machine


def findings(report: Iterable[Finding | Looked]) -> list[Finding]:
    return [one for one in report if isinstance(one, Finding)]


def only(report: Iterable[Finding | Looked]) -> Finding:
    (finding,) = findings(report)
    return finding


def paths(**given: str | None) -> Callable[[str], str | None]:
    beside = Path(sys.executable).parent
    return lambda name: given[name] if name in given else str(beside / name)


def test_git_dvc_and_python_must_be_there(project: Project) -> None:
    assert only(surroundings.tools(project, paths())).remedy == "git init"
    subprocess.run(["git", "init", "--quiet"], cwd=project.root, check=True)
    assert not findings(surroundings.tools(project, paths()))
    assert only(surroundings.tools(project, paths(git=None))).what == "git is not installed"
    assert only(surroundings.tools(project, paths(dvc=None))).what == "`dvc` is not in PATH"
    assert only(surroundings.tools(project, paths(python=None))).weight is Weight.ERROR
    other = only(surroundings.tools(project, paths(python="/no/python")))
    assert (other.weight, other.remedy) == (Weight.WARNING, f"source {Path(sys.executable).parent}/activate")
    (project.root / ".dvc").rename(project.root / "dvc")
    assert only(surroundings.tools(project, paths())).remedy == "dvc init"


def test_a_user_without_a_name_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=project.root, check=True)

    def nameless() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert only(surroundings.tools(project, paths())).remedy == "export LOGNAME=me"


def test_versions_are_compared_with_constraints_if_there_are_any(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    assert not list(surroundings.versions(pins))
    pins.write_text("# Made by pip freeze\ntorch==2.14.1\nmlflow==3.17.2\nkiwisolver==1.5.1\n")

    def installed(name: str) -> str:
        if name == "kiwisolver":
            raise PackageNotFoundError
        return {"torch": "2.14.1+cu130", "mlflow": "3.18.0"}[name]

    finding = only(surroundings.versions(pins, installed=installed))
    assert finding.what.endswith("constraints.txt: mlflow 3.18.0 (pinned: 3.17.2)")
    old = only(surroundings.versions(tmp_path / "none", python=(3, 10, 4)))
    assert old.what == "Python is 3.10.4, and 3.11 is needed"


@pytest.mark.parametrize(
    ("torch", "environment", "remedy"),
    [
        ("2.14.1+cu130", {"CUDA_VISIBLE_DEVICES": ""}, "unset CUDA_VISIBLE_DEVICES"),
        ("2.14.1+cpu", {}, "pip install --force-reinstall torch==2.14.1"),
        ("2.14.1+cu130", {}, 'python -c "import torch; torch.cuda.init()" says why'),
    ],
)
def test_a_gpu_that_pytorch_does_not_see_is_named(torch: str, environment: dict[str, str], remedy: str) -> None:
    assert not list(surroundings.gpu(False, Machine(cores=1), torch, environment))
    assert not findings(surroundings.gpu(True, Machine(cores=1, cuda_devices=1), torch, environment))
    assert only(surroundings.gpu(True, Machine(cores=1), torch, environment)).remedy.startswith(remedy)


def test_signs_of_a_gpu_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    sign = tmp_path / "nvidia0"
    assert not surroundings.nvidia_is_there((sign,))
    sign.touch()
    assert surroundings.nvidia_is_there((sign,))


def test_little_space_is_a_warning_and_none_an_error(project: Project) -> None:
    project.train.mkdir(parents=True)
    project.model.write_bytes(bytes(10_000_000))
    assert not findings(surroundings.disk(project, 10**13))
    assert only(surroundings.disk(project, 10**9)).what == (
        "1.0 GB are free; the data and the checkpoints of a search may take 1.2 GB more"  # 20 trials, 6 times 10 MB
    )
    assert only(surroundings.disk(project, 10**6)).weight is Weight.ERROR


def test_what_can_not_be_written_is_named(project: Project) -> None:
    assert not findings(surroundings.writable(project))
    finding = only(surroundings.writable(project, lambda path, mode: path.name not in ("data", "dvc.lock")))
    assert finding.what == "data can't be written"
    assert finding.remedy == "chmod -R u+w data, or sudo chown -R $USER data"
