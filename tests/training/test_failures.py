import pytest
import torch

from pipeline.errors import OutOfMemory
from pipeline.machine import Machine
from pipeline.training.device import Device
from pipeline.training.failures import has_broken, lacks_memory, memory_errors

GPU = Device.choose("cuda", "auto", 1, Machine(cores=1, cuda_devices=1, cuda_bf16=(True,)))

SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported asynchronously"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 5.05 GB, other allocations: 2.29 MB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] . DefaultCPUAllocator: not enough memory: you tried to allocate"),
    MemoryError(),
]
FATAL = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
]
OTHER = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ValueError("out of memory of the reader"),
]


@pytest.mark.parametrize("error", [*SHORT, *FATAL, *OTHER], ids=lambda error: str(error)[:60])
def test_errors_that_mean_too_little_memory_are_told_from_all_others(error: Exception) -> None:
    assert lacks_memory(error) == (error in SHORT)
    short = error in SHORT
    with pytest.raises(OutOfMemory if short else type(error)) as caught, memory_errors(GPU, 64):
        raise error
    assert (caught.value is error) != short


@pytest.mark.parametrize("error", SHORT[:4], ids=lambda error: str(error)[:40])
def test_the_advice_names_the_key_and_a_gpu_that_tells_its_name_no_more_is_named_by_its_number(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> str:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "get_device_name", fails)
    with (
        pytest.raises(
            OutOfMemory, match=r"^cuda has too little memory for batches of 64 \(evaluate\.batch_size\): halve it\. Py"
        ),
        memory_errors(GPU, 64, "evaluate.batch_size"),
    ):
        raise error
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    with (
        pytest.raises(
            OutOfMemory, match=r"^cuda \(a GPU\) has .* halve it \(and train.learning_rate with it\), or lower"
        ),
        memory_errors(GPU, 64),
    ):
        raise error


@pytest.mark.parametrize("error", [*SHORT, *FATAL, *OTHER], ids=lambda error: str(error)[:60])
def test_a_gpu_has_broken_after_an_error_of_its_own_or_if_it_answers_no_more(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    assert has_broken(GPU, error) == (error in FATAL)

    def fails(_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    assert has_broken(GPU, error) == (error not in SHORT)
    assert len(asked) == (error in OTHER)


def test_a_cpu_does_not_break(cpu: Device) -> None:
    assert not has_broken(cpu, ZeroDivisionError())
