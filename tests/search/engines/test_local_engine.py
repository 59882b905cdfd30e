import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import workers
from places import REPOSITORY

from pipeline import config
from pipeline.config import Config
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.records import Epoch
from pipeline.search.engines import worker
from pipeline.search.engines.base import EpochDone, Failed, Message, Order, Paused, Stuck, TargetReached
from pipeline.search.engines.local import LocalEngine
from pipeline.search.engines.trainer import Hardware
from pipeline.search.engines.worker import WorkerSpec

# One process of pytest-xdist's for all of them: many share a worker, which takes seconds to start.
pytestmark = pytest.mark.xdist_group("local engine")

Engines = Callable[..., LocalEngine]
PATIENCE_S = 90.0
CPU = Hardware("cpu", 1, "fp32")


@pytest.fixture
def engines(project: Project) -> Iterator[Engines]:
    made = []

    def make(number: int = 1, main: Any = worker.main) -> LocalEngine:
        specs = [
            WorkerSpec(project.meta, project.training_data, CPU, project.root / f"worker-{index}.log")
            for index in range(number)
        ]
        made.append(LocalEngine(specs, main))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(scope="module")
def _hired(_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    digits = Project(_digits, _digits)
    log = tmp_path_factory.mktemp("worker") / "log"
    with closing(LocalEngine([WorkerSpec(digits.meta, digits.training_data, CPU, log)])) as engine:
        yield engine


@pytest.fixture
def engine(_hired: LocalEngine) -> Iterator[LocalEngine]:
    """One healthy worker, which tests share: it is to be left alive and free."""
    yield _hired
    for trial in range(5):
        _hired.stop(trial)  # of a test that failed
    while _hired.next(0):
        pass


@pytest.fixture
def settings(project: Project) -> Config:
    return config.load(project.params, {"train.epochs": 4})


def order(project: Project, settings: Config, until: int, trial: int = 0, known: int = 0, **values: Any) -> Order:
    folder = project.root / "trials" / str(trial)
    return Order(trial, values, settings.with_values(values), until, known, folder)


def messages_of(engine: LocalEngine, last: type = TargetReached) -> list[Message]:
    """Messages up to the first one of a kind."""
    found: list[Message] = []
    deadline = time.monotonic() + PATIENCE_S
    while not found or not isinstance(found[-1], last):
        message = engine.next(1)
        if message:
            found.append(message)
        assert time.monotonic() < deadline, found
    return found


def epochs(messages: list[Message]) -> list[Epoch]:
    return [message.epoch for message in messages if isinstance(message, EpochDone)]


def figures(messages: list[Message]) -> list[tuple[float, ...]]:
    return [
        (epoch.number, epoch.training_loss, epoch.validation_loss, epoch.validation_accuracy)
        for epoch in epochs(messages)
    ]


def test_a_trial_that_pauses_and_resumes_has_the_numbers_of_one_that_did_not(
    engine: LocalEngine, project: Project, settings: Config
) -> None:
    engine.submit(order(project, settings, 4, trial=0))
    at_once = messages_of(engine)
    engine.submit(order(project, settings, 1, trial=1))
    first = messages_of(engine)
    # Something else in between, in the same process.
    engine.submit(order(project, settings, 1, trial=2, **{"train.learning_rate": 0.3}))
    messages_of(engine)
    engine.submit(order(project, settings, 4, trial=1, known=1))
    then = messages_of(engine)
    assert figures(first) + figures(then) == figures(at_once)
    assert at_once[-1].confusion == then[-1].confusion  # type: ignore[union-attr]
    assert (project.root / "trials" / "1" / "model.safetensors").read_bytes() == (
        project.root / "trials" / "0" / "model.safetensors"
    ).read_bytes()


def test_an_order_that_was_reached_before_is_reported_again_without_training(
    engine: LocalEngine, project: Project, settings: Config
) -> None:
    engine.submit(order(project, settings, 3))
    before = messages_of(engine)
    engine.submit(order(project, settings, 3, known=1))
    again = messages_of(engine)
    assert figures(again) == figures(before)[1:]
    assert again[-1].confusion == before[-1].confusion  # type: ignore[union-attr]
    # What the checkpoint has, times too: nothing was trained a second time.
    assert epochs(again) == epochs(before)[1:]


def test_the_confusion_matrix_counts_the_validation_images_and_fits_the_accuracy(
    engine: LocalEngine, project: Project, settings: Config
) -> None:
    engine.submit(order(project, settings, 2))
    messages = messages_of(engine)
    reached = messages[-1]
    assert isinstance(reached, TargetReached)
    images = sum(map(sum, reached.confusion))
    assert images == reached.worker.counts["validation"]
    right = sum(row[index] for index, row in enumerate(reached.confusion))
    assert right / images == pytest.approx(epochs(messages)[-1].validation_accuracy)
    assert reached.worker.device["threads"] == 1


@pytest.mark.slow
def test_two_workers_train_side_by_side(engines: Engines, project: Project, settings: Config) -> None:
    engine = engines(2)
    assert engine.free == len(engine.processes) == 2
    engine.submit(order(project, settings, 2, trial=0))
    engine.submit(order(project, settings, 2, trial=1))
    assert engine.free == 0
    messages = messages_of(engine)
    messages += messages_of(engine)
    assert {message.trial for message in messages} == {0, 1}
    assert figures([m for m in messages if m.trial == 0]) == figures([m for m in messages if m.trial == 1])
    assert engine.free == 2


def test_a_worker_that_is_still_loading_pauses_after_its_first_epoch(
    engines: Engines, project: Project, settings: Config
) -> None:
    for dies in (False, True):
        engine = engines()
        engine.submit(order(project, settings.with_values({"train.epochs": 500}), until=500, trial=int(dies)))
        engine.pause()
        if dies:
            os.kill(engine.processes[0], signal.SIGKILL)
        assert len([message for message in messages_of(engine, Paused) if isinstance(message, EpochDone)]) == 1
        engine.close()


def test_workers_pause_after_their_current_epoch(engine: LocalEngine, project: Project, settings: Config) -> None:
    engine.submit(order(project, settings.with_values({"train.epochs": 50}), 50))
    messages = messages_of(engine, EpochDone)
    engine.pause()
    messages += messages_of(engine, Paused)
    assert len(epochs(messages)) < 50
    assert engine.free == 1


def test_a_diverged_training_is_reported_and_the_worker_stays_alive(
    engine: LocalEngine, project: Project, settings: Config
) -> None:
    before = engine.processes
    # Each step multiplies the weights by about -99.
    bad = {"train.learning_rate": 100.0, "train.weight_decay": 1.0, "train.schedule": "constant"}
    engine.submit(order(project, settings, 4, **bad))
    failed = messages_of(engine, Failed)[-1]
    assert isinstance(failed, Failed)
    assert failed.outcome == "diverged"
    assert "train.learning_rate" in failed.why
    engine.submit(order(project, settings, 1, trial=1))
    messages_of(engine)
    assert engine.processes == before


def test_an_allocation_that_really_fails_is_reported_as_out_of_memory_and_the_worker_stays_alive(
    engine: LocalEngine, project: Project, settings: Config
) -> None:
    engine.submit(order(project, settings, 1))
    messages_of(engine)
    (pid,) = engine.processes
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    used = psutil.Process(pid).memory_info().vms
    resource.prlimit(pid, resource.RLIMIT_AS, (used + 200 * 2**20, hard))
    engine.submit(order(project, settings, 1, trial=1, **{"model.width": 512, "train.batch_size": 1024}))
    failed = messages_of(engine, Failed)[-1]
    assert isinstance(failed, Failed)
    assert failed.outcome == "out of memory", failed.why
    resource.prlimit(pid, resource.RLIMIT_AS, (hard, hard))
    engine.submit(order(project, settings, 1, trial=2))
    messages_of(engine)
    assert engine.processes == [pid]


@pytest.mark.slow
def test_a_worker_that_kills_itself_is_replaced_and_the_trial_resumes_with_the_same_numbers(
    engine: LocalEngine, engines: Engines, project: Project, settings: Config
) -> None:
    engine.submit(order(project, settings, 4, trial=0))
    undisturbed = messages_of(engine)
    faulty = engines(1, workers.kills_itself_once)
    faulty.submit(order(project, settings, 4, trial=1))
    messages = messages_of(faulty, Failed)
    failed = messages[-1]
    assert isinstance(failed, Failed)
    assert (failed.trial, failed.outcome) == (1, "crashed")
    assert "SIGKILL" in failed.why
    faulty.submit(order(project, settings, 4, trial=1, known=len(epochs(messages))))
    assert figures(messages) + figures(messages_of(faulty)) == figures(undisturbed)


def test_a_worker_whose_gpu_is_broken_is_replaced_before_its_next_order(
    engines: Engines, project: Project, settings: Config
) -> None:
    engine = engines(1, workers.breaks_once)
    before = engine.processes
    engine.submit(order(project, settings, 4))
    messages = messages_of(engine, Failed)
    failed = messages[-1]
    assert isinstance(failed, Failed)
    assert failed.outcome == "crashed"
    assert "an illegal memory access" in failed.why
    assert engine.processes != before
    assert engine.free == 1
    engine.submit(order(project, settings, 4, known=len(epochs(messages))))
    assert [epoch.number for epoch in epochs(messages_of(engine))] == [3, 4]


@pytest.mark.slow
def test_a_worker_that_hangs_can_be_stopped_and_sends_no_more_messages(
    engines: Engines, project: Project, settings: Config
) -> None:
    engine = engines(1, workers.hangs_once)
    engine.submit(order(project, settings, 4))
    messages = messages_of(engine, EpochDone)
    messages += messages_of(engine, EpochDone)
    assert engine.next(1.0) is None
    engine.stop(0)
    assert engine.free == 1
    engine.submit(order(project, settings, 4, known=2))
    assert [epoch.number for epoch in epochs(messages_of(engine))] == [3, 4]


def test_an_error_in_a_training_is_reported_with_its_traceback(
    engines: Engines, project: Project, settings: Config
) -> None:
    engine = engines(1, workers.raises)
    engine.submit(order(project, settings, 4))
    failed = messages_of(engine, Failed)[-1]
    assert isinstance(failed, Failed)
    assert failed.outcome == "crashed"
    assert "ZeroDivisionError: a bug in the network" in failed.why


NO_NETWORK = {"model.family": "vgg11"}
WEIGHTS = {"model.family": "torchvision", "model.name": "shufflenet_v2_x0_5", "model.stem": "small"}


@pytest.mark.parametrize(
    ("searched", "values", "sentence"),
    [
        (("model.family",), NO_NETWORK, "model.family vgg11 halves images until 32 x 32 pixels are one"),
        (
            ("model.stem", "model.width"),
            {"model.family": "torchvision", "model.stem": "imagenet"},
            "halves images until",
        ),
        (("augment.small_side",), {"augment.small_side": 0.25}, "augment.small_side is 0.25, which makes images of 2"),
        (("model.weights",), WEIGHTS | {"model.weights": "none.pth"}, "there is no file"),
        (("model.name",), WEIGHTS | {"model.weights": "params.yaml"}, "can't be read as weig"),
    ],
)
def test_a_searched_value_that_can_not_work_ends_its_trial_and_the_worker_stays_alive(
    engine: LocalEngine, project: Project, settings: Config, searched: list[str], values: dict[str, Any], sentence: str
) -> None:
    given = order(project, settings.with_values(values), 4)
    engine.submit(replace(given, values={key: given.config.values()[key] for key in searched}))
    failed = messages_of(engine, Failed)[-1]
    assert isinstance(failed, Failed)
    assert failed.outcome is Outcome.IMPOSSIBLE
    assert sentence in failed.why
    engine.submit(order(project, settings, 1, trial=1))
    assert len(epochs(messages_of(engine))) == 1


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (NO_NETWORK, "model.family vgg11 halves images until 32 x 32 pixels are one"),
        ({"augment.small_side": 0.25}, "augment.small_side is 0.25"),
        (WEIGHTS | {"model.weights": "none.pth"}, "there is no file"),
        ({"train.folds": 20}, r"Too few training images of 3 \(2\): each of 20 folds"),
        ({}, r"Too few training images of 3 \(1\): one of each class is held out"),
    ],
)
def test_values_that_can_not_work_end_the_search_with_their_sentence_if_no_searched_one_is_to_blame(
    engines: Engines, project: Project, settings: Config, values: dict[str, Any], sentence: str
) -> None:
    if "Too few" in sentence:
        labels = np.load(project.training_data / "labels.npy")
        threes = np.flatnonzero(labels == 3)
        labels[threes[2 if "folds" in sentence else 1 :]] = 4
        np.save(project.training_data / "labels.npy", labels)
    engine = engines()
    given = order(project, settings.with_values(values), 4)
    engine.submit(replace(given, values={"train.learning_rate": 0.1, "model.width": 4, "model.depth": 8}))
    with pytest.raises(Stuck, match=sentence):
        messages_of(engine, Failed)


