"""What a machine offers, and where the workers of a search run on it."""

import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

GPU_SIGNS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
"""On Linux one of these exists if there is a GPU: of NVIDIA, of AMD, under Windows."""

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Machine:
    """What a machine offers. `Machine.probe()` finds out; tests give one as an argument."""

    cores: int
    """Cores that this process may use."""
    cuda_devices: int = 0
    cuda_bf16: tuple[bool, ...] = ()
    """Whether each of the CUDA devices has bf16 natively; empty after a glance."""
    mps: bool = False
    """Whether there is an Apple GPU."""
    cpu_bf16: bool = False
    """Whether the processor has bf16 natively."""
    named: tuple[str, ...] = ()
    """Names of the CUDA devices, where CUDA_VISIBLE_DEVICES lists GPUs or parts of one (MIG) by name."""

    @classmethod
    def probe(cls) -> "Machine":
        """All that a machine offers. Imports PyTorch, which takes seconds, and initialises CUDA."""
        import torch

        cpu: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.10
        return cls(
            cores=granted_cores(),
            cuda_devices=torch.cuda.device_count(),
            cuda_bf16=tuple(_has_bf16(index) for index in range(torch.cuda.device_count())),
            mps=torch.backends.mps.is_available(),
            cpu_bf16=bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16")),
        )

    @classmethod
    def glance(cls) -> "Machine":
        """The cores and the number of GPUs. Imports PyTorch only if there may be a GPU, and never initialises CUDA.

        A process that did would hold some hundred megabytes of each GPU, and could not fork.
        """
        if sys.platform == "linux" and not any(sign.exists() for sign in GPU_SIGNS):
            return cls(cores=granted_cores())
        import torch

        named = named_gpus(os.environ)
        count = torch.cuda.device_count()
        if count and named and named[0].startswith("MIG-"):
            count = len(named)  # a process sees one of them at a time
        return cls(
            cores=granted_cores(), cuda_devices=count, mps=torch.backends.mps.is_available(), named=named[:count]
        )


class Placement(NamedTuple):
    """Where a worker trains."""

    device: str
    """As train.device has it."""
    threads: int
    """CPU threads."""
    memory_share: float = 1.0
    """Of the memory of a GPU: the workers on one have equal parts."""
    visible: str | None = None
    """The only GPU that the worker sees, as CUDA_VISIBLE_DEVICES names it; None: it sees what its parent sees."""


def named_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The names in CUDA_VISIBLE_DEVICES (GPU-..., MIG-...); none where it lists numbers or is not set."""
    names = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return tuple(names) if all(name.startswith(("GPU-", "MIG-")) for name in names) else ()


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
    each = threads or max(1, machine.cores // count)
    chosen = [devices[index % len(devices)] for index in range(count)]
    shares = [1 / chosen.count(device) for device in chosen]
    if not machine.named or not machine.cuda_devices:
        return [Placement(device, each, share) for device, share in zip(chosen, shares, strict=True)]
    return [_alone_in_sight(machine, device, each, share) for device, share in zip(chosen, shares, strict=True)]


def _alone_in_sight(machine: Machine, device: str, threads: int, share: float) -> Placement:
    """A worker that sees a single GPU, or part of one, which is the first to it."""
    kind, _, number = device.partition(":")
    if kind != "cuda" or int(number or 0) >= len(machine.named):
        return Placement(device, threads, share)
    return Placement("cuda:0", threads, share, machine.named[int(number or 0)])


def _has_bf16(index: int) -> bool:
    """Whether a CUDA device has bf16 in hardware, as NVIDIA's have since Ampere."""
    import torch

    return torch.version.hip is not None or torch.cuda.get_device_capability(index)[0] >= 8


def granted_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """The cores that this process may use. A container or a scheduler often grants fewer than the machine has.

    It is the number of cores that the process may run on or, if that is less, the CPU quota of its control groups
    rounded up: of cgroup v1 and v2, of its own group and of all groups above. `cgroups` is where they are mounted,
    `membership` the list of the groups of this process.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _control_groups(cgroups, membership) if (quota := _quota(folder)) is not None]
    return max(1, math.ceil(min([cores, *quotas])))


def _control_groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """The folders of all control groups that limit the CPU time of this process."""
    groups = ["/"]  # a container sees its own group as the mounted one, whatever its name is outside
    with suppress(OSError, ValueError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                groups.append(group)
    for mount in (cgroups, *(cgroups / name for name in ("unified", "cpu", "cpu,cpuacct", "cpuacct,cpu"))):
        for folder in dict.fromkeys(mount / group.lstrip("/") for group in groups):
            yield from (above for above in (folder, *folder.parents) if above.is_relative_to(mount))


def _quota(folder: Path) -> float | None:
    """The cores that a control group grants; None if it sets no limit."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)  # without a limit the quota is "max"
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota_us = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_us = int((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
        return quota_us / period_us if quota_us > 0 else None
    return None
