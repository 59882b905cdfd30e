import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import REPOSITORY

from pipeline import machine
from pipeline.machine import Machine, Placement, granted_cores, placements

LAPTOP = Machine(cores=4)
SERVER = Machine(cores=16, cuda_devices=2)
APPLE = Machine(cores=10, mps=True)
MIG = Machine(cores=8, cuda_devices=2, named=("MIG-a", "MIG-b"))


@pytest.mark.parametrize(
    ("on", "requested", "threads", "workers", "per_gpu", "expected"),
    [
        (LAPTOP, "auto", None, None, 1, [Placement("cpu", 1)] * 4),
        (LAPTOP, "cpu", 2, None, 1, [Placement("cpu", 2)] * 2),
        (LAPTOP, "cpu", 8, None, 1, [Placement("cpu", 8)]),
        (LAPTOP, "auto", None, 2, 1, [Placement("cpu", 1)] * 2),
        (SERVER, "auto", None, None, 1, [Placement("cuda:0", 8), Placement("cuda:1", 8)]),
        (SERVER, "cuda", None, None, 2, [Placement(f"cuda:{index}", 4, 1 / 2) for index in (0, 1, 0, 1)]),
        (SERVER, "cuda:1", None, None, 3, [Placement("cuda:1", 5, 1 / 3)] * 3),
        (SERVER, "auto", 3, 3, 1, [Placement(f"cuda:{index}", 3, 1 / (2 - index)) for index in (0, 1, 0)]),
        (SERVER, "cpu", None, None, 1, [Placement("cpu", 1)] * 16),
        (APPLE, "auto", None, None, 1, [Placement("mps", 10)]),
        (MIG, "auto", None, None, 1, [Placement("cuda:0", 4, 1.0, "MIG-a"), Placement("cuda:0", 4, 1.0, "MIG-b")]),
        (MIG, "cuda:1", None, None, 2, [Placement("cuda:0", 4, 1 / 2, "MIG-b")] * 2),
        (MIG, "cuda:2", None, None, 1, [Placement("cuda:2", 8)]),
        (MIG, "cpu", 4, None, 1, [Placement("cpu", 4)] * 2),
    ],
)
def test_workers_are_placed_where_they_suit_the_machine(
    on: Machine, requested: str, threads: int | None, workers: int | None, per_gpu: int, expected: list[Placement]
) -> None:
    assert placements(on, requested, threads, workers, per_gpu) == expected


@pytest.mark.parametrize(
    ("listed", "counted", "expected"),
    [
        (None, 2, Machine(cores=4, cuda_devices=2)),
        ("1,0", 2, Machine(cores=4, cuda_devices=2)),
        ("GPU-a, GPU-b", 2, Machine(cores=4, cuda_devices=2, named=("GPU-a", "GPU-b"))),
        ("GPU-a,GPU-gone", 1, Machine(cores=4, cuda_devices=1, named=("GPU-a",))),
        ("MIG-a,MIG-b", 1, Machine(cores=4, cuda_devices=2, named=("MIG-a", "MIG-b"))),
        ("", 0, Machine(cores=4)),
        ("MIG-a", 0, Machine(cores=4)),
    ],
)
def test_a_glance_counts_the_gpus_where_there_is_a_sign_of_one_and_leaves_cuda_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str | None, counted: int, expected: Machine
) -> None:
    """PyTorch counts one of several parts of a GPU, as CUDA shows one to a process."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    monkeypatch.setattr(machine, "GPU_SIGNS", (tmp_path / "no sign", tmp_path))
    monkeypatch.setattr(machine, "granted_cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: counted)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch._C, "_cuda_init", lambda: pytest.fail("CUDA was initialised"), raising=False)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: pytest.fail("CUDA was initialised"))
    assert Machine.glance() == expected


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


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    return 64


def fake(root: Path, files: dict[str, str], groups: str = "0::/\n") -> tuple[Path, Path]:
    """Control groups below `root`, and the list of the groups of the process."""
    for name, text in files.items():
        (root / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "cgroup" / name).write_text(text)
    (root / "membership").write_text(groups)
    return root / "cgroup", root / "membership"


def v1(folder: str, quota_us: int, period_us: int = 100_000) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota_us}\n", f"{folder}/cpu.cfs_period_us": f"{period_us}\n"}


NESTED = "4:memory:/other\n2:cpu,cpuacct:/kubepods/pod1/box\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("files", "groups", "expected"),
    [
        ({}, "", 64),
        ({"cpu.max": "max 100000\n"}, "0::/\n", 64),
        ({"cpu.max": "200000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "10000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "999900000 100000\n"}, "0::/\n", 64),
        ({"cpu.max": "what\n"}, "0::/\n", 64),
        ({"cpu.max": "5 0\n"}, "0::/\n", 64),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b\n", 3),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "200000 100000"}, "0::/a/b\n", 2),
        ({"a/cpu.max": "100000 100000"}, "0::/b\n", 64),
        ({"cpu.max": "400000 100000"}, "0::/outside/the/container\n", 4),
        ({"unified/a/cpu.max": "400000 100000"}, "0::/a\n", 4),
        (v1("cpu", -1), "1:cpu:/\n", 64),
        (v1("cpu", 300_000), "1:cpu:/\n", 3),
        (v1("cpu", 30_000, 10_000), "1:cpu:/\n", 3),
        (v1("cpu", 300_000, 0), "1:cpu:/\n", 64),
        (v1("cpu,cpuacct", 300_000), NESTED, 3),
        (v1("cpu,cpuacct/kubepods", 500_000) | v1("cpu,cpuacct/kubepods/pod1/box", -1), NESTED, 5),
        (v1("cpu,cpuacct/kubepods", 500_000) | v1("cpu,cpuacct/kubepods/pod1/box", 100_000), NESTED, 1),
        (v1("cpu/other", 100_000), NESTED, 64),
        (v1("cpu/docker/a:b", 100_000), "1:cpu:/docker/a:b\n", 1),
    ],
)
def test_the_cpu_quota_of_a_container_limits_the_cores(
    tmp_path: Path, cores: int, files: dict[str, str], groups: str, expected: int
) -> None:
    assert granted_cores(*fake(tmp_path, files, groups)) == expected


def test_without_control_groups_the_cores_of_the_process_count(tmp_path: Path, cores: int) -> None:
    assert granted_cores(tmp_path / "none", tmp_path / "none") == cores


def test_no_module_but_this_one_counts_cores() -> None:
    sources = [path for path in (REPOSITORY / "pipeline").rglob("*.py") if path.name != "machine.py"]
    assert not [path for path in sources if re.search(r"cpu_count|sched_getaffinity", path.read_text())]


def test_tests_see_a_gpu_only_where_they_are_asked_to(pytestconfig: pytest.Config) -> None:
    assert "gpu" in pytestconfig.option.markexpr or Machine.probe().cuda_devices == 0