def test_workers_that_do_not_start_are_not_started_for_ever(engines: Engines, project: Project) -> None:
    engine = engines(1, workers.cannot_start)
    (project.root / "worker-0.log").write_text("Traceback ...\nImportError: libcudnn.so.9\n\n")
    said = (
        r"did not start in 3 attempts: it ended with exit code 3. Its last line: ImportError: libcudnn.so.9\n.*worker-0"
    )
    with pytest.raises(Stuck, match=said):
        for _ in range(60):
            engine.next(1.0)


def test_missing_data_is_reported_with_the_message_of_the_data_set(engines: Engines, project: Project) -> None:
    (project.training_data / "images.npy").unlink()
    engine = engines()
    with pytest.raises(Stuck, match=r"images\.npy is missing: run `dvc repro`"):
        for _ in range(60):
            engine.next(1.0)


def test_a_full_disk_ends_the_search_and_not_the_trial(engines: Engines, project: Project, settings: Config) -> None:
    engine = engines()
    full = order(project, settings, 4)
    full.folder.mkdir(parents=True)
    engine.submit(order(project, settings, 1, trial=1))
    messages_of(engine)
    (pid,) = engine.processes
    # No file may grow over 1,000 bytes: to a program that is what a full disk is.
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, hard))
    engine.submit(full)
    with pytest.raises(Stuck, match="can't be written"):
        messages_of(engine)


