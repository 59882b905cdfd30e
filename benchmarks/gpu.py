"""Whether a GPU computes what a CPU does, how fast it is, and what it survives: in at most six minutes.

    python benchmarks/gpu.py --data cifar-10-python.tar.gz --out gpu.json
    python benchmarks/gpu.py --device cpu --quick           (all phases on a small scale, without a GPU)

The phases, each in a process of its own that is ended at its limit (gpu_phases.py):

    right       tests marked gpu; against the CPU: augmentations, logits, optimisers, checkpoints; waits in a step
    speed       families x batch sizes: images/s, kernels of a step, the share of time in which the GPU computes
    accuracy    seconds to 84.5, 90, 92 and 94 % of the test set, three seeds after a warm-up that does not count:
                shipped, accurate, and record (record.py), after the CIFAR speed records
    searches    trials of a search by 1, 4 and 8 workers on the GPU
    memory      too little memory, a neighbour that has it, an assertion that fails on the device
    kills       a training that is killed and resumes; probabilities by the GPU and by the CPU

After each phase its figures are added to the JSON file; at the end a short table is printed. Without --data the images
are scikit-learn's digits, which show that all works, and no speed worth having.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archives import HELP

from pipeline.cli import guarded

LIMITS_S = {"right": 60, "speed": 80, "accuracy": 70, "searches": 80, "memory": 35, "kills": 35}
"""In total six minutes."""
QUICK_TIMES = 4
"""With --quick the limits are so many times as long: it is for CPUs, on which starting takes most of the time."""


def run(phase: str, arguments: argparse.Namespace, limit_s: float) -> dict[str, Any]:
    """The figures of a phase, in a process group that is ended at the limit."""
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "figures.json"
        command = [sys.executable, str(Path(__file__).parent / "gpu_phases.py"), phase, str(into), arguments.device]
        command += [str(arguments.data.resolve()) if arguments.data else "", "quick" if arguments.quick else "full"]
        began_s = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            output, _ = process.communicate(timeout=limit_s)
            ended = "" if process.returncode == 0 else f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            _end(process)
            output, _ = process.communicate()
            ended = f"not over after {limit_s:.0f} s"
        except BaseException:
            _end(process)
            raise
        # A phase writes what it has after each step, so that its limit costs the last one only.
        found = json.loads(into.read_text()) if into.exists() else {}
    if ended:
        found |= {"ended": ended, "output": output[-2_000:]}
    return found | {"seconds": round(time.monotonic() - began_s, 1)}


def _end(process: subprocess.Popen[str]) -> None:
    """The process and all that it started in its group."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def lines(phase: str, found: dict[str, Any]) -> list[str]:
    """A line for each figure of a phase, with how it ended."""
    heads = {"seconds", "ended", "output"}
    made = [f"{phase}: {found['seconds']:g} s" + (f", {found['ended']}" if "ended" in found else "")]
    for name, value in found.items():
        if name not in heads:
            shown = ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else value
            made.append(f"  {name:28}  {shown}")
    return made + [f"  {line}" for line in found.get("output", "").splitlines()[-5:]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help=f"{HELP} (default: the digits)")
    parser.add_argument("--device", default="cuda", help="as train.device has it (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--phases", default=",".join(LIMITS_S), help="default: all, %(default)s")
    parser.add_argument("--out", type=Path, default=None, help="a JSON file, written anew after each phase")
    arguments = parser.parse_args(argv)
    phases = arguments.phases.split(",")
    if strangers := [phase for phase in phases if phase not in LIMITS_S]:
        parser.error(f"--phases: there is no {strangers[0]}; there are {', '.join(LIMITS_S)}")
    found: dict[str, dict[str, Any]] = {}
    for phase in phases:
        limit_s = LIMITS_S[phase] * (QUICK_TIMES if arguments.quick else 1)
        print(f"{phase}, up to {limit_s} s", file=sys.stderr, flush=True)
        found[phase] = run(phase, arguments, limit_s)
        if arguments.out:
            arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for phase in phases:
        print("\n".join(lines(phase, found[phase])))
    if any("ended" in each or each.get("failed") for each in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
