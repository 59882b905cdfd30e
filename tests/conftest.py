"""Small real things that many tests need."""

import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from places import QUICK_STUDY, REPOSITORY, copy_example
from stripes import striped

from pipeline import config
from pipeline.batches.images import Images
from pipeline.config import Config
from pipeline.files import Project
from pipeline.machine import Machine
from pipeline.records import Meta
from pipeline.training.device import Device

LONGEST = ("test_demo.py", "test_chaos.py")
COSTLY = ("searched", "studied", "undisturbed", "written")
"""Fixtures that take seconds: one process of pytest-xdist's makes each, and has all the tests that share it."""


def pytest_configure(config: pytest.Config) -> None:
    # What a test promises to the bit holds on a CPU. Only `-m gpu` lets tests, and what they start, see a GPU.
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What takes minutes begins first, so that no process is left alone with it at the end.
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        for name in COSTLY:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(autouse=True, scope="session")
def heeded_interrupts() -> None:
    """A shell starts what it puts in the background with Ctrl-C ignored, nohup ignores SIGHUP; children inherit it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the shell decides what a test sees."""
    variables = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
    for name in (*variables, "DVC_ROOT", "DVC_EXP_NAME", "GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(autouse=True)
def no_process_in_the_background(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of this process start none that sends to MLflow: `deliveries.deliver` sends, without importing it anew."""
    if "background" not in request.keywords:
        monkeypatch.setattr("pipeline.tracking.handover.serve_in_background", lambda project, store: None)


@pytest.fixture
def settings() -> Config:
    """The example's, a training of seconds."""
    return config.load(REPOSITORY / "examples" / "digits" / "params.yaml")


@pytest.fixture
def cpu() -> Device:
    return Device.choose("cpu", "fp32", 1, Machine(cores=1))


@pytest.fixture
def meta() -> Meta:
    return Meta(
        "stripes", ("low", "high"), (3, 8, 8), (0.5,) * 3, (0.25,) * 3, {"train": 64, "test": 16}, "sha256:0", ""
    )


@pytest.fixture
def images() -> Images:
    return striped(8)


@pytest.fixture(scope="session")
def _digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder in which the stage download has run."""
    root = tmp_path_factory.mktemp("digits")
    copy_example(root)
    subprocess.run([sys.executable, "-m", "pipeline.download"], cwd=root, check=True, stdout=subprocess.DEVNULL)
    return root


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes seconds, copying it none."""
    from mlflow import MlflowClient

    database = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*noload", DeprecationWarning)
        MlflowClient(f"sqlite:///{database}")
    return database


@pytest.fixture(scope="session")
def searched(_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which a study of 5 trials is over; what it printed as JSON is in study.out. To be left as it is."""
    root = tmp_path_factory.mktemp("searched") / "project"
    shutil.copytree(_digits, root)
    command = [sys.executable, "-m", "pipeline.tune", "--trials", "5", *QUICK_STUDY, "--json"]
    (root / "study.out").write_bytes(subprocess.check_output(command, cwd=root, timeout=240))
    return root


@pytest.fixture
def project(_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The example in a folder of its own, downloaded; it is the working directory."""
    root = tmp_path / "project"
    shutil.copytree(_digits, root)
    monkeypatch.chdir(root)
    return Project(root, root)


@pytest.fixture
def change(project: Project) -> Callable[[str, str], None]:
    """Sets a value in the project's params.yaml, where it may be a default: change("epochs: 6", "epochs: 3")."""

    def changed(old: str, new: str) -> None:
        text = project.params.read_text()
        if f" {old} " in text:  # also to a value that no search would try
            assert text.count(f" {old} ") == 1, old
            project.params.write_text(text.replace(f" {old} ", f" {new} "))
            return
        key, _, before = old.partition(": ")
        (name,) = [
            name
            for name, value in config.load(project.params).values().items()
            if name.endswith(f".{key}") and value == config.parse_value(before, name)
        ]
        config.write_values(project.params, {name: config.parse_value(new.partition(": ")[2], name)})

    return changed


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
