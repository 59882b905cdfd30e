"""The contract between an owner and an engine (base.py), for each engine: local, simulated and ray."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from extras import needed

from pipeline import config
from pipeline.batches.images import load_images
from pipeline.config import Config
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.records import load_meta
from pipeline.search.engines.base import Began, Engine, EpochDone, Failed, Message, Order, Paused, TargetReached
from pipeline.search.engines.local import LocalEngine
from pipeline.search.engines.simulated import Fault, SimulatedEngine
from pipeline.search.engines.trainer import Hardware
from pipeline.search.engines.worker import WorkerSpec

# Each engine's tests share it, and it takes seconds to start.
pytestmark = pytest.mark.xdist_group("engines")

CPU = Hardware("cpu", 1, "fp32")
PATIENCE_S = 60.0
LONG = 200
"""More epochs than a test waits for."""


class Disturbed(Protocol):
    """An engine with one worker that tests can lose."""

    engine: Engine

    def lose(self, trial: int) -> None:
        """The worker that has the trial is gone, or will be after one more epoch."""

    def warn(self) -> None:
        """The worker is told that it will be gone soon."""


class _Local:
    def __init__(self, project: Project, logs: Path) -> None:
        self.engine = LocalEngine([WorkerSpec(project.meta, project.training_data, CPU, logs / "worker.log")])

    def lose(self, trial: int) -> None:
        os.kill(self.engine.processes[0], signal.SIGKILL)

    def warn(self) -> None:
        os.kill(self.engine.processes[0], signal.SIGTERM)


class _Ray:
    def __init__(self, project: Project, logs: Path) -> None:
        needed("ray")
        from pipeline.search.engines.ray import RayEngine, RaySpec

        meta = load_meta(project.meta)
        images = load_images(project.training_data, meta)
        self.engine = RayEngine(RaySpec(meta, images, CPU, {"CPU": 1.0}, logs, most=1), cores=1)

    def lose(self, trial: int) -> None:
        os.kill(self.engine.processes[0], signal.SIGKILL)

    def warn(self) -> None:
        os.kill(self.engine.processes[0], signal.SIGTERM)


class _Simulated:
    def __init__(self, project: Project, logs: Path) -> None:
        self._lost: set[int] = set()
        self.engine = SimulatedEngine(lambda values: [0.1] * LONG, fault=self._fault)

    def _fault(self, order: Order) -> Fault | None:
        if order.trial in self._lost:
            self._lost.remove(order.trial)
            return Fault(1, Outcome.CRASHED, "lost")
        return None

    def lose(self, trial: int) -> None:
        self._lost.add(trial)

    def warn(self) -> None:
        pytest.skip("nothing warns a simulated worker")


@pytest.fixture(
    scope="module",
    params=[_Simulated, _Local, pytest.param(_Ray, marks=[pytest.mark.cluster, pytest.mark.slow])],
    ids=["simulated", "local", "ray"],
)
def _started(
    request: pytest.FixtureRequest, _digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Disturbed]:
    started = request.param(Project(_digits, _digits), tmp_path_factory.mktemp("engine"))
    with closing(started.engine):
        yield started


@pytest.fixture
def disturbed(_started: Disturbed) -> Iterator[Disturbed]:
    """An engine with one free worker. What a test leaves behind is stopped."""
    yield _started
    for trial in range(5):
        _started.engine.stop(trial)
    deadline = time.monotonic() + PATIENCE_S
    while not _started.engine.free or _started.engine.next(0.01):
        assert time.monotonic() < deadline


@pytest.fixture
def order(project: Project) -> Callable[..., Order]:
    settings: Config = config.load(project.params, {"train.epochs": LONG})

    def made(until: int, trial: int = 0, known: int = 0, **values: Any) -> Order:
        folder = project.root / "trials" / str(trial)
        return Order(trial, values, settings.with_values(values), until, known, folder)

    return made


def until_end(engine: Engine) -> list[Message]:
    """All messages up to the one that ends an order."""
    found: list[Message] = []
    deadline = time.monotonic() + PATIENCE_S
    while not found or not isinstance(found[-1], TargetReached | Paused | Failed):
        if message := engine.next(0.5):
            found.append(message)
        assert time.monotonic() < deadline, found
    return found


def figures(messages: list[Message]) -> list[tuple[float, ...]]:
    epochs = [message.epoch for message in messages if isinstance(message, EpochDone)]
    return [(epoch.number, epoch.training_loss, epoch.validation_loss) for epoch in epochs]


def numbers(messages: list[Message]) -> list[int]:
    return [message.epoch.number for message in messages if isinstance(message, EpochDone)]


def test_an_order_begins_reports_each_epoch_and_reaches_its_target(
    disturbed: Disturbed, order: Callable[..., Order]
) -> None:
    engine = disturbed.engine
    assert engine.free == 1
    engine.submit(order(2))
    assert engine.free == 0
    messages = until_end(engine)
    assert [type(message) for message in messages] == [Began, EpochDone, EpochDone, TargetReached]
    assert {message.trial for message in messages} == {0}
    assert numbers(messages) == [1, 2]
    reached = messages[-1]
    assert isinstance(reached, TargetReached)
    assert (reached.epoch, reached.over) == (2, False)
    assert engine.free == 1


def test_only_epochs_that_the_owner_does_not_know_are_reported(
    disturbed: Disturbed, order: Callable[..., Order]
) -> None:
    engine = disturbed.engine
    engine.submit(order(2))
    until_end(engine)
    engine.submit(order(3, known=2))
    assert numbers(until_end(engine)) == [3]
    # An owner that was killed before it had recorded the last two.
    engine.submit(order(3, known=1))
    assert numbers(until_end(engine)) == [2, 3]


def test_a_wait_is_no_longer_than_asked_for(disturbed: Disturbed, order: Callable[..., Order]) -> None:
    for _ in range(2):
        began = time.monotonic()
        assert disturbed.engine.next(0.3) is None
        assert time.monotonic() - began < 5, "an order of magnitude, for a busy machine"


def test_a_pause_ends_the_order_that_is_there_and_no_later_one(
    disturbed: Disturbed, order: Callable[..., Order]
) -> None:
    engine = disturbed.engine
    engine.submit(order(LONG))
    while not isinstance(engine.next(0.5), EpochDone):
        pass
    engine.pause()
    engine.pause()
    assert isinstance(until_end(engine)[-1], Paused)
    engine.submit(order(2, trial=1))
    assert isinstance(until_end(engine)[-1], TargetReached)


def test_a_stopped_order_says_nothing_more_and_its_trial_goes_on_after_the_epochs_that_are_known(
    disturbed: Disturbed, order: Callable[..., Order]
) -> None:
    engine = disturbed.engine
    engine.submit(order(LONG))
    seen = []
    while not numbers(seen):
        if message := engine.next(0.5):
            seen.append(message)
    engine.stop(0)
    assert engine.free == 1
    assert engine.next(0.3) is None
    known = numbers(seen)[-1]
    engine.submit(order(known + 2, known=known))
    assert numbers(until_end(engine)) == [known + 1, known + 2]


def test_a_lost_worker_is_a_crash_and_another_one_goes_on(disturbed: Disturbed, order: Callable[..., Order]) -> None:
    engine = disturbed.engine
    if isinstance(disturbed, _Simulated):
        disturbed.lose(0)
    engine.submit(order(LONG))
    seen: list[Message] = []
    while not numbers(seen):
        if message := engine.next(0.5):
            seen.append(message)
    if not isinstance(disturbed, _Simulated):
        disturbed.lose(0)
    seen += until_end(engine)
    failed = seen[-1]
    assert isinstance(failed, Failed)
    assert failed.outcome is Outcome.CRASHED
    assert failed.why
    known = numbers(seen)[-1]
    deadline = time.monotonic() + PATIENCE_S
    while not engine.free:
        assert time.monotonic() < deadline
        engine.next(0.1)
    engine.submit(order(known + 1, known=known))
    assert numbers(until_end(engine)) == [known + 1]


def test_a_worker_that_is_warned_pauses_after_its_epoch_and_another_one_goes_on(
    disturbed: Disturbed, order: Callable[..., Order]
) -> None:
    engine = disturbed.engine
    engine.submit(order(LONG))
    seen: list[Message] = []
    while not numbers(seen):
        if message := engine.next(0.5):
            seen.append(message)
    disturbed.warn()
    seen += until_end(engine)
    assert seen[-1] == Paused(0, leaving=True)
    known = numbers(seen)[-1]
    deadline = time.monotonic() + PATIENCE_S
    while not engine.free:
        assert time.monotonic() < deadline
        engine.next(0.1)
    engine.submit(order(known + 1, known=known))
    assert numbers(until_end(engine)) == [known + 1]
    # One that has no order keeps its warning for the next. The signal may arrive after that one's begin.
    disturbed.warn()
    engine.submit(order(LONG, trial=1))
    seen = until_end(engine)
    assert seen[-1] == Paused(1, leaving=True)
    assert len(numbers(seen)) <= 1


def test_a_trial_whose_files_are_in_a_store_resumes_from_there(
    disturbed: Disturbed, order: Callable[..., Order], tmp_path: Path
) -> None:
    if isinstance(disturbed, _Simulated):
        pytest.skip("it has no files")
    engine, store = disturbed.engine, f"file://{tmp_path}/store/0000"
    engine.submit(order(4, trial=1))
    at_once = until_end(engine)
    given = replace(order(2), store=store)
    engine.submit(given)
    seen = until_end(engine)
    disturbed.lose(0)  # with all that it had on its disk
    (found,) = (tmp_path / "store").rglob("checkpoint.pt")
    assert getattr(seen[-1], "checkpoint_bytes", 0) == found.stat().st_size
    deadline = time.monotonic() + PATIENCE_S
    engine.next(0.5)
    while not engine.free:
        assert time.monotonic() < deadline
        engine.next(0.1)
    engine.submit(replace(given, until=4, known=2))
    seen += until_end(engine)
    if isinstance(seen[-1], Failed):  # Ray notices only then that it is gone
        engine.submit(replace(given, until=4, known=2))
        seen += until_end(engine)
    assert figures(seen) == figures(at_once)
    assert not given.folder.exists()


def test_a_node_without_the_folder_or_with_other_code_can_not_work(project: Project, tmp_path: Path) -> None:
    from pipeline.provenance import code_digest
    from pipeline.search.engines.actor import Actor

    def why(digest: str, store: str | None = None) -> str:
        actor = Actor(None, (), CPU, {}, digest, "token", lambda: False, None)
        (unfit,) = actor.answer(Order(0, {}, config.load(project.params), 1, 0, tmp_path), "a", str(tmp_path), store)
        return getattr(unfit, "why", "")

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert "all nodes need the project's folder at the same path" in why(code_digest("train"))
        assert "or tune.checkpoints at an address that all reach" in why(code_digest("train"), f"file://{tmp_path}/no")
        (tmp_path / "shared").write_text("token")
        assert "other training code" in why("another digest")
        assert "other training code" in why("another digest", f"file://{tmp_path}")
    finally:
        signal.signal(signal.SIGTERM, before)
