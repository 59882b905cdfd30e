"""benchmarks/gpu.py on a CPU: all phases, on a small scale."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from places import REPOSITORY


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_phases_run_without_a_gpu_and_leave_their_figures(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu.py"), "--device", "cpu", "--quick"]
    done = subprocess.run([*command, "--out", "gpu.json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found) == ["right", "speed", "accuracy", "searches", "memory", "kills"]
    for phase, figures in found.items():
        assert "ended" not in figures, phase
        assert len(figures) > 1
        assert all(
            each["as it should"] for each in figures.values() if isinstance(each, dict) and "as it should" in each
        )
        assert f"{phase}: " in done.stdout


@pytest.mark.slow
def test_a_phase_that_fails_is_named_with_its_end_and_the_others_run(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu.py"), "--device", "cuda:7", "--quick"]
    command += ["--phases", "speed", "--out", "gpu.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "speed: " in done.stdout
    assert "train.device is cuda:7, but PyTorch finds" in done.stdout
    assert json.loads((tmp_path / "gpu.json").read_text())["speed"]["ended"] == "exit code 1"
