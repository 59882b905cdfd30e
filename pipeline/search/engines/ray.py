"""The engine of a Ray cluster: each worker is an actor on one of its nodes. Nothing else in this project imports Ray.

    engine = RayEngine(spec, address="auto")

Nodes may come and go. There are as many workers as the cluster's resources allow; a lost node's orders end as crashed,
and are sent again elsewhere. The images go into Ray's object store once, and each node maps them into memory. The code
goes to the nodes as it is here, and a worker compares its digest. Trials' files lie on storage that all nodes share, or
in a store that all reach, which a worker checks before its first order.

A node that is being taken away is draining: `ray start` says so when it gets SIGTERM, and autoscalers do. Ray tells it
neither the owner nor the workers. A worker asks after each epoch, and stops if it is so or if it got SIGTERM itself.

An order is a task that yields messages, so a worker that is gone for the owner can't add any: only the messages of the
last order of a trial are read. Should such a worker live on behind a cut link, it stops after its epoch, since the
trial's folder then names another attempt.
"""

import logging
import math
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.files import atomic_write
from pipeline.outcome import Outcome
from pipeline.provenance import code_digest
from pipeline.search.engines.actor import SHARED, Actor
from pipeline.search.engines.base import Failed, Message, Order, Paused, Stuck, TargetReached
from pipeline.search.engines.store import Store
from pipeline.search.engines.trainer import Broken, Hardware, Unfit

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
    from ray.exceptions import ActorDiedError, RayError
except ImportError as error:
    raise PipelineError(
        'tune.engine is ray, which is not installed: `pip install -e ".[cluster]"` installs it.'
    ) from error

STARTS = 10
"""How often in a row workers may be lost before one has begun an order, while no node goes."""
_LOOK_S = 2.0
"""Seconds between two looks at the cluster's resources."""


@dataclass(frozen=True)
class RaySpec:
    """What the workers are started with."""

    meta: Any
    """The Meta of the data."""
    images: Any
    """The Images to train and validate on."""
    hardware: Hardware
    resources: Mapping[str, float]
    """Of each worker, in Ray's terms: CPU, GPU, and what a cluster may name beside them."""
    folder: Path
    """Of the study, on storage that all nodes share, unless there is a store."""
    store: str | None = None
    """The address of the study's files, which all nodes reach."""
    code: Mapping[str, str] = field(default_factory=dict)
    """The digests of the user's networks."""
    own_code: Path | None = None
    """A folder with their files, which becomes the working directory of the workers."""
    most: int | None = None
    """Workers at a time; None: as many as fit."""
    setup: Callable[[], None] | None = None
    """Called in each worker as it starts: tests let workers fail by it."""


@dataclass
class _Worker:
    actor: Any
    answer: Any = None
    """The stream of messages of its order."""
    order: Order | None = None
    attempt: str = ""
    has_begun: bool = False
    """Whether it has sent a message, ever."""


