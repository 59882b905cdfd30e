"""A search on a Ray cluster whose nodes are lost in the middle."""

import functools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from chaos import mlflow_ledger, optuna_ledger
from extras import needed

from pipeline import config
from pipeline.audit.reproduction import Request, reproduced
from pipeline.batches.images import load_images
from pipeline.files import Project
from pipeline.records import load_meta
from pipeline.search.engines.base import Failed, Order
from pipeline.search.engines.trainer import Hardware

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(500), pytest.mark.xdist_group("engines")]

LOSSES = 10
TRIALS = 6
VALUES = ("train.epochs=12", "tune.confirm=0", "tune.retries=30", "tune.scheduler=asha")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head node for the owner, without cores, and two nodes of one core."""
    needed("ray")
    from ray.cluster_utils import Cluster

    store = 100 * 2**20
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": store},
    )
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=store)
    yield made
    made.shutdown()


@pytest.mark.usefixtures("one_thread")
def test_nodes_that_are_lost_cost_no_trial_and_change_no_number(cluster: Any, project: Project) -> None:
    given = [word for value in VALUES for word in ("--set", value)]
    command = [sys.executable, "-m", "pipeline.tune", "--trials", str(TRIALS), *given]
    command += ["--engine", "ray", "--address", cluster.address]
    draw = random.Random(0)
    lost = 0
    with (project.root / "log").open("wb") as log:
        owner = subprocess.Popen(command, stdout=log, stderr=log)
        while owner.poll() is None:
            time.sleep(draw.uniform(1, 5))
            if lost < LOSSES and project.optuna_journal.exists():
                node = draw.choice(list(cluster.worker_nodes))
                cluster.remove_node(node, allow_graceful=False)
                lost += 1
                time.sleep(draw.uniform(0, 2))
                cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        assert owner.wait() == 0, (project.root / "log").read_text()
    assert lost >= LOSSES // 2, "the search was over too early"
    said = (project.root / "log").read_text()
    assert "(raylet)" in said
    assert "accessor.cc" not in said, "pages of a node's log"
    trials = optuna_ledger(project.root, "main")
    assert len(trials) == TRIALS
    assert {trial["state"] for trial in trials} <= {"COMPLETE", "PRUNED"}
    runs = {name: run for name, run in mlflow_ledger(project.root).items() if name.startswith("trial")}
    assert {run["status"] for run in runs.values()} <= {"FINISHED", "KILLED"}
    for number in range(TRIALS):
        found = reproduced(project, Request(None, "main", number), lambda about: None)
        assert found["verdict"] == "identical", (number, found["sentence"])


def test_workers_that_never_begin_end_the_search(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("ray")
    from pipeline.search.engines import ray as module

    monkeypatch.setattr(module, "STARTS", 2)
    meta = load_meta(project.meta)
    images = load_images(project.training_data, meta)
    fails = functools.partial(os._exit, 1)
    spec = module.RaySpec(meta, images, Hardware("cpu", 1, "fp32"), {"CPU": 1.0}, project.root, most=1, setup=fails)
    order = Order(0, {}, config.load(project.params), 3, 0, project.root / "trial")
    with closing(module.RayEngine(spec, cores=1)) as engine:
        engine.submit(order)
        assert isinstance(engine.next(60), Failed)
        engine.submit(order)
        with pytest.raises(module.Stuck, match="lost 2 times before they began"):
            engine.next(60)


def test_a_cluster_that_is_not_there_is_a_sentence(project: Project) -> None:
    needed("ray")
    command = [sys.executable, "-m", "pipeline.tune", "--trials", "2", "--engine", "ray", "--address"]
    done = subprocess.run([*command, "127.0.0.1:1"], cwd=project.root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "error: The Ray cluster at 127.0.0.1:1 can't be used" in done.stderr
    assert "Traceback" not in done.stderr
