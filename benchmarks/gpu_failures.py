"""Phases of gpu.py: what a training survives."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from archives import read
from gpu_phases import Phase, digits, recipe
from torch.nn import functional as F

from pipeline.batches.batches import OrderedBatches
from pipeline.config import Config
from pipeline.evaluation.inference import predict
from pipeline.search.engines import worker
from pipeline.search.engines.base import Failed, Order, TargetReached
from pipeline.search.engines.local import LocalEngine
from pipeline.search.engines.sharing import Room
from pipeline.search.engines.trainer import Hardware, Trainer
from pipeline.search.engines.worker import WorkerSpec
from pipeline.training import loop
from pipeline.training.cross_validation import Training


def memory(phase: Phase) -> None:
    settings = recipe("digits", **{"train.epochs": 1, "train.device": phase.device})
    project = digits(phase, "memory")
    meta, images, _ = read(project.data)
    hardware = Hardware(phase.device, 1, "auto")
    trainer = Trainer(meta, images, hardware)

    def answer(trial: int, values: Mapping[str, int] | None = None, by: Trainer = trainer) -> Any:
        values = values or {}
        given = Order(trial, values, settings.with_values(values), 1, 0, project.root / "trials" / str(trial))
        return list(by.answer(given, threading.Event()))[-1]

    phase.expect("an order", isinstance(answer(0), TargetReached), "done")
    with _capped(phase):
        failed = answer(1, {"model.width": 512, "train.batch_size": 1024})
    phase.expect("too little memory", getattr(failed, "outcome", None) == "out of memory", str(failed)[:150])
    phase.expect("the next order", isinstance(answer(2), TargetReached), "done")
    if phase.is_cuda:
        room = phase.into.parent / "gpu"
        spawn = multiprocessing.get_context("spawn")
        full = spawn.Event()
        neighbour = spawn.Process(target=_fills_the_card, args=(phase.device, room, full), daemon=True)
        neighbour.start()
        full.wait(20)
        shares = Trainer(meta, images, replace(hardware, memory_share=0.5, room=room))
        ended = answer(3, {"model.width": 128, "train.batch_size": 1024}, shares)
        phase.expect("a neighbour that fills it", isinstance(ended, TargetReached), str(ended)[:150])
    spec = WorkerSpec(project.meta, project.training_data, hardware, phase.into.parent / "worker.log")
    with closing(LocalEngine([spec], _asserts_once)) as engine:
        given = Order(4, {}, settings, 1, 0, project.root / "trials" / "4")
        kinds = [type(_end_of(engine, given)).__name__ for _ in range(2)]
        phase.expect("an assertion on the device", kinds == ["Failed", "TargetReached"], kinds)


def _end_of(engine: LocalEngine, order: Order) -> Failed | TargetReached:
    """The last message of an order."""
    engine.submit(order)
    while not isinstance(message := engine.next(1), Failed | TargetReached):
        pass
    return message


@contextmanager
def _capped(phase: Phase) -> Iterator[None]:
    """A context in which this process may have little more memory than it has."""
    if phase.is_cuda:
        total = torch.cuda.get_device_properties(phase.device).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
        yield
        torch.cuda.set_per_process_memory_fraction(1.0)
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _fills_the_card(device: str, room: Path, full: Any) -> None:
    """A neighbour in the room that has nearly all memory for some seconds."""
    with Room(room).turn():
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        held = torch.empty(int(0.97 * free), dtype=torch.uint8, device=device)
        full.set()
        time.sleep(4)
        del held
        torch.cuda.empty_cache()


def _asserts_once(owner: Any, spec: WorkerSpec) -> None:
    """A worker whose first training breaks the device: by an index outside of a table, or on a CPU by the error."""
    fit, happened = loop.fit, Path(f"{spec.log}.happened")

    def faulty(*arguments: Any, **keywords: Any) -> Iterator[Any]:
        if not happened.exists():
            happened.touch()
            if not spec.hardware.device.startswith("cuda"):
                raise torch.AcceleratorError("CUDA error: device-side assert triggered")
            F.embedding(torch.tensor([99], device=spec.hardware.device), torch.zeros(2, 2, device=spec.hardware.device))
            torch.cuda.synchronize()
        yield from fit(*arguments, **keywords)

    loop.fit = faulty
    worker.main(owner, spec)


def kills(phase: Phase) -> None:
    settings = recipe("digits", **{"train.epochs": 6 if phase.quick else 20})
    meta, images, test = read(digits(phase, "kills").data)
    device, folder = phase.chosen(), phase.into.parent

    undisturbed = Training.of(settings, meta, images, device, folder / "undisturbed")
    expected = list(undisturbed.fit())[-1].validation_loss
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_trains, args=(phase, settings, folder / "killed"), daemon=True)
    process.start()
    while process.is_alive() and not (folder / "killed" / "checkpoint.pt").exists():
        time.sleep(0.002)
    process.kill()
    process.join()
    resumed = Training.of(settings, meta, images, device, folder / "killed")
    done = len(resumed.done)
    phase.expect("killed", 0 < done < settings.train.epochs, f"after epoch {done} of {settings.train.epochs}")
    away = abs(list(resumed.fit())[-1].validation_loss / expected - 1)
    # On a CPU to the bit; some of a GPU's sums are added in varying order.
    phase.expect("validation loss", away < 0.05 if phase.is_cuda else away == 0, float(f"{away:.2g}"))

    probabilities = []
    for at in (phase.chosen("fp32"), phase.cpu):
        loop.place(resumed.network, at)
        batches = OrderedBatches(at.loader(test), np.arange(len(test.labels)), batch_size=500)
        probabilities.append(predict(resumed.network, batches, at))
    away = float(np.abs(probabilities[0] - probabilities[1]).max())
    phase.expect("probabilities, device and CPU", away < 1e-3, float(f"{away:.2g}"))


def _trains(phase: Phase, settings: Config, folder: Path) -> None:
    meta, images, _ = read(phase.into.parent / "kills" / "data")
    for _ in Training.of(settings, meta, images, phase.chosen(), folder).fit():
        pass
