"""pipeline.search.engines.trainer: errors of a GPU, raised here on a CPU where a training would meet them."""

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.batches import loaders
from pipeline.batches.images import Images
from pipeline.config import Config
from pipeline.errors import OutOfMemory
from pipeline.outcome import Outcome
from pipeline.records import Epoch, Meta
from pipeline.search.engines.base import Began, EpochDone, Failed, Order, Paused, TargetReached
from pipeline.search.engines.sharing import Room
from pipeline.search.engines.trainer import Broken, Hardware, Trainer
from pipeline.training import loop
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.cross_validation import Training

SHORT = {"train.epochs": 3, "train.batch_size": 16, "train.validation_share": 0.25}
ALONE = Hardware("cpu", 1, "fp32")


@pytest.fixture
def order(settings: Config, tmp_path: Path, one_thread: None) -> Order:
    return Order(0, {}, settings.with_values(SHORT), 3, 0, tmp_path / "trial")


@pytest.fixture
def shared(tmp_path: Path) -> Hardware:
    return replace(ALONE, memory_share=0.5, room=tmp_path / "gpu")


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each turn, whether it was alone; the last one is the present one."""
    taken: list[bool] = []
    turn = Room.turn

    @contextmanager
    def watched(self: Room, *, alone: bool = False, clear: Callable[[], None]) -> Iterator[None]:
        with turn(self, alone=alone, clear=clear):
            taken.append(alone)
            yield

    monkeypatch.setattr(Room, "turn", watched)
    return taken


def fails(monkeypatch: pytest.MonkeyPatch, at: int, error: Exception, when: Callable[[], bool] = lambda: True) -> None:
    """Each training fails as it begins an epoch, `when` that is so."""
    fit = loop.fit

    def faulty(*arguments: Any, **keywords: Any) -> Iterator[Epoch]:
        checkpoint = keywords["checkpoint"]
        number = len(checkpoint.epochs) if checkpoint else 0
        epochs = fit(*arguments, **keywords)
        while True:
            number += 1
            if number >= at and when():
                raise error
            try:
                yield next(epochs)
            except StopIteration:
                return

    monkeypatch.setattr(loop, "fit", faulty)


def answers(trainer: Trainer, order: Order) -> list[Any]:
    return list(trainer.answer(order, threading.Event()))


def figures(messages: list[Any]) -> list[tuple[float, ...]]:
    found = {m.epoch.number: m.epoch for m in messages if isinstance(m, EpochDone)}
    return [(number, epoch.training_loss, epoch.validation_loss) for number, epoch in found.items()]


def test_who_runs_out_of_memory_beside_others_tries_once_alone_and_ends_with_the_same_numbers(
    order: Order, shared: Hardware, turns: list[bool], meta: Meta, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = answers(Trainer(meta, images, ALONE), replace(order, folder=order.folder / "undisturbed"))
    turns.clear()
    fails(monkeypatch, 2, OutOfMemory("a neighbour has it"), lambda: not turns[-1])
    messages = answers(Trainer(meta, images, shared), order)
    assert isinstance(messages[0], Began)
    assert isinstance(messages[-1], TargetReached)
    assert [type(message) for message in messages].count(TargetReached) == 1
    assert figures(messages) == figures(undisturbed)
    # Epoch 1; 2 fails, and alone it does not; 3 likewise; what follows the last one, and the end.
    assert turns == [False, False, True, False, True, False, False]
    model = "model.safetensors"
    assert (order.folder / model).read_bytes() == (order.folder / "undisturbed" / model).read_bytes()


def test_epochs_that_the_checkpoint_lacks_are_trained_again_in_the_turn_alone_and_reported_once(
    order: Order, shared: Hardware, turns: list[bool], meta: Meta, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", math.inf)
    order = replace(order, config=order.config.with_values({"train.epochs": 4}), until=4)
    undisturbed = answers(Trainer(meta, images, ALONE), replace(order, folder=order.folder / "undisturbed"))
    turns.clear()
    fit = loop.fit

    def faulty(*arguments: Any, **keywords: Any) -> Iterator[Epoch]:
        """Memory is short in the middle of the last epoch, in which nothing can be saved."""
        epochs = fit(*arguments, **keywords)
        for epoch in epochs:
            if epoch.number == 4 and not turns[-1]:
                raise OutOfMemory("a neighbour has it")
            yield epoch

    saved = Checkpoint.save
    monkeypatch.setattr(
        Checkpoint, "save", lambda self, path: saved(self, path) if turns[-1] or len(self.epochs) == 1 else None
    )
    monkeypatch.setattr(loop, "fit", faulty)
    messages = answers(Trainer(meta, images, shared), order)
    assert isinstance(messages[-1], TargetReached)
    assert [message.epoch.number for message in messages if isinstance(message, EpochDone)] == [1, 2, 3, 4]
    assert figures(messages) == figures(undisturbed)
    # Epochs 1 to 3; the fourth fails; alone 2 and 3 again, and the fourth; what follows the last one, and the end.
    assert turns == [False, False, False, False, True, False, False]


@pytest.mark.parametrize("pauses_in", ["a new epoch", "one that is known"])
def test_a_pause_leaves_a_checkpoint_of_the_last_epoch_that_was_reported(
    order: Order, meta: Meta, images: Images, monkeypatch: pytest.MonkeyPatch, pauses_in: str
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", math.inf)
    trainer, pause = Trainer(meta, images, ALONE), threading.Event()
    if pauses_in == "a new epoch":
        messages = []
        for message in trainer.answer(order, pause):
            messages.append(message)
            if isinstance(message, EpochDone) and message.epoch.number == 2:
                pause.set()
        kept = 2
    else:
        pause.set()
        messages = list(trainer.answer(replace(order, known=2), pause))
        kept = 1
    assert isinstance(messages[-1], Paused)
    checkpoint = Checkpoint.load(order.folder / "checkpoint.pt")
    assert checkpoint is not None
    assert len(checkpoint.epochs) == kept


def test_memory_that_is_short_after_the_last_epoch_is_short_alone_or_not_at_all(
    order: Order, shared: Hardware, turns: list[bool], meta: Meta, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = Training.infer

    def faulty(self: Training) -> Any:
        if not turns[-1]:
            raise OutOfMemory("a neighbour has it")
        return infer(self)

    monkeypatch.setattr(Training, "infer", faulty)
    assert isinstance(answers(Trainer(meta, images, shared), order)[-1], TargetReached)
    assert turns.count(True) == 1


@pytest.mark.parametrize("at", [1, 3])
def test_the_values_are_to_blame_where_a_training_is_too_large_for_the_gpu_alone(
    order: Order,
    shared: Hardware,
    turns: list[bool],
    meta: Meta,
    images: Images,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    fails(monkeypatch, at, OutOfMemory("halve it"))
    for hardware, tries in ((shared, [False] * at + [True]), (ALONE, [False] * at)):
        turns.clear()
        given = replace(order, folder=order.folder / str(hardware.memory_share))
        assert answers(Trainer(meta, images, hardware), given)[-1] == Failed(0, Outcome.OUT_OF_MEMORY, "halve it")
        assert turns == tries


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), Broken),
        (RuntimeError("a bug in the network"), Failed),
    ],
)
def test_after_an_error_that_ends_the_use_of_a_gpu_the_worker_says_that_it_has_to_be_replaced(
    order: Order, meta: Meta, images: Images, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type
) -> None:
    fails(monkeypatch, 2, error)
    last = answers(Trainer(meta, images, ALONE), order)[-1]
    assert isinstance(last, kind)
    assert str(error) in last.why


def test_all_orders_and_folds_of_a_worker_use_one_copy_of_the_images(
    order: Order, meta: Meta, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[loaders.Loader] = []

    def choose(*given: Any) -> loaders.Loader:
        made.append(loaders.Resident(given[0], given[1]))
        return made[-1]

    monkeypatch.setattr(loaders, "choose", choose)
    trainer = Trainer(meta, images, ALONE)
    for trial, values in enumerate(({}, {"train.folds": 2}, {"train.validation_seed": 3})):
        given = replace(order, config=order.config.with_values(values), folder=order.folder / str(trial))
        assert isinstance(answers(trainer, given)[-1], TargetReached)
    assert len(made) == 1


def test_a_worker_of_one_part_of_a_gpu_sees_no_other(
    meta: Meta, images: Images, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    Trainer(meta, images, replace(ALONE, visible="MIG-b"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-b"
