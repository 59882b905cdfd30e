import subprocess
import sys

import pytest

from pipeline.machine import Machine, Placement, placements

LAPTOP = Machine(cores=4)
SERVER = Machine(cores=16, cuda_devices=2)
APPLE = Machine(cores=10, mps=True)


@pytest.mark.parametrize(
    ("machine", "requested", "threads", "workers", "per_gpu", "expected"),
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
def test_workers_go_where_the_machine_serves_them_well(
    machine: Machine, requested: str, threads: int | None, workers: int | None, per_gpu: int, expected: list[Placement]
) -> None:
    assert placements(machine, requested, threads, workers, per_gpu) == expected


def test_a_glance_agrees_with_the_full_look_on_what_places_depend_on() -> None:
    glance, probe = Machine.glance(), Machine.probe()
    assert (glance.cores, glance.cuda_devices, glance.mps) == (probe.cores, probe.cuda_devices, probe.mps)


def test_the_module_is_light() -> None:
    code = "import sys, pipeline.machine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
