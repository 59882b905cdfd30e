"""A search that is killed at random, again and again, until it is over; and the ledgers that it leaves."""

import csv
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

TIMES = ("train.images_per_second", "train.elapsed_s", "train.peak_memory_bytes")
"""Metrics that no two trainings share."""


def disturbed(command: list[str], folder: Path, seed: int, kills: int) -> int:
    """Runs a command to its end through at least `kills` kills; returns how many it were.

    Killed are the command's process, one of its children, all of them, with SIGKILL, or it is asked to end by SIGTERM
    or SIGINT. After the last kill it is left alone.
    """
    draw = random.Random(seed)
    done = 0
    while True:
        with (folder / "chaos.log").open("ab") as log:
            # A session of its own: what is sent to its group reaches nobody else.
            owner = psutil.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            done = _struck(owner, draw, done, kills)
            children = owner.children(recursive=True) if owner.is_running() else []
            code = owner.wait(timeout=240)
        except BaseException:  # a time limit of the test's too: the next test must not meet what is left
            with suppress(ProcessLookupError):
                os.killpg(owner.pid, signal.SIGKILL)
            owner.wait()
            raise
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, f"outlived their owner: {alive}"
        if code == 0:
            return done
        assert done <= kills, f"exit code {code}, see {folder / 'chaos.log'}"


def _struck(owner: psutil.Popen, draw: random.Random, done: int, kills: int) -> int:
    """Strikes until the owner ends, or `kills` are done; returns how many are done."""
    while done < kills and owner.is_running() and owner.status() != psutil.STATUS_ZOMBIE:
        # Most lives end before much is done, so that the search does not end before the kills do.
        time.sleep(draw.choice((draw.uniform(0.2, 4), draw.uniform(3, 7))))
        victims = _victims(owner, draw)
        if not victims:
            break
        done += 1
        if _strike(owner, victims, draw):
            break
    return done


def _victims(owner: psutil.Popen, draw: random.Random) -> list[psutil.Process]:
    try:
        # The exporter, the server that workers are forked from, and the workers.
        children = [child for child in owner.children(recursive=True) if "multiprocessing" in " ".join(child.cmdline())]
        if not owner.is_running() or owner.status() == psutil.STATUS_ZOMBIE:
            return []
    except psutil.NoSuchProcess:
        return []
    return draw.choice(([owner], [draw.choice(children)] if children else [owner], [owner, *children]))


def _strike(owner: psutil.Popen, victims: list[psutil.Process], draw: random.Random) -> bool:
    """Whether that was the owner's end."""
    number = draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    if owner not in victims:
        number = signal.SIGKILL
    for victim in victims:
        try:
            victim.send_signal(number)
        except psutil.NoSuchProcess:
            continue
    return owner in victims


def optuna_ledger(folder: Path, study: str) -> list[dict[str, Any]]:
    import optuna

    from pipeline.search.studies.journal import journal

    found = optuna.load_study(study_name=study, storage=journal(folder / "optuna.journal"))
    return [
        {
            "number": trial.number,
            "state": trial.state.name,
            "value": trial.value,
            "params": trial.params,
            "intermediate": trial.intermediate_values,
            "seed": trial.user_attrs["seed"],
            "ended": trial.user_attrs.get("ended"),
        }
        for trial in found.trials
    ]


def phase_and_number(run: Any) -> str:
    """`trial 3` or `confirm 2`."""
    *_, phase, number = run.data.tags["pipeline.key"].split("-")
    return f"{phase} {int(number)}"


def mlflow_ledger(folder: Path, study: str = "main") -> dict[str, dict[str, Any]]:
    """What MLflow has of a study, and of its trials as `trial 3` and `confirm 2`; the study's own is called study."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pipeline")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    own = [run for run in runs if run.info.run_name == f"study {study}"]
    children = [run for run in runs if run.data.tags.get("study") in (study, f"{study}.confirmation")]
    return {
        "study" if run in own else phase_and_number(run): {
            "status": run.info.status,
            "ended": run.data.tags.get("ended"),
            "params": run.data.params,
            "metrics": {
                name: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))
                for name in run.data.metrics
                if name not in TIMES
            },
            "artifacts": sorted(file.path for file in client.list_artifacts(run.info.run_id)),
            "models": len(run.outputs.model_outputs) if run.outputs else 0,
        }
        for run in (*own, *children)
    }


def results_ledger(folder: Path) -> list[dict[str, str]]:
    with (folder / "results" / "tune" / "trials.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "elapsed_s"} for row in csv.DictReader(file)]