@pytest.mark.slow
def test_no_worker_outlives_an_owner_that_is_killed(project: Project) -> None:
    script = (
        "import sys, time\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from pipeline.files import Project\n"
        "from pipeline.search.engines.local import LocalEngine\n"
        "from pipeline.search.engines.trainer import Hardware\n"
        "from pipeline.search.engines.worker import WorkerSpec\n"
        "if __name__ == '__main__':\n"
        "    p = Project.here()\n"
        "    logs = [Path(f'{number}.log') for number in range(2)]\n"
        "    e = LocalEngine([WorkerSpec(p.meta, p.training_data, Hardware('cpu', 1, 'fp32'), log) for log in logs])\n"
        "    print(*e.processes, flush=True)\n"
        "    time.sleep(600)\n"
    )
    (project.root / "owner.py").write_text(script)
    for wait_s in (0.0, 6.0):
        owner = subprocess.Popen(
            [sys.executable, "owner.py", str(REPOSITORY / "tests")], stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(wait_s)
        processes = [psutil.Process(pid) for pid in pids]
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        _, alive = psutil.wait_procs(processes, timeout=20)
        assert not alive
        owner.stdout.close()


@pytest.mark.slow
def test_workers_ignore_signals_that_are_meant_for_the_owner(
    engine: LocalEngine, project: Project, settings: Config
) -> None:
    engine.submit(order(project, settings, 1))
    messages_of(engine)
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(engine.processes[0], number)
    before = engine.processes
    engine.submit(order(project, settings, 1, trial=1))
    messages_of(engine)
    assert engine.processes == before
