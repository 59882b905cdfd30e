"""A search with all that is not on one machine: Ray, studies and runs in PostgreSQL, MLflow's server, an object store.

Each of them is away once, a node is taken away, and the owner is killed and goes on in another folder.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from extras import needed
from mlflow_server import MlflowServer
from objects import BUCKET, Objects, objects
from objects import SECRET as STORE_SECRET
from places import copy_example
from postgres import Server, free_port, postgres

from pipeline import config
from pipeline.audit.reproduction import Request, reproduced
from pipeline.files import Project
from pipeline.search.engines.store import Store
from pipeline.search.studies.ledger import Ledger

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("beyond")]

SECRETS = {"database": "frumentarius", "runs": "pomegranate", "store": STORE_SECRET}
TRIALS = 5
VALUES = ("train.epochs=16", "tune.confirm=0", "tune.scheduler=none")


@dataclass
class Away:
    """A search that is over."""

    here: Project
    """Where it began."""
    there: Project
    """Where it ended."""
    folder: Path
    """Holds both, and what the servers have written."""
    session: Path
    """Ray's folder."""
    database: Server
    mlflow: MlflowServer
    s3: Objects
    said: dict[str, str] = field(default_factory=dict)
    """What each owner has printed."""
    owners: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    command_lines: set[str] = field(default_factory=set)
    """Of all processes that were seen meanwhile."""


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    for name in ("ray", "psycopg", "s3fs", "moto"):
        needed(name)
    folder = tmp_path_factory.mktemp("away")
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        s3 = stack.enter_context(objects(folder))
        database = stack.enter_context(postgres(SECRETS["database"]))
        for name, value in {**s3.environment, "PGPASSWORD": SECRETS["database"], "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        runs = {
            "MLFLOW_BACKEND_STORE_URI": database.database("mlflow"),
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/mlflow",
        }
        mlflow = MlflowServer(free_port(), folder, runs)
        stack.callback(mlflow.stop)
        mlflow.start()
        mlflow.wait()
        patch.setenv("MLFLOW_TRACKING_URI", mlflow.address.replace("//", f"//me:{SECRETS['runs']}@"))
        cluster = stack.enter_context(_cluster())
        away = Away(
            here=_project(folder / "here", database),
            there=_project(folder / "there", database, data=False),
            folder=folder,
            session=Path(cluster.head_node.get_session_dir_path()),
            database=database,
            mlflow=mlflow,
            s3=s3,
        )
        shutil.copytree(away.here.data, away.there.data)
        stack.callback(lambda: [owner.kill() for owner in away.owners if owner.poll() is None])
        _search(away, cluster)
        yield away


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """A head node without cores, and two of one core."""
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args=options)
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    try:
        yield made
    finally:
        made.shutdown()


def _project(root: Path, database: Server, data: bool = True) -> Project:
    copy_example(root)
    config.write_values(root / "params.yaml", {"tune.storage": database.url, "tune.checkpoints": f"s3://{BUCKET}/hpo"})
    if data:
        subprocess.run([sys.executable, "-m", "pipeline.download"], cwd=root, check=True, stdout=subprocess.DEVNULL)
    return Project(root, root)


def _search(away: Away, cluster: Any) -> None:
    owner = _begun(away, "here", cluster.address)
    _until(away, owner, lambda: _epochs(away.here) >= 2)
    away.mlflow.stop()
    # No order ends while its files can't be stored: the search is not over soon after that.
    with away.s3.disturbed("503"):
        _until(away, owner, lambda: "trains on" in _said(away, "here"))
    away.mlflow.start()
    # Meanwhile the workers may have come to the ends of their orders. A node is drained in the middle of the next ones.
    known = _epochs(away.here)
    _until(away, owner, lambda: _epochs(away.here) > known + 1)
    _drain(cluster)
    _until(away, owner, lambda: "being taken away" in _said(away, "here"))
    known = _epochs(away.here)
    _until(away, owner, lambda: _epochs(away.here) > known)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    away.mlflow.wait()
    # What the killed owner had not sent is on its disk.
    sent = subprocess.run(
        [sys.executable, "-m", "pipeline.tracking"], cwd=away.here.root, capture_output=True, text=True, timeout=240
    )
    assert sent.returncode == 0, sent.stdout + sent.stderr
    owner = _begun(away, "there", cluster.address)
    _until(away, owner, lambda: owner.poll() is not None)
    assert owner.returncode == 0, _said(away, "there")
    away.said = {name: _said(away, name) for name in ("here", "there")}