class RayEngine:
    """Actors of a Ray cluster. Raises PipelineError if the cluster can't be reached."""

    def __init__(self, spec: RaySpec, address: str | None = None, cores: int | None = None) -> None:
        """`address` is auto, ray://HOST:PORT or None for a cluster of this machine alone, with `cores`."""
        package = Path(__file__).parents[2]
        environment: dict[str, Any] = {"py_modules": [str(package)], "env_vars": {"OMP_NUM_THREADS": "1"}}
        if spec.own_code:
            environment["working_dir"] = str(spec.own_code)
        options: dict[str, Any] = {"address": address or "local", "runtime_env": environment, "log_to_driver": False}
        if address is None:
            options |= {"num_cpus": cores, "include_dashboard": False}
        _shorten_messages()
        try:
            _knock(address)
            self._context = ray.init(**options, logging_level=logging.ERROR)
        except (ConnectionError, RayError, OSError, ValueError) as error:
            raise PipelineError(
                f"The Ray cluster at {address or 'this machine'} can't be used: {str(error).splitlines()[0]}. "
                "`ray status` shows whether it runs; tune.address names it."
            ) from error
        self._spec = spec
        self._images = ray.put(tuple(spec.images))
        self._token = uuid.uuid4().hex
        if spec.store:
            (Store(spec.store) / SHARED).write(self._token.encode())
        else:
            with atomic_write(spec.folder / SHARED) as aside:
                aside.write_text(self._token)
        self._class = ray.remote(Actor)
        self._workers: list[_Worker] = []
        self._messages: deque[Message] = deque()
        self._lost = 0
        """Workers in a row that were lost before they had begun, while all of `_nodes` stayed."""
        self._nodes = _nodes()
        self._looked_s = -math.inf
        self._look()

    @property
    def free(self) -> int:
        self._look()
        return sum(worker.order is None for worker in self._workers)

    def submit(self, order: Order) -> None:
        # One that has worked before has everything loaded.
        free = [worker for worker in self._workers if worker.order is None]
        self._give(max(free, key=lambda worker: worker.has_begun), order)

    def next(self, timeout_s: float) -> Message | None:
        deadline = time.monotonic() + timeout_s
        while not self._messages:
            left_s = max(0.0, deadline - time.monotonic())
            streams = {worker.answer: worker for worker in self._workers if worker.answer is not None}
            if streams:
                ready, _ = ray.wait(list(streams), num_returns=1, timeout=left_s, fetch_local=False)
                for stream in ready:
                    self._take(streams[stream])
            else:
                time.sleep(min(left_s, 0.05))
            if not self._messages and time.monotonic() >= deadline:
                return None
        return self._messages.popleft()

    def pause(self) -> None:
        for worker in self._workers:
            if worker.order:
                # It names the attempt: it may arrive after the answer, when the worker has another order.
                worker.actor.pause.remote(worker.attempt)

    def stop(self, trial: int) -> None:
        self._messages = deque(message for message in self._messages if message.trial != trial)
        for worker in list(self._workers):
            if worker.order and worker.order.trial == trial:
                self._replace(worker)

    def clock_s(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        for worker in self._workers:
            self._end(worker)
        self._workers = []
        ray.shutdown()

    @property
    def processes(self) -> list[int]:
        """The process ids of the workers, on their nodes."""
        return [int(ray.get(worker.actor.pid.remote())) for worker in self._workers]

    def _look(self) -> None:
        """As many workers as the cluster has room for; busy ones stay, whatever it says."""
        if time.monotonic() - self._looked_s < _LOOK_S:
            return
        self._looked_s = time.monotonic()
        there = _resources()
        fit = min(int(there.get(name, 0) / amount + 1e-9) for name, amount in self._spec.resources.items())
        wanted = fit if self._spec.most is None else min(fit, self._spec.most)
        for worker in [worker for worker in self._workers if worker.order is None][: len(self._workers) - wanted]:
            self._workers.remove(worker)
            self._end(worker)
        while len(self._workers) < wanted:
            self._workers.append(_Worker(self._hire()))

    def _hire(self) -> Any:
        spec, resources = self._spec, dict(self._spec.resources)
        options = {"num_cpus": resources.pop("CPU", 0), "num_gpus": resources.pop("GPU", 0), "resources": resources}
        return self._class.options(**options, max_concurrency=4).remote(
            spec.meta,
            self._images,
            spec.hardware,
            dict(spec.code),
            code_digest("train"),
            self._token,
            _is_draining,
            spec.setup,
        )

    def _give(self, worker: _Worker, order: Order) -> None:
        worker.order, worker.attempt = order, uuid.uuid4().hex
        answer = worker.actor.answer.options(num_returns="streaming")
        worker.answer = answer.remote(order, worker.attempt, str(self._spec.folder), self._spec.store)

    def _take(self, worker: _Worker) -> None:
        """Reads the next message of a worker, or notices that it is lost."""
        order = worker.order
        assert order
        try:
            message = ray.get(next(worker.answer))
        except (RayError, StopIteration) as error:
            self._mourn(worker, order, error)
            return
        self._lost, worker.has_begun = 0, True
        if isinstance(message, Unfit):
            raise Stuck(message.why)
        if isinstance(message, Broken):
            self._replace(worker)
            self._messages.append(Failed(order.trial, Outcome.CRASHED, message.why))
            return
        if isinstance(message, TargetReached | Paused | Failed):
            worker.order = worker.answer = None
        if isinstance(message, Paused) and message.leaving:
            self._workers.remove(worker)
            self._end(worker)
            self._looked_s = -math.inf
        self._messages.append(message)

    def _mourn(self, worker: _Worker, order: Order, error: Exception) -> None:
        if not worker.has_begun:
            before, self._nodes = self._nodes, _nodes()
            self._lost = self._lost + 1 if before <= self._nodes else 0
            if self._lost == STARTS:
                raise Stuck(f"Workers on the Ray cluster were lost {STARTS} times before they began: {_reason(error)}")
        self._replace(worker)
        self._looked_s = -math.inf
        if isinstance(error, ActorDiedError) and error.preempted:
            # Its node was taken away before the epoch was over, with a warning: the trial is not to blame.
            self._messages.append(Paused(order.trial, leaving=True))
            return
        self._messages.append(Failed(order.trial, Outcome.CRASHED, f"The worker was lost: {_reason(error)}"))

    def _replace(self, worker: _Worker) -> None:
        self._end(worker)
        self._workers[self._workers.index(worker)] = _Worker(self._hire())

    @staticmethod
    def _end(worker: _Worker) -> None:
        with suppress(RayError):
            ray.kill(worker.actor, no_restart=True)


def _nodes() -> set[str]:
    """The ids of all nodes that are there."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]


def _resources() -> dict[str, float]:
    """Of all nodes together that are there and stay."""
    draining = _draining()
    found: dict[str, float] = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"] and node["NodeID"] not in draining:
            for name, amount in node["Resources"].items():
                found[name] = found.get(name, 0) + amount
    return found


def _is_draining() -> bool:
    """Whether the node that this worker is on is being taken away."""
    return ray.get_runtime_context().get_node_id() in _draining()


def _draining() -> Collection[str]:
    """The nodes that are being taken away; none where that can't be seen, as from ray://."""
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        return ()
    # Ray's own libraries for training and serving ask so too; there is no public way.
    found: Collection[str] = ray._private.state.state.get_draining_nodes()
    return found


def _shorten_messages() -> None:
    """Lets Ray print the first line of what happens on nodes: it adds pages of a lost node's log, by no setting."""
    from ray._private import worker

    said = worker.print_to_stdstream

    def said_shortly(data: dict[str, Any], ignore_prefix: bool) -> None:
        said(data | {"lines": [line.partition("\n")[0] for line in data["lines"]]}, ignore_prefix=ignore_prefix)

    worker.print_to_stdstream = said_shortly


def _knock(address: str | None) -> None:
    """Raises OSError if nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _reason(error: Exception) -> str:
    """The last line that Ray says, which has the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
