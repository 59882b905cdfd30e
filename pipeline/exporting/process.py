"""Writes MLflow models from weights, in a process of its own at a low priority.

    exporter = Exporter(project.meta, project.training_data)
    exporter.submit(17, weights, settings.model, folder)     (returns at once)
    for number, folder, error in exporter.done(): ...

Exporting a network takes seconds and needs torch. The process that records a search has neither the time nor torch.
Each architecture is exported once; writing its graph with other weights then takes a tenth of a second.
"""

import os
import shutil
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.config import Model
from pipeline.processes import ChildProcess
from pipeline.records import load_meta

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.exporting.mlflow_model import Graph
    from pipeline.networks import Classifier

_IN_PIPE = 4
"""How many jobs the process has at once at most: sending into a full pipe would block the parent."""
_ATTEMPTS = 2
NICENESS = 5
"""Workers go first, but not so far that all models are still missing when the last worker is done."""
_ARCHITECTURES = 16
"""How many exported graphs are kept: those of the architectures used last."""


class Done(NamedTuple):
    """The answer to a job."""

    number: int
    folder: Path
    error: str | None
    """Why there is no model in `folder`; None if there is one."""


@dataclass
class _Job:
    number: int
    weights: Path
    model: Model
    folder: Path
    attempts: int = 0


class Exporter:
    """The parent's handle of the exporting process, which starts with the first job and is restarted if it dies."""

    def __init__(self, meta: Path, training_data: Path) -> None:
        """`meta` describes the images and classes. The first two images of `training_data` are the input example."""
        self._meta = meta
        self._training_data = training_data
        self._process: ChildProcess | None = None
        self._waiting: deque[_Job] = deque()
        self._given: deque[_Job] = deque()
        """Jobs that the process has and did not answer yet, in order."""
        self._done: list[Done] = []

    def submit(self, number: int, weights: Path, model: Model, folder: Path) -> None:
        """Asks for an MLflow model of `weights` (.safetensors) in `folder`; a failed job leaves no folder.

        `number` is repeated in the answer. `folder` must not exist; `weights` must stay until the answer.
        """
        self._waiting.append(_Job(number, weights, model, folder))
        self._advance()

    def done(self) -> list[Done]:
        """The answers since the last call; never waits. It also hands out the next jobs, so call it regularly."""
        self._advance()
        done, self._done = self._done, []
        return done

    @property
    def open_jobs(self) -> int:
        """How many jobs have no answer yet."""
        return len(self._waiting) + len(self._given)

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return self._process.pid if self._process else None

    def close(self, wait_s: float = 0) -> list[Done]:
        """Waits up to `wait_s` seconds for the submitted models, then ends the process. Returns what `done` would."""
        deadline = time.monotonic() + wait_s
        self._advance()
        while self.open_jobs and (left_s := deadline - time.monotonic()) > 0:
            if self._process:
                self._process.connection.poll(min(left_s, 0.2))
            self._advance()
        self._end()
        done, self._done = self._done, []
        return done

    def _advance(self) -> None:
        """Takes answers, hands out jobs, and replaces a process that died."""
        try:
            self._take()
            while self._waiting and len(self._given) < _IN_PIPE:
                self._process = self._process or ChildProcess("exporter", _work, self._meta, self._training_data)
                self._process.connection.send(self._waiting[0])
                self._given.append(self._waiting.popleft())
        except (EOFError, OSError):
            self._bury()

    def _take(self) -> None:
        while self._process and self._process.connection.poll():
            error = self._process.connection.recv()
            job = self._given.popleft()
            self._done.append(Done(job.number, job.folder, error))

    def _bury(self) -> None:
        """The process died over the first of its jobs."""
        self._end()
        self._waiting.extendleft(reversed(self._given))
        self._given.clear()
        if self._waiting:
            job = self._waiting[0]
            job.attempts += 1
            if job.attempts == _ATTEMPTS:
                self._waiting.popleft()
                self._done.append(Done(job.number, job.folder, f"the process that writes it died {_ATTEMPTS} times"))

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            self._process = None


def _work(parent: Connection, meta: Path, training_data: Path) -> None:
    """The process. It answers each job with None, or with the reason why there is no model, until its parent ends."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # some hundred megabytes of each GPU, for a process that computes nothing
    if os.name == "posix":
        os.nice(NICENESS)
    from pipeline.exporting.mlflow_model import reason

    writer = None
    with suppress(EOFError, OSError):
        while True:
            job = parent.recv()
            try:
                writer = writer or _Writer(meta, training_data)
                writer.write(job)
            except Exception as error:
                parent.send(reason(error))
            else:
                parent.send(None)


class _Writer:
    """Writes models in the process. It keeps the networks and exported graphs of the architectures used last."""

    def __init__(self, meta: Path, training_data: Path) -> None:
        from pipeline.exporting.environment import quiet

        quiet()
        import torch

        from pipeline.batches.images import load_images

        torch.set_num_threads(1)
        self._meta = load_meta(meta)
        images = load_images(training_data, self._meta).pixels[:2]
        self._example: npt.NDArray[np.uint8] = images.transpose(0, 3, 1, 2).copy()
        self._architectures: dict[Model, tuple[Classifier, Graph | None]] = {}
        self._any: Graph | None = None

    def write(self, job: _Job) -> None:
        from pipeline import networks
        from pipeline.exporting.mlflow_model import Graph

        network, graph = self._architectures.pop(job.model, (None, None))
        if network is None:
            network = networks.build(job.model, self._meta, seed=0, initial=False)
        networks.load(network, job.weights)
        if graph is None:
            self._any = graph = Graph(network, self._example, like=self._any)
        self._architectures[job.model] = network, graph
        if len(self._architectures) > _ARCHITECTURES:
            del self._architectures[next(iter(self._architectures))]
        aside = job.folder.with_name(f".{job.folder.name}.part")
        shutil.rmtree(aside, ignore_errors=True)
        graph.save(network.state_dict(), aside)
        aside.rename(job.folder)
