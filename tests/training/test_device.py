import gc
import platform
from dataclasses import replace

import psutil
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.machine import Machine
from pipeline.training.device import Device

LAPTOP = Machine(cores=4)
SERVER = Machine(cores=16, cuda_devices=2, cuda_bf16=(True, True), cpu_bf16=True)
OLD_GPU = Machine(cores=8, cuda_devices=1, cuda_bf16=(False,))
MIXED = Machine(cores=8, cuda_devices=2, cuda_bf16=(False, True))
APPLE = Machine(cores=10, mps=True)
ZEN4 = Machine(cores=2, cpu_bf16=True)


@pytest.mark.parametrize(
    ("machine", "requested", "precision", "device", "chosen"),
    [
        (LAPTOP, "auto", "auto", "cpu", "fp32"),
        (ZEN4, "auto", "auto", "cpu", "bf16"),
        (ZEN4, "auto", "fp32", "cpu", "fp32"),
        (SERVER, "auto", "auto", "cuda", "bf16"),
        (SERVER, "auto", "fp32", "cuda", "fp32"),
        (SERVER, "cuda:1", "auto", "cuda:1", "bf16"),
        (SERVER, "cpu", "bf16", "cpu", "bf16"),
        (OLD_GPU, "auto", "auto", "cuda", "fp32"),
        (MIXED, "cuda:0", "auto", "cuda:0", "fp32"),
        (MIXED, "cuda:1", "auto", "cuda:1", "bf16"),
        (APPLE, "auto", "auto", "mps", "fp32"),
        (APPLE, "cpu", "auto", "cpu", "fp32"),
    ],
)
def test_the_best_device_and_precision_of_a_machine_are_chosen(
    machine: Machine, requested: str, precision: str, device: str, chosen: str
) -> None:
    choice = Device.choose(requested, precision, None, machine)
    assert (str(choice.handle), choice.precision, choice.threads) == (device, chosen, machine.cores)


@pytest.mark.parametrize(
    ("machine", "requested", "precision", "sentence"),
    [
        (LAPTOP, "cuda", "auto", "train.device is cuda, but PyTorch finds no CUDA device here; set auto or cpu."),
        (SERVER, "cuda:2", "auto", "train.device is cuda:2, but PyTorch finds 2 CUDA devices here"),
        (LAPTOP, "mps", "auto", "train.device is mps, but PyTorch finds no Apple GPU here"),
        (LAPTOP, "cpu", "bf16", "train.precision is bf16, but cpu has no native bf16 here"),
        (OLD_GPU, "auto", "bf16", "train.precision is bf16, but cuda has no native bf16 here"),
    ],
)
def test_what_is_not_available_is_reported_with_a_way_out(
    machine: Machine, requested: str, precision: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Device.choose(requested, precision, None, machine)


def test_threads_are_set_where_they_are_asked_for(one_thread: None) -> None:
    Device.choose("cpu", "fp32", 2, LAPTOP).prepare()
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_memory_that_a_step_frees_is_there_for_the_next(one_thread: None) -> None:
    resource = pytest.importorskip("resource")
    Device.choose("cpu", "fp32", 1, LAPTOP).prepare()
    for _ in range(20):  # it takes some before a freed block lies beside free space alone, and so fits the next one
        torch.ones(2**24)  # 64 MiB: more than glibc keeps by itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1_000  # 16,384 pages


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_the_next_training_begins_without_the_memory_of_the_last(one_thread: None) -> None:
    device = Device.choose("cpu", "fp32", 1, LAPTOP)
    device.prepare()
    blocks = [torch.ones(2**23) for _ in range(8)]  # 32 MiB each
    held = psutil.Process().memory_info().rss
    del blocks
    assert held - psutil.Process().memory_info().rss < 2**26
    device.prepare()
    assert held - psutil.Process().memory_info().rss > 2**27


def test_a_gpu_gets_ieee_precision_its_own_context_and_the_memory_of_the_last_training_back(
    monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    called: list[object] = []
    # PyTorch's own checks of what it is given stay.
    monkeypatch.setattr(torch._C, "_cuda_setDevice", lambda index: called.append(("set", index)), raising=False)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *given, name=name: called.append((name, *map(str, given))))
    monkeypatch.setattr(gc, "collect", lambda: called.append("collect"))
    for place in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):
        monkeypatch.setattr(place, "fp32_precision", place.fp32_precision)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    for requested, precision in (("cuda:1", "bf16"), ("cuda:1", "fp32"), ("auto", "auto")):
        called.clear()
        device = Device.choose(requested, precision, 1, SERVER)
        device.prepare()
        chosen = [("set", 1)] if requested == "cuda:1" else []
        assert called == [*chosen, "collect", ("empty_cache",), ("reset_peak_memory_stats", str(device.handle))]
        assert torch.backends.cuda.matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "highest"


def test_autocast_is_on_for_bf16_alone() -> None:
    product = torch.ones(2, 2)
    with Device.choose("cpu", "bf16", 1, ZEN4).autocast():
        assert (product @ product).dtype == torch.bfloat16
    with Device.choose("cpu", "fp32", 1, ZEN4).autocast():
        assert (product @ product).dtype == torch.float32


def test_memory_format_and_fused_optimisers_suit_the_device() -> None:
    assert Device.choose("auto", "auto", 1, SERVER).memory_format == torch.channels_last
    assert Device.choose("auto", "auto", 1, LAPTOP).memory_format == torch.channels_last
    assert Device.choose("auto", "auto", 1, APPLE).memory_format == torch.contiguous_format
    assert Device.choose("auto", "auto", 1, SERVER).fused_optimizer
    assert not Device.choose("auto", "auto", 1, APPLE).fused_optimizer


def test_this_machine_is_probed_and_the_record_names_its_processor() -> None:
    machine = Machine.probe()
    assert machine.cores >= 1
    assert machine.cuda_devices == torch.cuda.device_count()
    record = Device.choose("cpu", "fp32", 1, machine).described()
    assert record.type == "cpu"
    assert record.name
    assert Device.choose("cpu", "fp32", 1, machine).peak_memory_bytes() > 1e7


@pytest.mark.gpu
def test_a_gpu_is_chosen_named_and_measured() -> None:
    device = Device.choose("auto", "auto", None, Machine.probe())
    device.prepare()
    assert device.handle.type == "cuda"
    torch.ones(2**20, device=device.handle)
    device.synchronize()
    assert device.peak_memory_bytes() >= 2**22
    assert device.described().name == torch.cuda.get_device_name()


def test_free_memory_counts_what_pytorch_keeps_and_leaves_the_parts_of_other_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A GPU of 24 GB: 6 GB are taken by this process, of which 2 GB are freed but kept, and 10 GB by others."""
    for name, found in (("mem_get_info", (8e9, 24e9)), ("memory_reserved", 6e9), ("memory_allocated", 4e9)):
        monkeypatch.setattr(torch.cuda, name, lambda _, found=found: found)
    alone = Device.choose("cuda", "auto", 1, SERVER)
    assert alone.free_memory_bytes() == 10e9
    assert replace(alone, memory_share=1 / 2).free_memory_bytes() == 8e9
    assert Device.choose("cpu", "auto", 1, LAPTOP).free_memory_bytes() == 0
