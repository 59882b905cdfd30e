"""Time that two workers need for a study, relative to one worker, on a machine of two cores.

    python benchmarks/search_workers.py
    python benchmarks/search_workers.py --trials 20 --epochs 6 --json

`python -m pipeline.tune` runs the same study on the handwritten digits twice, with its start, records and models: with
one worker of one thread, then with two. The sampler is random and the scheduler none, so both train the same
configurations with the same seeds for the same number of epochs. The benchmark checks that their results are equal, so
it trains on the CPU: on a GPU some sums are added in varying order.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline import download
from pipeline.files import Project

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"


def run(folder: Path, workers: int, trials: int, epochs: int) -> tuple[float, list[list[str]]]:
    """Seconds from the command to its end, and each trial's number, epochs and accuracy."""
    settings = {
        "train.epochs": epochs,
        "train.device": "cpu",
        # Networks that take their time: what is measured is the training, not the start.
        "model.depth": 20,
        "model.width": 32,
        "space.model.depth": "[14, 20]",
        "space.model.width": "[16, 32]",
        "tune.sampler": "random",
        "tune.scheduler": "none",
        "tune.confirm": 0,
    }
    command = [sys.executable, "-m", "pipeline.tune", "--trials", str(trials), "--workers", str(workers)]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    began_s = time.perf_counter()
    subprocess.run([*command, "--study", f"workers-{workers}"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    took_s = time.perf_counter() - began_s
    with Project(folder, folder).trials.open(newline="") as file:
        found = [[row["trial"], row["epochs"], row["validation_accuracy"]] for row in csv.DictReader(file)]
    return took_s, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("params.yaml", "dvc.yaml"):
            shutil.copy(EXAMPLE / file, folder)
        download.download(Project(folder, folder))
        one_s, alone = run(folder, 1, arguments.trials, arguments.epochs)
        two_s, batch = run(folder, 2, arguments.trials, arguments.epochs)
        if alone != batch:
            raise SystemExit("The two studies differ: their times can't be compared.")
    figures = {"one_worker_s": one_s, "two_workers_s": two_s, "ratio": two_s / one_s}
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        print(f"one worker {one_s:.1f} s, two workers {two_s:.1f} s: {two_s / one_s:.3f} of the time")


if __name__ == "__main__":
    main()
