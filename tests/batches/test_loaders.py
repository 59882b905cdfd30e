import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.batches import loaders, mapped, splits
from pipeline.batches.batches import Batch, OrderedBatches, TrainingBatches
from pipeline.batches.images import Images, load_images
from pipeline.batches.loaders import Loader, Resident, Streamed, fits
from pipeline.config import Augment, Config
from pipeline.records import Epoch, Meta
from pipeline.training import loop
from pipeline.training.device import Device
from pipeline.training.parts import Parts

CPU = torch.device("cpu")


@pytest.fixture
def on_disk(tmp_path: Path, images: Images, meta: Meta) -> Images:
    np.save(tmp_path / "images.npy", images.pixels)
    np.save(tmp_path / "labels.npy", images.labels)
    return load_images(tmp_path, meta)


@pytest.mark.parametrize(
    ("array_bytes", "free_bytes", "resident"),
    [
        (150_000_000, 24e9, True),  # CIFAR-10 on a GPU
        (20e9, 80e9, True),
        (20e9, 40e9, True),
        (20e9 + 2, 40e9, False),
        (20e9, 24e9, False),  # it fits, but leaves no room for a training
        (1, 0, False),  # a CPU
        (1, -1e9, False),  # another process has taken more than its part
    ],
)
def test_images_are_resident_where_they_take_up_to_half_of_the_free_memory(
    array_bytes: float, free_bytes: float, resident: bool
) -> None:
    assert fits(int(array_bytes), int(free_bytes)) == resident


def test_the_rule_decides_which_loader_a_device_has(images: Images) -> None:
    size = images.pixels.nbytes
    for free_bytes, kind in ((0, Streamed), (2 * size - 2, Streamed), (2 * size, Resident)):
        assert type(loaders.choose(images, CPU, free_bytes)) is kind


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    "policy",
    [
        {"policy": "none"},
        {"policy": "flip"},
        {"policy": "crop_flip", "flip": "alternating", "padding_mode": "reflect", "small_side": 0.625},
        {"policy": "crop_flip_cutout", "auto": "rand", "erasing": 0.5, "mixup": 0.4},
        {"policy": "crop_flip_cutout", "flip": "alternating", "auto": "trivial", "mixup": 0.4, "cutmix": 1.0},
    ],
)
def test_streamed_batches_are_the_resident_ones_to_the_bit(
    on_disk: Images, policy: dict[str, float | str], device: torch.device
) -> None:
    positions = np.flatnonzero(np.arange(64) % 8 != 3)

    def all_batches(loader: Loader) -> list[Batch]:
        training = TrainingBatches(
            loader,
            positions,
            batch_size=10,
            policy=Augment.model_validate(policy),
            fill=(0.2, 0.5, 0.7),
            seed=3,
            small_epochs=2,
        )
        ordered = OrderedBatches(loader, positions, batch_size=10)
        return [batch for number in (1, 2, 3) for part in (training, ordered) for batch in part.epoch(number)]

    both = [all_batches(loader) for loader in (Resident(on_disk, device), Streamed(on_disk, device))]
    assert len(both[0]) == 3 * (5 + 6)
    for resident, streamed in zip(*both, strict=True):
        assert streamed.images.device.type == device.type
        assert torch.equal(resident.images, streamed.images)
        assert resident.images.stride() == streamed.images.stride()
        assert torch.equal(resident.labels, streamed.labels)
        if resident.mix is None or streamed.mix is None:
            assert resident.mix is streamed.mix is None
        else:
            assert torch.equal(resident.mix.labels, streamed.mix.labels)
            assert torch.equal(resident.mix.share, streamed.mix.share)


def test_a_training_on_streamed_images_has_the_history_and_weights_of_one_on_resident_images(
    settings: Config, on_disk: Images, meta: Meta, cpu: Device
) -> None:
    short = settings.with_values({"train.epochs": 3, "train.batch_size": 10, "model.dropout": 0.1})

    def trained(loader: Loader) -> tuple[list[Epoch], list[torch.Tensor]]:
        parts = Parts.build(short, meta, on_disk, cpu, loader=loader)
        history = list(loop.fit(*parts, short.train, cpu))
        return history, list(parts.network.state_dict().values())

    (epochs, weights), (others, other_weights) = (trained(kind(on_disk, CPU)) for kind in (Resident, Streamed))
    for one, other in zip(epochs, others, strict=True):
        assert one.training_loss == other.training_loss
        assert one.validation_loss == other.validation_loss
    assert all(map(torch.equal, weights, other_weights))


def test_no_thread_is_left_of_an_epoch_that_is_stopped(on_disk: Images) -> None:
    before = threading.active_count()
    coming = OrderedBatches(Streamed(on_disk, CPU), np.arange(64), batch_size=4).epoch()
    next(coming)
    assert threading.active_count() == before + 1
    del coming
    assert threading.active_count() == before


