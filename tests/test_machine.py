import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import machine
from pipeline.machine import Machine, Placement, placements

LAPTOP = Machine(cores=4)
SERVER = Machine(cores=16, cuda_devices=2)
APPLE = Machine(cores=10, mps=True)


@pytest.mark.parametrize(
    ("on", "requested", "threads", "workers", "per_gpu", "expected"),
    [
        (LAPTOP, "auto", None, None, 1, [Placement("cpu", 1)] * 4),
        (LAPTOP, "cpu", 2, None, 1, [Placement("cpu", 2)] * 2),
        (LAPTOP, "cpu", 8, None, 1, [Placement("cpu", 8)]),
        (LAPTOP, "auto", None, 2, 1, [Placement("cpu", 1)] * 2),
        (SERVER, "auto", None, None, 1, [Placement("cuda:0", 8), Placement("cuda:1", 8)]),
        (SERVER, "cuda", None, None, 2, [Placement(f"cuda:{index}", 4) for index in (0, 1, 0, 1)]),
        (SERVER, "cuda:1", None, None, 3, [Placement("cuda:1", 5)] * 3),
        (SERVER, "auto", 3, 3, 1, [Placement(f"cuda:{index}", 3) for index in (0, 1, 0)]),
        (SERVER, "cpu", None, None, 1, [Placement("cpu", 1)] * 16),
        (APPLE, "auto", None, None, 1, [Placement("mps", 10)]),
    ],
)
def test_workers_are_placed_where_they_suit_the_machine(
    on: Machine, requested: str, threads: int | None, workers: int | None, per_gpu: int, expected: list[Placement]
) -> None:
    assert placements(on, requested, threads, workers, per_gpu) == expected


def test_a_glance_sees_the_gpus_that_a_probe_finds_if_there_is_a_sign_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "probe", lambda: SERVER)
    monkeypatch.setattr(machine, "GPU_SIGNS", (tmp_path / "no sign", tmp_path))
    assert Machine.glance() == SERVER


def test_a_probe_finds_no_gpu_where_a_glance_sees_no_sign_of_one() -> None:
    assert any(sign.exists() for sign in machine.GPU_SIGNS) or Machine.probe().cuda_devices == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux grants cores to a process")
def test_without_a_sign_of_a_gpu_a_glance_counts_the_granted_cores_and_leaves_pytorch_alone() -> None:
    code = """
import os, sys
from pipeline import machine

machine.GPU_SIGNS = ()
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})
assert machine.Machine.glance() == machine.Machine(cores=1), machine.Machine.glance()
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_module_is_light() -> None:
    code = "import sys, pipeline.machine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
