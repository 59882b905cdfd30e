"""A search beside Ray Tune's, on trials that train nothing: what the searching itself costs.

    python benchmarks/search_beside_ray.py                       # 200 trials, 2 workers
    python benchmarks/search_beside_ray.py --trials 1000 --only ours-local,ray-tune

Each trial reports up to six epochs at once. All use asynchronous successive halving (first rung 1, factor 3) and
Optuna's TPE over the same three values, on two worker processes of this machine, one after the other. `ours` is the
shipped owner with all its records (Optuna's journal, MLflow's SQLite store, a confusion matrix per pause) and the
shipped engine, local or ray, whose workers answer at once. `ray-tune` is Tuner with OptunaSearch and ASHAScheduler; it
stops trials where ours pauses them, and records nothing in MLflow. The time is that of the whole process, imports and
the start of Ray included, by the wall clock.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

EPOCHS = 6
WORKERS = 2
NAMES = ("ours-local", "ours-ray", "ray-tune")


def accuracy(learning_rate: float, label_smoothing: float, width: float, epoch: int) -> float:
    distance = (learning_rate - 0.2) ** 2 + (label_smoothing - 0.1) ** 2 + ((width - 48) / 64) ** 2
    return (0.9 - distance) * (1 - 0.5**epoch)


def messages(order: Any) -> Iterator[Any]:
    """What a worker answers that trains nothing."""
    from pipeline.records import Epoch
    from pipeline.search.engines.base import Began, EpochDone, TargetReached, WorkerInfo

    yield Began(order.trial)
    order.folder.mkdir(parents=True, exist_ok=True)
    config = order.config
    for number in range(order.known + 1, order.until + 1):
        score = accuracy(config.train.learning_rate, config.train.label_smoothing, config.model.width, number)
        yield EpochDone(order.trial, Epoch(number, 0.0, 0.0, score, 0.0, score, 1.0, float(number)))
    worker = WorkerInfo({"type": "none", "threads": 1}, {"training": 0, "validation": 0})
    matrix = tuple(tuple(450 if row == column else 5 for column in range(10)) for row in range(10))
    yield TargetReached(order.trial, order.until, matrix, worker, 0)


def answers(owner: Connection, spec: Any) -> None:
    """The life of a worker process of the local engine."""
    from pipeline.search.engines.base import Order
    from pipeline.search.engines.worker import Ready

    owner.send(Ready())
    while True:
        try:
            order = owner.recv()
        except EOFError:
            return
        if isinstance(order, Order):
            for message in messages(order):
                owner.send(message)


def answers_on_ray() -> None:
    """Called in each worker of the Ray engine as it starts."""
    from pipeline.search.engines import trainer

    def nothing(self: Any, *arguments: Any) -> None:
        pass

    trainer.Trainer.__init__ = nothing  # type: ignore[method-assign]
    trainer.Trainer.answer = lambda self, order, *others: messages(order)  # type: ignore[method-assign]


def ours(engine_name: str, trials: int, folder: Path) -> int:
    """The number of epochs."""
    from search_owner import META, PARAMS

    from pipeline import config
    from pipeline.files import Project
    from pipeline.search.engines.local import LocalEngine
    from pipeline.search.engines.trainer import Hardware
    from pipeline.search.engines.worker import WorkerSpec
    from pipeline.search.schedulers.asha import Asha
    from pipeline.search.space.space import Space
    from pipeline.search.studies.journal import journal
    from pipeline.search.studies.ledger import Ledger
    from pipeline.search.studies.owner import Owner
    from pipeline.search.studies.proposals import Proposals
    from pipeline.search.studies.recorder import Recorder, StudyRun
    from pipeline.search.studies.samplers import Proposer
    from pipeline.search.studies.trials import TrialSetup
    from pipeline.tracking import Tracker

    settings = config.load(PARAMS, {"train.epochs": EPOCHS, "tune.trials": trials})
    axes = {name: settings.space[name] for name in ("train.learning_rate", "train.label_smoothing", "model.width")}
    settings = settings.model_copy(update={"space": axes})
    space = Space.of(settings)
    hardware = Hardware("cpu", 1, "fp32")
    engine: Any
    if engine_name == "local":
        log = folder / "worker.log"
        engine = LocalEngine([WorkerSpec(folder, folder, hardware, log)] * WORKERS, answers)
    else:
        from pipeline.search.engines.ray import RayEngine, RaySpec

        spec = RaySpec(META, (0, 0), hardware, {"CPU": 1.0}, folder, setup=answers_on_ray)
        engine = RayEngine(spec, None, WORKERS)
    project = Project(folder, folder)
    with Tracker(project) as tracker:
        parent = tracker.open("study-benchmark", name="study")
        ledger = Ledger(journal(project.optuna_journal), "benchmark")
        setup = TrialSetup(
            config_of=lambda trial: settings.of_trial({**trial.values, "train.seed": trial.attributes["seed"]}),
            epochs=EPOCHS,
            folder=folder / "trials",
        )
        recorder = Recorder(study=StudyRun(tracker, parent, META, {}), ledger=ledger, setup=setup, phase="trial")
        owner = Owner(
            ledger=ledger,
            source=Proposals(trials, space, Proposer(space, "tpe", 0), 0),
            scheduler=Asha(EPOCHS, 1, 3),
            engine=engine,
            setup=setup,
            watchers=(recorder,),
        )
        try:
            owner.run()
        finally:
            engine.close()
    # All is in MLflow by now.
    return sum(len(trial.scores) for trial in ledger.trials)


def ray_tune(trials: int, folder: Path) -> int:
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def trainable(values: dict[str, Any]) -> None:
        for epoch in range(1, EPOCHS + 1):
            tune.report(
                {"accuracy": accuracy(values["learning_rate"], values["label_smoothing"], values["width"], epoch)}
            )

    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        trainable,
        param_space={
            "learning_rate": tune.loguniform(0.03, 0.5),
            "label_smoothing": tune.uniform(0.0, 0.3),
            "width": tune.choice([32, 48, 64]),
        },
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=trials,
            search_alg=OptunaSearch(seed=0),
            scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=3),
            max_concurrent_trials=WORKERS,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    found: Any = tuner.fit()
    return sum(result.metrics["training_iteration"] for result in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--only", default=",".join(NAMES), help="of " + ", ".join(NAMES))
    parser.add_argument("--run", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        with tempfile.TemporaryDirectory() as folder:
            if options.run == "ray-tune":
                epochs = ray_tune(options.trials, Path(folder))
            else:
                epochs = ours(options.run.removeprefix("ours-"), options.trials, Path(folder))
        print(json.dumps({"epochs": epochs}))
        return
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    found = {}
    for name in options.only.split(","):
        began_s = time.monotonic()
        done = subprocess.run(
            [sys.executable, __file__, "--run", name, "--trials", str(options.trials)],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found[name] = time.monotonic() - began_s
        epochs = json.loads(done.stdout.splitlines()[-1])["epochs"]
        per_trial = found[name] / options.trials
        print(f"{name:12}{found[name]:8.1f} s{per_trial * 1000:8.0f} ms a trial{epochs:8} epochs", flush=True)
    for name in found:
        if "ray-tune" in found and name != "ray-tune":
            print(f"ray-tune takes {found['ray-tune'] / found[name]:.1f} times as long as {name}")


if __name__ == "__main__":
    main()
