"""Start of a search: seconds from the command to the end of its first training step.

    python benchmarks/search_startup.py
    python benchmarks/search_startup.py --turns 9 --json

`python -m pipeline.tune` on the handwritten digits, with two workers, trains epochs of one step each (one batch holds
all images). The clock stops when the journal has the first epoch. By then the step, its validation, a checkpoint on
disk and their records are done. Each turn starts a study in a folder without a database, and then another one in the
same folder, which is the usual case. A first start that is not counted brings all files into memory.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline import download
from pipeline.files import Project

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"
SETTINGS = {"train.batch_size": 4096, "space.train.batch_size": "[4096]", "train.epochs": 500, "tune.confirm": 0}
PATIENCE_S = 120.0


def start(project: Project, study: str) -> float:
    """Seconds from the command to the first epoch on record. The search is stopped then."""
    command = [sys.executable, "-m", "pipeline.tune", "--trials", "2", "--workers", "2", "--study", study]
    for name, value in SETTINGS.items():
        command += ["--set", f"{name}={value}"]
    before = _epochs(project)
    with (project.root / "log").open("w") as log:
        began_s = time.perf_counter()
        search = subprocess.Popen(command, cwd=project.root, stdout=log, stderr=log)
        try:
            while _epochs(project) == before:
                if search.poll() is not None or time.perf_counter() - began_s > PATIENCE_S:
                    raise SystemExit(f"The search did not begin:\n{(project.root / 'log').read_text()}")
                time.sleep(0.01)
            took_s = time.perf_counter() - began_s
        finally:
            search.terminate()
            search.wait()
    return took_s


def _epochs(project: Project) -> int:
    """How many the journal has."""
    journal = project.optuna_journal
    return journal.read_text().count('"intermediate_value"') if journal.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    first, later = [], []
    for _ in range(arguments.turns + 1):
        with tempfile.TemporaryDirectory() as name:
            project = Project(Path(name), Path(name))
            for file in ("params.yaml", "dvc.yaml"):
                shutil.copy(EXAMPLE / file, project.root)
            download.download(project)
            first.append(start(project, "first"))
            later.append(start(project, "later"))
    figures = {
        "first_start_s": statistics.median(first[1:]),
        "first_start_at_most_s": max(first[1:]),
        "later_start_s": statistics.median(later[1:]),
        "later_start_at_most_s": max(later[1:]),
    }
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        for title, found in (("first start in a folder", first), ("later ones", later)):
            print(f"{title:24} {statistics.median(found[1:]):.1f} s, at most {max(found[1:]):.1f} s")


if __name__ == "__main__":
    main()
