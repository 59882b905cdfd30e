"""What a team does with DVC: data and results shared by a remote, and experiments, each with its run in MLflow."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import requests
from commands import run
from deliveries import deliver
from extras import needed
from places import copy_example

from pipeline import config

# One process of pytest-xdist's for all of them: they share the project.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("team"), pytest.mark.background]

UP_TO_DATE = "Data and pipelines are up to date."
S3 = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example after `dvc repro` and a commit. To be left as it is."""
    root = tmp_path_factory.mktemp("team") / "project"
    root.mkdir()
    copy_example(root)
    config.write_values(root / "params.yaml", {"train.epochs": 1, "train.threads": 1})
    run(root, "git", "init", "--quiet")
    run(root, "dvc", "repro", "--quiet")
    deliver(root)
    run(root, "git", "add", "--all")
    run(root, "git", "commit", "--quiet", "--message", "first")
    return root


@pytest.fixture
def project(repeated: Path, tmp_path: Path) -> Path:
    root = tmp_path / "project"
    shutil.copytree(repeated, root)
    return root


@pytest.fixture
def s3() -> Iterator[str]:
    """The address of a server that speaks S3 and has the bucket `team`."""
    needed("moto")
    needed("dvc_s3")
    with subprocess.Popen(
        [sys.executable, "-c", S3], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        requests.put(f"{address}/team", timeout=30).raise_for_status()
        yield address
        server.communicate("")  # the end of its input ends it


def assert_is_shared(project: Path, clone: Path) -> None:
    """Pushes, loses everything, pulls: nothing has to run again, neither here nor in a clone."""
    run(project, "git", "commit", "--all", "--quiet", "--message", "a remote")
    assert re.search(r"\d+ files? pushed", run(project, "dvc", "push"))
    outs = {
        path: path.read_bytes()
        for name in ("data", "results")
        for path in (project / name).rglob("*.*")
        if path.is_file()
    }
    for name in ("data", "results", ".dvc/cache"):
        shutil.rmtree(project / name)
    run(project, "git", "checkout", "--", "results")
    run(project, "dvc", "pull", "--quiet")
    assert {path: path.read_bytes() for path in outs if path.name != "unreadable_images.txt"} == outs
    assert UP_TO_DATE in run(project, "dvc", "repro")
    run(project.parent, "git", "clone", "--quiet", str(project), str(clone))
    local = project / ".dvc" / "config.local"
    if local.exists():
        shutil.copy(local, clone / ".dvc")
    run(clone, "dvc", "pull", "--quiet")
    assert UP_TO_DATE in run(clone, "dvc", "repro")
    assert "identical: digits" in run(clone, sys.executable, "-m", "pipeline.download", "--check")


def test_a_folder_as_remote_brings_everything_back(project: Path, tmp_path: Path) -> None:
    run(project, "dvc", "remote", "add", "--default", "team", str(tmp_path / "remote"))
    assert_is_shared(project, tmp_path / "clone")


def test_a_bucket_as_remote_brings_everything_back(project: Path, tmp_path: Path, s3: str) -> None:
    run(project, "dvc", "remote", "add", "--default", "team", "s3://team/digits")
    run(project, "dvc", "remote", "modify", "team", "endpointurl", s3)
    run(project, "dvc", "remote", "modify", "team", "region", "us-east-1")
    for key in ("access_key_id", "secret_access_key"):
        run(project, "dvc", "remote", "modify", "--local", "team", key, "test")
    assert_is_shared(project, tmp_path / "clone")
    assert "test" not in (project / ".dvc" / "config").read_text()


def runs(project: Path) -> dict[str, mlflow.entities.Run]:
    """The runs in MLflow by the name of their experiment in DVC; "" is that of `dvc repro`."""
    deliver(project)
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.data.tags.get("dvc.experiment", ""): run for run in client.search_runs(experiments)}


def names(project: Path) -> set[str]:
    """The experiments that DVC shows."""
    shown = json.loads(run(project, "dvc", "exp", "show", "--json"))
    return {
        entry["name"]
        for base in shown
        for experiment in base["experiments"] or ()
        for entry in experiment["revs"]
        if entry["name"]
    }


def test_experiments_run_here_in_a_queue_and_in_a_copy_and_each_has_its_run(project: Path, tmp_path: Path) -> None:
    run(tmp_path, "git", "init", "--quiet", "--bare", "git-remote")
    run(project, "git", "remote", "add", "origin", str(tmp_path / "git-remote"))
    run(project, "dvc", "remote", "add", "--default", "team", str(tmp_path / "remote"))
    run(project, "git", "commit", "--all", "--quiet", "--message", "remotes")

    run(project, "dvc", "exp", "run", "--quiet", "--set-param", "train.learning_rate=0.05")
    (here,) = names(project)  # a name that DVC has made up
    run(project, "git", "checkout", "--quiet", "--", ".")
    rates = (0.01, 0.02, 0.2, 0.4)
    # Only what trains, which is what is looked at.
    for rate in rates:
        setting = f"train.learning_rate={rate}"
        run(
            project,
            "dvc",
            "exp",
            "run",
            "--queue",
            "--quiet",
            "--name",
            f"rate-{rate}",
            "--set-param",
            setting,
            "train",
        )
    run(project, "dvc", "exp", "run", "--run-all", "--quiet")
    run(project, "dvc", "exp", "run", "--temp", "--quiet", "--name", "aside", "--set-param", "train.epochs=2", "train")

    queued = {f"rate-{rate}": str(rate) for rate in rates}
    assert names(project) == {here, *queued, "aside"}
    found = runs(project)
    assert set(found) == {"", here, *queued, "aside"}
    for name in (here, *queued, "aside"):
        assert found[name].info.run_name == f"{name}: resnet8 on digits"
        assert found[name].info.status == "FINISHED"
    assert found[""].info.run_name == "resnet8 on digits"
    assert {name: found[name].data.params["train.learning_rate"] for name in queued} == queued
    assert found["aside"].data.params["train.epochs"] == "2"
    assert found[here].data.metrics["evaluate.accuracy"] > 0.1

    run(project, "dvc", "exp", "apply", "rate-0.2")
    assert config.load(project / "params.yaml").train.learning_rate == 0.2
    assert (
        json.loads((project / "results/train/run.json").read_bytes())["key"]
        == found["rate-0.2"].data.tags["pipeline.key"]
    )

    run(project, "dvc", "exp", "push", "origin", "rate-0.2")
    clone = tmp_path / "clone"
    run(project, "git", "push", "--quiet", "origin", "HEAD")
    run(tmp_path, "git", "clone", "--quiet", "git-remote", str(clone))
    run(clone, "dvc", "exp", "pull", "--quiet", "origin", "rate-0.2")
    run(clone, "dvc", "exp", "apply", "rate-0.2")
    assert (clone / "results/train/model.safetensors").read_bytes() == (
        project / "results/train/model.safetensors"
    ).read_bytes()
