"""Time of `dvc repro`, in units of importing PyTorch and MLflow once.

    python benchmarks/repro_time.py
    python benchmarks/repro_time.py --turns 5 --json

The handwritten digits with the values of examples/digits: about a second of training. Everything else is what the
stages cost: imports, reading, writing, DVC's own work. Each turn runs the imports, then all stages in a new folder,
waits until MLflow has everything, and runs each stage by itself there. A first run that is not counted brings all files
into memory.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"
STAGES = {"config": ["--resolve"], "download": [], "train": [], "evaluate": [], "report": []}
"""The stages with their arguments."""
IMPORTS = [sys.executable, "-c", "import torch, mlflow"]
# The stages are to run with the Python that runs this.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def seconds(command: list[str], folder: Path) -> float:
    """Wall time of a command in `folder`. Ends this program with the command's output if it fails."""
    began_s = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began_s


def turn() -> dict[str, float]:
    """Seconds of the imports, of `dvc repro` in a new folder, and of each stage."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "digits"
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("data", "results", "cache", "tmp"))
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        found = {"imports": seconds(IMPORTS, folder)}
        found["dvc repro"] = seconds([sys.executable, "-m", "dvc", "repro"], folder)
        found["MLflow later by"] = seconds([sys.executable, "-m", "pipeline.tracking"], folder)
        return found | {
            stage: seconds([sys.executable, "-m", f"pipeline.{stage}", *arguments], folder)
            for stage, arguments in STAGES.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    if arguments.turns < 1:
        parser.error("--turns must be at least 1")
    turn()
    turns = [turn() for _ in range(arguments.turns)]
    found = {name: statistics.median(each[name] for each in turns) for name in turns[0]}
    ratio = statistics.median(each["dvc repro"] / each["imports"] for each in turns)
    if arguments.json:
        print(json.dumps({"seconds": found, "ratio": ratio, "turns": turns}))
        return
    for name, value in found.items():
        print(f"{name:15} {value:5.1f} s")
    print(f"dvc repro takes {ratio:.1f} times what the imports take (median of {arguments.turns} turns)")


if __name__ == "__main__":
    main()
