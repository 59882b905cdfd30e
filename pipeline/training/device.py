"""The device of a training, with its precision, threads and memory format."""

import ctypes
import gc
import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from pipeline.batches import loaders
from pipeline.batches.images import Images
from pipeline.batches.loaders import Loader
from pipeline.errors import ConfigError
from pipeline.machine import Machine
from pipeline.records import DeviceRecord

Precision = Literal["fp32", "bf16"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names in malloc.h: from how many bytes on free memory at the heap's end, or a block, is returned to the kernel."""
_KEPT_BYTES = 2**30
"""The value set for both."""


@dataclass(frozen=True)
class Device:
    """One device with the settings that suit it."""

    handle: torch.device
    precision: Precision
    threads: int
    memory_share: float = 1.0
    """Of the memory of a GPU, what this process may count on: workers of a search may share one."""

    @classmethod
    def choose(cls, requested: str, precision: str, threads: int | None, machine: Machine) -> "Device":
        """The device for `train.device`, `train.precision` and `train.threads` on this machine.

        Raises ConfigError if a device or precision asked for by name is not available.
        """
        device = torch.device(_first_there(machine) if requested == "auto" else requested)
        if device.type == "cuda" and (device.index or 0) >= machine.cuda_devices:
            there = f"{machine.cuda_devices} CUDA devices" if machine.cuda_devices else "no CUDA device"
            raise ConfigError(f"train.device is {requested}, but PyTorch finds {there} here; set auto or cpu.")
        if device.type == "mps" and not machine.mps:
            raise ConfigError("train.device is mps, but PyTorch finds no Apple GPU here; set auto or cpu.")
        native_bf16 = {
            "cuda": device.type == "cuda" and machine.cuda_bf16[device.index or 0],
            "cpu": machine.cpu_bf16,
            "mps": False,
        }[device.type]
        if precision == "bf16" and not native_bf16:
            raise ConfigError(f"train.precision is bf16, but {device.type} has no native bf16 here; set auto or fp32.")
        # Emulated bf16 is several times slower than fp32; native bf16 is much faster.
        return cls(device, "bf16" if precision != "fp32" and native_bf16 else "fp32", threads or machine.cores)

    def prepare(self) -> None:
        """Sets this process up for the device: threads, memory, precision, cuDNN's choice of algorithms.

        A call before each training also returns the memory that the previous one has left, and the peak begins anew.
        """
        torch.set_num_threads(self.threads)
        if self.handle.type == "cpu":
            _keep_freed_memory()
        if self.handle.type == "cuda":
            if self.handle.index is not None:  # cuda alone is the present one
                torch.cuda.set_device(self.handle)
            # fp32 is IEEE's. PyTorch convolves in TF32, with ten bits of precision, unless told not to.
            torch.backends.cuda.matmul.fp32_precision = "ieee"
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
            torch.backends.cudnn.benchmark = True
            self.give_back()
            torch.cuda.reset_peak_memory_stats(self.handle)

    def give_back(self) -> None:
        """Returns the memory of a GPU that nothing uses, for the processes that share it. A CPU's is left alone."""
        if self.handle.type != "cpu":
            gc.collect()  # the graph of a step that failed may hold itself
        if self.handle.type == "cuda":
            torch.cuda.empty_cache()
        elif self.handle.type == "mps":
            torch.mps.empty_cache()

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which networks compute: autocast for bf16, none for fp32."""
        if self.precision == "bf16":
            return torch.autocast(self.handle.type, dtype=torch.bfloat16)
        return nullcontext()

    @property
    def memory_format(self) -> torch.memory_format:
        """channels_last, which cuDNN and oneDNN convolve faster; on MPS it brings nothing."""
        return torch.contiguous_format if self.handle.type == "mps" else torch.channels_last

    @property
    def fused_optimizer(self) -> bool:
        return self.handle.type in ("cuda", "cpu")

    @property
    def waits_for_launches(self) -> bool:
        """Whether few operations on much data are faster than many on little, more arithmetic included."""
        return self.handle.type == "cuda"

    def synchronize(self) -> None:
        """Waits until the device is idle, for measurements of time."""
        if self.handle.type == "cuda":
            torch.cuda.synchronize(self.handle)
        elif self.handle.type == "mps":
            torch.mps.synchronize()

    def free_memory_bytes(self) -> int:
        """What this process may still allocate of the device's own memory, in bytes: 0 on a CPU, which has none."""
        if self.handle.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.handle)
            held = torch.cuda.memory_allocated(self.handle)
            # PyTorch keeps what an earlier training has freed, and the driver counts it as taken.
            free += torch.cuda.memory_reserved(self.handle) - held
            return min(free, round(self.memory_share * total) - held)
        if self.handle.type == "mps":
            most = round(self.memory_share * torch.mps.recommended_max_memory())
            return most - torch.mps.current_allocated_memory()
        return 0

    def loader(self, images: Images) -> Loader:
        """Brings images to this device: resident where they fit, else streamed."""
        return loaders.choose(images, self.handle, self.free_memory_bytes())

    def peak_memory_bytes(self) -> int:
        """The most memory held so far, in bytes: on CUDA that of the device, else that of this process."""
        if self.handle.type == "cuda":
            return torch.cuda.max_memory_allocated(self.handle)
        try:
            import resource
        except ImportError:  # Windows
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else peak * 1024

    @property
    def name(self) -> str:
        """The name of the GPU or of the processor."""
        if self.handle.type == "cuda":
            return torch.cuda.get_device_name(self.handle)
        return _processor_name()

    def described(self) -> DeviceRecord:
        """For the record of a run."""
        return DeviceRecord(str(self.handle), self.name, self.threads, self.precision)


def _first_there(machine: Machine) -> str:
    if machine.cuda_devices:
        return "cuda"
    return "mps" if machine.mps else "cpu"


def _keep_freed_memory() -> None:
    """Makes the C library keep freed memory for the next training step, up to a gibibyte per block.

    By default glibc maps each feature map of more than 32 MiB anew. The kernel then clears it page by page at the first
    write, which takes a fifth of a step. Memory kept from another training may have blocks of other sizes, so it is
    returned first. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
