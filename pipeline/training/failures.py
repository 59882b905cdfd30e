"""Errors of a device: which of them mean that memory was short, and which that the process can't use it any more."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import OutOfMemory
from pipeline.training.device import Device

_SHORT = re.compile(
    r"out of memory"  # CUDA's and HIP's drivers, MPS
    r"|can't allocate memory|not enough memory: you tried"  # PyTorch on a CPU: Linux, Windows
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE|HIPBLAS|MIOPEN)_?STATUS_\w*ALLOC(ATION)?_?FAILED",
    re.IGNORECASE,
)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed.

    PyTorch's own allocators raise OutOfMemoryError. Libraries that allocate by themselves, and the driver while a
    process begins to use a device, end as a RuntimeError that only its text tells from others.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _SHORT.search(str(error)) is not None


def has_broken(device: Device, error: BaseException) -> bool:
    """Whether this process can't use the device any more after an error.

    An illegal access or a failed assertion on a GPU ends its context: each call that follows raises too. A library may
    have reported it first in words of its own, so the device is asked.
    """
    if lacks_memory(error):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    try:
        device.synchronize()
    except RuntimeError as later:
        return not lacks_memory(later)
    return False


@contextmanager
def memory_errors(device: Device, batch_size: int, key: str = "train.batch_size") -> Iterator[None]:
    """A context that turns what PyTorch raises when an allocation fails into OutOfMemory, with advice.

    `key` is the name of `batch_size` in params.yaml.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        more = " (and train.learning_rate with it), or lower model.width" if key == "train.batch_size" else ""
        raise OutOfMemory(
            f"{_named(device)} has too little memory for batches of {batch_size} ({key}): halve it{more}. "
            f"PyTorch says: {error}"
        ) from error


def _named(device: Device) -> str:
    try:
        return f"{device.handle} ({device.name})"
    except (RuntimeError, AssertionError):  # a GPU that is full at the first call does not even tell its name
        return str(device.handle)
