"""pipeline.exporting.process: MLflow loads the models that it writes, and they are compared with their networks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
import torch
from places import REPOSITORY

from pipeline import config, networks
from pipeline.config import Model
from pipeline.exporting import process
from pipeline.exporting.process import NICENESS, Done, Exporter
from pipeline.files import Project
from pipeline.records import Meta, load_meta

pytestmark = [
    pytest.mark.slow,
    # MLflow is used here directly too; pipeline.tracking has these filters of its own.
    pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning", "ignore:.*Any type hint is inferred:UserWarning"),
]

SMALL = config.load(REPOSITORY / "examples" / "digits" / "params.yaml").model
WIDER = SMALL.model_copy(update={"width": 6})


@pytest.fixture
def exporter(project: Project) -> Iterator[Exporter]:
    exporter = Exporter(project.meta, project.training_data)
    yield exporter
    exporter.close()


def trained(model: Model, meta: Meta, seed: int, path: Path) -> networks.Classifier:
    """A network whose weights and batch norms are its own, and its weights in `path`."""
    network = networks.build(model, meta, seed)
    torch.manual_seed(seed)
    network(torch.randint(0, 256, (16, *meta.shape), dtype=torch.uint8))
    networks.save(network, path)
    return network.eval()


def wait_until(true: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for(exporter: Exporter, count: int) -> list[Done]:
    done: list[Done] = []

    def has_all() -> bool:
        done.extend(exporter.done())
        return len(done) >= count

    wait_until(has_all, timeout_s=100)
    return sorted(done)


def process_of(exporter: Exporter) -> psutil.Process:
    assert exporter.pid
    return psutil.Process(exporter.pid)


def test_models_give_exactly_their_own_networks_logits(exporter: Exporter, project: Project, tmp_path: Path) -> None:
    meta = load_meta(project.meta)
    networks = []
    for number, model in enumerate((SMALL, SMALL, WIDER, SMALL)):
        networks.append(trained(model, meta, number, tmp_path / f"{number}.safetensors"))
        begun = time.monotonic()
        exporter.submit(number, tmp_path / f"{number}.safetensors", model, tmp_path / f"model-{number}")
        assert time.monotonic() - begun < 1
    assert wait_for(exporter, 4) == [Done(number, tmp_path / f"model-{number}", None) for number in range(4)]
    assert exporter.open_jobs == 0
    pixels = np.random.default_rng(0).integers(0, 256, (5, *meta.shape), dtype=np.uint8)
    uuids = set()
    for number, network in enumerate(networks):
        with torch.no_grad():
            expected = network(torch.from_numpy(pixels))
            assert torch.equal(
                mlflow.pytorch.load_model(str(tmp_path / f"model-{number}"))(torch.from_numpy(pixels)), expected
            )
        function = mlflow.pyfunc.load_model(str(tmp_path / f"model-{number}"))
        found = [list(one["probabilities"].values()) for one in function.predict(pixels)]
        np.testing.assert_allclose(found, expected.double().softmax(1).numpy(), rtol=1e-5, atol=1e-6)
        uuids.add(function.metadata.model_uuid)
        assert function.metadata.metadata == network.description
    assert len(uuids) == 4


def test_a_model_that_cannot_be_written_is_reported_and_the_next_one_is_written(
    exporter: Exporter, project: Project, tmp_path: Path
) -> None:
    trained(WIDER, load_meta(project.meta), 0, tmp_path / "weights.safetensors")
    exporter.submit(1, tmp_path / "missing.safetensors", SMALL, tmp_path / "model-1")
    exporter.submit(2, tmp_path / "weights.safetensors", SMALL, tmp_path / "model-2")
    exporter.submit(3, tmp_path / "weights.safetensors", WIDER, tmp_path / "model-3")
    missing, other, whole = wait_for(exporter, 3)
    assert missing.error and "missing.safetensors is missing" in missing.error
    assert other.error and "does not hold the network" in other.error
    assert whole.error is None
    assert sorted(path.name for path in tmp_path.glob("*model-*")) == ["model-3"]


def test_a_process_that_dies_is_replaced_and_its_jobs_are_done(
    exporter: Exporter, project: Project, tmp_path: Path
) -> None:
    trained(SMALL, load_meta(project.meta), 0, tmp_path / "weights.safetensors")
    for number in range(6):
        exporter.submit(number, tmp_path / "weights.safetensors", SMALL, tmp_path / f"model-{number}")
    process_of(exporter).kill()
    assert [done.error for done in wait_for(exporter, 6)] == [None] * 6


def test_a_job_over_which_the_process_dies_twice_is_given_up(
    exporter: Exporter, project: Project, tmp_path: Path
) -> None:
    trained(SMALL, load_meta(project.meta), 0, tmp_path / "weights.safetensors")
    exporter.submit(1, tmp_path / "weights.safetensors", SMALL, tmp_path / "model-1")
    exporter.submit(2, tmp_path / "weights.safetensors", SMALL, tmp_path / "model-2")
    done: list[Done] = []
    for _ in range(2):
        process = process_of(exporter)
        process.kill()
        wait_until(lambda process=process: process.status() == psutil.STATUS_ZOMBIE)
        done += exporter.done()  # finds it dead
        done += exporter.done()  # starts another
    assert done == [Done(1, tmp_path / "model-1", "the process that writes it died 2 times")]
    assert wait_for(exporter, 1) == [Done(2, tmp_path / "model-2", None)]


def test_the_process_has_a_low_priority_and_ignores_ctrl_c(
    exporter: Exporter, project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trained(SMALL, load_meta(project.meta), 0, tmp_path / "weights.safetensors")
    exporter.submit(1, tmp_path / "weights.safetensors", SMALL, tmp_path / "model-1")
    process = process_of(exporter)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid, number)  # it may not have come to its first line yet
    assert wait_for(exporter, 1) == [Done(1, tmp_path / "model-1", None)]
    assert process.nice() == min(19, os.nice(0) + NICENESS)  # tests may have a low priority too
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid, number)
    time.sleep(0.3)
    assert process.is_running()
    begun = time.monotonic()
    assert exporter.close() == []
    assert time.monotonic() - begun < 2
    assert not process.is_running()
    assert capfd.readouterr().err == ""


def test_closing_waits_for_the_submitted_models(exporter: Exporter, project: Project, tmp_path: Path) -> None:
    trained(SMALL, load_meta(project.meta), 0, tmp_path / "weights.safetensors")
    exporter.submit(1, tmp_path / "weights.safetensors", SMALL, tmp_path / "model-1")
    assert exporter.close(wait_s=100) == [Done(1, tmp_path / "model-1", None)]


@pytest.mark.parametrize("end", ["raise SystemExit", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_process_ends_with_its_parent_which_imports_neither_torch_nor_mlflow(
    project: Project, tmp_path: Path, end: str
) -> None:
    trained(SMALL, load_meta(project.meta), 0, tmp_path / "weights.safetensors")
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time; from pathlib import Path\n"
        "from pipeline import config; from pipeline.exporting.process import Exporter\n"
        "from pipeline.files import Project\n"
        "if __name__ == '__main__':\n"
        "    project, here = Project.here(), Path(sys.argv[1])\n"
        "    exporter = Exporter(project.meta, project.training_data)\n"
        "    model = config.load(project.params).model\n"
        "    for number in range(3):\n"
        "        exporter.submit(number, here / 'weights.safetensors', model, here / f'model-{number}')\n"
        "    assert not {'torch', 'mlflow'} & set(sys.modules)\n"
        "    print(exporter.pid, flush=True)\n"
        f"    {end}\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], cwd=project.root, stdout=subprocess.PIPE, text=True, timeout=60
    )
    pid = int(done.stdout)
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_the_process_hides_gpus_before_it_imports_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Gone:
        def recv(self) -> None:
            raise EOFError

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(os, "nice", lambda by: os.environ["CUDA_VISIBLE_DEVICES"] == "" or pytest.fail("not hidden"))
    process._work(Gone(), tmp_path, tmp_path)  # type: ignore[arg-type]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
