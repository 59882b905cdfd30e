"""What a machine offers, and where the workers of a search run on it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

GPU_SIGNS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
"""On Linux one of these exists if there is a GPU: of NVIDIA, of AMD, under Windows."""


@dataclass(frozen=True)
class Machine:
    """What a machine offers. `Machine.probe()` finds out; tests give one as an argument."""

    cores: int
    """Cores that this process may use."""
    cuda_devices: int = 0
    cuda_bf16: bool = False
    """Whether the CUDA devices have bf16 natively."""
    mps: bool = False
    """Whether there is an Apple GPU."""
    cpu_bf16: bool = False
    """Whether the processor has bf16 natively."""

    @classmethod
    def probe(cls) -> "Machine":
        """All that a machine offers. Imports PyTorch, which takes seconds."""
        import torch

        cpu: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.10
        return cls(
            cores=_cores(),
            cuda_devices=torch.cuda.device_count(),
            cuda_bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False),
            mps=torch.backends.mps.is_available(),
            cpu_bf16=bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16")),
        )

    @classmethod
    def glance(cls) -> "Machine":
        """The cores and the GPUs. Imports PyTorch only if there may be a GPU."""
        if sys.platform == "linux" and not any(sign.exists() for sign in GPU_SIGNS):
            return cls(cores=_cores())
        return cls.probe()


class Placement(NamedTuple):
    """Where a worker trains."""

    device: str
    """As train.device has it."""
    threads: int
    """CPU threads."""


def placements(
    machine: Machine, requested: str, threads: int | None, workers: int | None, workers_per_gpu: int
) -> list[Placement]:
    """One placement per worker, for a `requested` device (train.device), `threads` (train.threads) and `workers`.

    With `workers` None there are `workers_per_gpu` per GPU, on all GPUs for auto and cuda; on a CPU there is one per
    core, or one per `threads` cores. Many workers of one thread train more than one worker of many threads, since
    OpenMP's threads wait for each other, and their numbers don't depend on how many they are.
    """
    if machine.cuda_devices and requested in ("auto", "cuda"):
        devices = [f"cuda:{index}" for index in range(machine.cuda_devices)]
    elif requested == "auto":
        devices = ["mps" if machine.mps else "cpu"]
    else:
        devices = [requested]
    if devices == ["cpu"]:
        count = workers or max(1, machine.cores // (threads or 1))
        return [Placement("cpu", threads or 1)] * count
    count = workers or len(devices) * workers_per_gpu
    share = threads or max(1, machine.cores // count)
    return [Placement(devices[index % len(devices)], share) for index in range(count)]


def _cores() -> int:
    """The cores that this process may use. A container or a scheduler often grants fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
