"""CPU time and memory of the owner of a search, which asks, decides and records in Optuna and MLflow.

    python benchmarks/search_owner.py
    python benchmarks/search_owner.py --trials 2000 --turns 1 --json

A study with the scheduler asha and the sampler tpe runs on an engine that trains nothing, with all its records: the
journal, MLflow's SQLite store, confusion matrices. The study is run again with three times the epochs. The difference
separates the cost of an epoch from that of a trial. CPU time is that of all threads of the owner, without imports.
Memory is measured after 50 trials (or a tenth) and at the end.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline import config
from pipeline.config import Config
from pipeline.files import Project
from pipeline.records import Meta
from pipeline.search.engines.simulated import SimulatedEngine
from pipeline.search.schedulers.asha import Asha
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values
from pipeline.search.studies.journal import journal
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.owner import Owner
from pipeline.search.studies.proposals import Proposals
from pipeline.search.studies.recorder import Recorder, StudyRun
from pipeline.search.studies.samplers import Proposer
from pipeline.search.studies.trials import Trial, TrialSetup
from pipeline.search.studies.watcher import Watcher
from pipeline.tracking import Tracker

PARAMS = Path(__file__).parent.parent / "params.yaml"
META = Meta("cifar10", tuple("abcdefghij"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {"train": 50_000}, "sha256:0", "")
CONFUSION = tuple(tuple(450 if row == column else 5 for column in range(10)) for row in range(10))


class Scale(Watcher):
    """Measures the memory of the process when a number of trials have begun."""

    def __init__(self, at: int) -> None:
        self.at, self.early_bytes = at, 0

    def sent(self, trial: Trial, settings: Config) -> None:
        if trial.number == self.at and not self.early_bytes:
            self.early_bytes = psutil.Process().memory_info().rss


def curve(space: Space, epochs: int) -> Any:
    """Curves that differ: a made-up optimum in the middle of the space."""

    def found(values: Values) -> Sequence[float]:
        distance = float(np.square(space.encode([values])[0] - 0.4).sum())
        return [(0.95 - 0.2 * distance) * (1 - 0.8 ** (10 * epoch / epochs)) for epoch in range(1, epochs + 1)]

    return found


def run(trials: int, first_rung: int) -> dict[str, float]:
    """One study; its longest trials have 27 times `first_rung` epochs."""
    epochs = 27 * first_rung
    settings = config.load(PARAMS, {"train.epochs": epochs, "tune.trials": trials})
    space = Space.of(settings)

    def config_of(trial: Trial) -> Config:
        return settings.with_values({**trial.values, "train.seed": trial.attributes["seed"]})

    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), Path(folder))
        with Tracker(project) as tracker:
            parent = tracker.open("study-benchmark", name="study")
            ledger = Ledger(journal(project.optuna_journal), "benchmark")
            tags = {f"version.{name}": "1.2.3" for name in "abcdefgh"}
            setup = TrialSetup(config_of=config_of, epochs=epochs, folder=project.root / "trials")
            recorder = Recorder(study=StudyRun(tracker, parent, META, tags), ledger=ledger, setup=setup, phase="trial")
            scale = Scale(min(50, trials // 10))
            engine = SimulatedEngine(curve(space, epochs), confusion=CONFUSION)
            owner = Owner(
                ledger=ledger,
                source=Proposals(trials, space, Proposer(space, "tpe", 0), 0),
                scheduler=Asha(epochs, first_rung, 3),
                engine=engine,
                setup=setup,
                watchers=(recorder, scale),
            )
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            owner.run()
            owner_s = time.perf_counter() - wall_s
        # The block above ends when MLflow has all of it.
        return {
            "trials": len(ledger.trials),
            "epochs": engine.epochs_trained,
            "cpu_s": time.process_time() - cpu_s,
            "loop_s": owner_s,
            "early_bytes": scale.early_bytes,
            "end_bytes": psutil.Process().memory_info().rss,
        }


def figures(trials: int) -> dict[str, float]:
    """Of one study, and of one of the same trials with three times the epochs."""
    short, long = run(trials, 1), run(trials, 3)
    epoch_s = (long["cpu_s"] - short["cpu_s"]) / (long["epochs"] - short["epochs"])
    return {
        "trials": trials,
        "epochs": short["epochs"],
        "ms_per_epoch": epoch_s * 1000,
        "ms_per_trial": (short["cpu_s"] - epoch_s * short["epochs"]) / short["trials"] * 1000,
        "megabytes_early": short["early_bytes"] / 1e6,
        "megabytes_end": short["end_bytes"] / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--turns", type=int, default=5, help="of which the medians are printed (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    run(10, 1)  # imports, and what is made once
    turns = [figures(arguments.trials) for _ in range(arguments.turns)]
    medians = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    if arguments.json:
        print(json.dumps(medians | {"turns": turns}, indent=2))
    else:
        for name, value in medians.items():
            print(f"{name:16} {value:,.1f}")


if __name__ == "__main__":
    main()