def test_an_error_of_the_thread_ends_the_training(on_disk: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = OrderedBatches(Streamed(on_disk, CPU), np.arange(64), batch_size=4).epoch()
    next(batches)

    def failing(*_: object, **__: object) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr(Images, "gather", failing)
    with pytest.raises(OSError, match="Input/output error"):
        list(batches)


def test_a_batch_is_copied_from_pinned_memory_in_a_stream_of_its_own_before_it_is_used(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    main = threading.get_ident()

    def log(call: str) -> None:
        calls.append(call if threading.get_ident() == main else f"thread: {call}")

    class Stream:
        def __init__(self, device: torch.device) -> None:
            log(f"stream of {device}")

        def synchronize(self) -> None:
            log("wait for the copy")

    @contextmanager
    def inside(stream: Stream) -> Iterator[None]:
        log("enter the stream")
        yield
        log("leave it")

    empty, to = torch.empty, torch.Tensor.to

    def pinned(*shape: Any, pin_memory: bool = False, **others: Any) -> torch.Tensor:
        if pin_memory:
            log("pinned buffer")
        return empty(*shape, **others)

    def copied(tensor: torch.Tensor, *where: Any, non_blocking: bool = False, **others: Any) -> torch.Tensor:
        if where == (torch.device("cuda"),):
            if non_blocking:
                log("copy without waiting")
            return tensor
        return to(tensor, *where, **others)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the network's, {device}")
    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(torch.Tensor, "to", copied)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: log(f"used by {stream}"))
    loader = Streamed(images, torch.device("cuda"))
    ((found, labels),) = loader.load(torch.arange(8), 8)
    assert calls == [
        "stream of cuda",
        "pinned buffer",
        "thread: enter the stream",
        "thread: copy without waiting",
        "thread: leave it",
        "thread: wait for the copy",
        "used by the network's, cuda",
    ]
    assert np.array_equal(found.numpy(), images.pixels[:8])
    assert np.array_equal(labels.numpy(), images.labels[:8])


linux = pytest.mark.skipif(sys.platform != "linux", reason="it measures by /proc")


def sparse(folder: Path, count: int, side: int) -> Images:
    """So many black images, of which no byte is on the disk."""
    with (folder / "images.npy").open("wb") as file:
        shape = (count, side, side, 3)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + count * side * side * 3)
    np.save(folder / "labels.npy", np.arange(count) % 2)
    return load_images(folder, Meta("black", ("a", "b"), (3, side, side), (0.0,) * 3, (1.0,) * 3, {}, "", ""))


def status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@linux
def test_images_that_are_larger_than_the_memory_train_a_network(settings: Config, cpu: Device, tmp_path: Path) -> None:
    more_than_there_is = 5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    count, side = more_than_there_is // (3 * 128 * 128), 128
    meta = Meta("black", ("a", "b"), (3, side, side), (0.0,) * 3, (1.0,) * 3, {}, "", "")
    short = settings.with_values({"train.epochs": 1, "train.batch_size": 16, "model.width": 4})
    before, limits = status_bytes("VmData"), resource.getrlimit(resource.RLIMIT_DATA)
    # What the process may allocate, and map to write to.
    resource.setrlimit(resource.RLIMIT_DATA, (before + 2**30, limits[1]))
    try:
        images = sparse(tmp_path, count, side)
        training, validation = splits.split(images.labels, 0.1, seed=0)
        positions = training[:: len(training) // 40], validation[:: len(validation) // 40]
        parts = Parts.build(short, meta, images, cpu, positions=positions)
        (epoch,) = loop.fit(*parts, short.train, cpu)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    assert images.pixels.nbytes > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert (epoch.number, len(parts.training)) == (1, 32)


@linux
def test_what_was_read_does_not_stay_memory_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "_LARGE_BYTES", 0)
    monkeypatch.setattr(loaders, "_HELD_BYTES", 2**24)
    images = sparse(tmp_path, 8_000, 100)
    before, highest = status_bytes("VmRSS"), 0
    for _ in OrderedBatches(Streamed(images, CPU), np.arange(8_000), batch_size=100).epoch():
        highest = max(highest, status_bytes("VmRSS"))
    assert images.pixels.nbytes > 2**27
    assert highest - before < 2**26


@linux
def test_of_a_large_file_nothing_but_the_images_of_a_batch_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "_LARGE_BYTES", 0)
    path = tmp_path / "images.npy"
    np.save(path, np.ones((20_000, 32, 32, 3), np.uint8))
    np.save(tmp_path / "labels.npy", np.zeros(20_000, np.int64))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    images = load_images(tmp_path, Meta("one", ("a",), (3, 32, 32), (0.0,) * 3, (1.0,) * 3, {}, "", ""))

    def read_bytes() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))

    before = read_bytes()
    found = images.gather(np.linspace(0, 19_999, 40).astype(np.int64))
    assert (found == 1).all()
    assert read_bytes() - before < 40 * 4 * 4096