def _begun(away: Away, name: str, address: str) -> "subprocess.Popen[bytes]":
    given = [word for value in VALUES for word in ("--set", value)]
    command = [sys.executable, "-m", "pipeline.tune", "--trials", str(TRIALS), *given]
    with (away.folder / f"{name}.log").open("wb") as log:
        command += ["--engine", "ray", "--address", address]
        environment = dict(os.environ)
        if name == "there":  # the other way to give a password
            environment |= {
                "MLFLOW_TRACKING_URI": away.mlflow.address,
                "MLFLOW_TRACKING_USERNAME": "me",
                "MLFLOW_TRACKING_PASSWORD": SECRETS["runs"],
            }
        away.owners.append(subprocess.Popen(command, cwd=away.folder / name, stdout=log, stderr=log, env=environment))
    return away.owners[-1]


def _said(away: Away, name: str) -> str:
    return (away.folder / f"{name}.log").read_text()


def _epochs(project: Project) -> int:
    """How many epochs the owner there has received."""
    return sum(len(path.read_text().splitlines()) for path in (project.home / ".studies").rglob("epochs.jsonl"))


def _until(away: Away, owner: "subprocess.Popen[bytes]", there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not there():
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                away.command_lines.add(" ".join(process.cmdline()))
        assert time.monotonic() < deadline, _said(away, "here")
        time.sleep(0.2)
        if owner.poll() is not None:
            break
    assert there(), "the search was over too early"


def _drain(cluster: Any) -> None:
    """What `ray start` says when it gets SIGTERM."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    node = next(iter(cluster.worker_nodes))
    deadline_ms = int((time.time() + 30) * 1000)
    accepted, why = GcsClient(address=cluster.address).drain_node(
        node.node_id, DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, "the machine is taken away", deadline_ms
    )
    assert accepted, why


@pytest.mark.usefixtures("one_thread")
def test_no_trial_is_lost_and_each_has_the_numbers_of_an_undisturbed_one(
    away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(away.there.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", away.mlflow.address)
    with Ledger.open(away.there, "main") as ledger:
        assert len(ledger.trials) == TRIALS
        assert {trial.state for trial in ledger.trials} <= {"finished", "pruned"}
        assert not [trial for trial in ledger.trials if trial.attributes.get("failure")]
    assert "crashed" not in away.said["here"], "a node that is taken away with a warning costs no retry"
    for number in range(TRIALS):
        found = reproduced(away.there, Request(None, "main", number), lambda about: None)
        assert found["verdict"] == "identical", (number, found["sentence"])


def test_checkpoints_are_in_the_store_alone_and_gone_when_the_search_is_over(
    away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in away.s3.environment.items():
        monkeypatch.setenv(name, value)
    left = Store(f"s3://{BUCKET}/hpo")._files(f"{BUCKET}/hpo")
    assert not [path for path in left if "checkpoint" in path]
    assert [path for path in left if path.endswith("model.safetensors")]
    for project in (away.here, away.there):
        assert not list((project.home / ".studies").rglob("checkpoint*"))
    assert list((away.there.home / ".studies").rglob("model.safetensors"))
    assert away.said["here"].count("trains on") == 1, "it is said once"


def test_runs_models_and_artifacts_have_arrived_at_the_server(away: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", away.mlflow.address)
    client = mlflow.MlflowClient(away.mlflow.address)
    experiment = client.get_experiment_by_name("pipeline")
    assert experiment
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    trials = {name.partition(":")[0]: run for name, run in runs.items() if name[0].isdecimal()}
    assert sorted(trials) == [str(number) for number in range(TRIALS)]
    assert runs["study main"].info.status == "FINISHED"
    assert {run.info.status for run in trials.values()} <= {"FINISHED", "KILLED"}
    finished = [run for run in trials.values() if run.info.status == "FINISHED"]
    assert finished
    for run in trials.values():
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train.validation_accuracy")]
        assert sorted(set(steps)) == list(range(1, max(steps) + 1))
    assert all(client.list_artifacts(run.info.run_id) for run in finished)
    for run in finished:  # a trial that ended just before the first owner was killed too
        (output,) = run.outputs.model_outputs
        assert mlflow.pytorch.load_model(f"models:/{output.model_id}")


def test_passwords_appear_nowhere(away: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in away.s3.environment.items():
        monkeypatch.setenv(name, value)
    words = {secret.encode(): name for name, secret in SECRETS.items()}
    found = [f"{words[word]} in: {line}" for line in away.command_lines for word in words if word.decode() in line]
    folders = [away.folder, away.session, away.database.folder]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    for path in files:
        content = path.read_bytes()
        found += [f"{name} in: {path}" for word, name in words.items() if word in content]
    store = Store(f"s3://{BUCKET}/")
    stored = store._files(BUCKET)
    assert stored
    for name in stored:
        content = store._fs.cat_file(name)
        found += [f"{about} in: {name}" for word, about in words.items() if word in content]
    assert not found, json.dumps(sorted(found), indent=1)
    assert any("pipeline.tune" in line for line in away.command_lines)
