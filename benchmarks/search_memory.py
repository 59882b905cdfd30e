"""Memory of a search over many trials: of its owner and its workers, after 50 trials and at the end.

    python benchmarks/search_memory.py
    python benchmarks/search_memory.py --trials 200 --json

`python -m pipeline.tune` trains many configurations for one epoch each on the handwritten digits, with two workers, all
records and no models. The resident memory of its processes is measured every half second. The figures that the owner
draws at the end are measured separately: they need matplotlib, whatever the number of trials.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil

from pipeline import download
from pipeline.files import Project

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"
EARLY = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    settings = {
        "train.epochs": 1,
        "tune.sampler": "random",
        "tune.scheduler": "none",
        "tune.confirm": 0,
        "tune.models": "none",
    }
    command = [sys.executable, "-m", "pipeline.tune", "--trials", str(arguments.trials), "--workers", "2"]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    early: dict[str, int] = {}
    peak: dict[str, int] = {}
    concluding: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        project = Project(Path(name), Path(name))
        for file in ("params.yaml", "dvc.yaml"):
            shutil.copy(EXAMPLE / file, project.root)
        download.download(project)
        began_s = time.perf_counter()
        with (project.root / "log").open("w") as log:
            owner = psutil.Popen(command, cwd=project.root, stdout=log, stderr=log)
        while owner.poll() is None:
            time.sleep(0.5)
            done = (project.root / "log").read_text().count(": finished")
            for number, process in enumerate([owner, *owner.children()]):
                # Workers are the owner's largest children; the others take a few megabytes.
                try:
                    size = process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
                who = "owner" if number == 0 else f"worker {process.pid}"
                if size > 100e6 and done >= EARLY:
                    early.setdefault(who, size)
                    sizes = peak if done < arguments.trials else concluding
                    sizes[who] = max(sizes.get(who, 0), size)
        if owner.returncode:
            raise SystemExit((project.root / "log").read_text())
        took_s = time.perf_counter() - began_s
    figures = {
        who: {
            "megabytes_after_50": early[who] / 1e6,
            "megabytes_at_most_after_that": peak[who] / 1e6,
            "megabytes_at_the_end": concluding.get(who, peak[who]) / 1e6,
        }
        for who in early
    }
    if arguments.json:
        print(json.dumps(figures | {"seconds": took_s}, indent=2))
    else:
        for who, sizes in figures.items():
            print(f"{who:14}" + ", ".join(f"{what.replace('_', ' ')} {size:,.0f}" for what, size in sizes.items()))
        print(f"{arguments.trials} trials in {took_s:,.0f} s")


if __name__ == "__main__":
    main()
