"""What a machine offers, and where the workers of a search go on it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Machine:
    """What a machine offers; `Machine.probe()` looks, tests give one as an argument."""

    cores: int
    cuda_devices: int = 0
    cuda_bf16: bool = False
    mps: bool = False
    cpu_bf16: bool = False

    @classmethod
    def probe(cls) -> "Machine":
        import torch

        cpu: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch has it since 2.10
        return cls(
            cores=_cores(),
            cuda_devices=torch.cuda.device_count(),
            cuda_bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False),
            mps=torch.backends.mps.is_available(),
            cpu_bf16=bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16")),
        )

    @classmethod
    def glance(cls) -> "Machine":
        """Cores and GPUs, without the seconds that PyTorch takes where there is no sign of a GPU."""
        signs = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))  # NVIDIA, AMD, Windows' Linux
        if sys.platform == "linux" and not any(sign.exists() for sign in signs):
            return cls(cores=_cores())
        return cls.probe()


class Placement(NamedTuple):
    """Where a worker trains."""

    device: str
    threads: int


def placements(
    machine: Machine, requested: str, threads: int | None, workers: int | None, workers_per_gpu: int
) -> list[Placement]:
    """One for each worker: for `train.device` and `train.threads`, and `workers` if that many are asked for.

    On CUDA `workers_per_gpu` to a GPU, all GPUs for `auto` and `cuda`; on a CPU one to a core, or to `train.threads`
    cores. Workers of one thread do more together than one of many (OpenMP's threads wait for each other), and give
    the same numbers however many they are.
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
    """Those that this process may use: a container or a scheduler often grants fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
