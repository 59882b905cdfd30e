"""Runs in MLflow. A run is recorded on disk first and sent in the background: no store can delay a training.

    with StageTracker(project) as tracker:
        run = tracker.open(key, name="resnet20 on cifar10")
        run.log_metrics({"train.validation_accuracy": 0.5}, step=3)
        run.finish(Outcome.FINISHED)

The store is mlflow.db in the project, or what MLFLOW_TRACKING_URI names. The experiment is "pipeline", or what
MLFLOW_EXPERIMENT_NAME names. What a store that does not answer has not received stays in .outbox, and
`python -m pipeline.tracking` sends it.

    __main__.py      the command that sends what is left
    tracker.py       the runs of a process, of a stage or of a long command: opens them, finishes them at its end
    run.py           what can be recorded in a run
    confusion.py     a confusion matrix as an image and as a table
    parts.py         the records of a stage's run, cut into outboxes that are handed over one after the other
    handover.py      hands them to the sending process, which it starts
    serving.py       the sending process
    sender.py        the thread that sends outboxes to MLflow
    delivery.py      operations of an outbox -> calls of MLflow
    linked.py        what MLflow links to a run: dataset, model, the model's version in the registry
    models.py        the models that MLflow has, as folders
    experiment.py    the database and the experiment: found or created
    reading.py       runs as MLflow holds them, with every epoch
    links.py         where `mlflow ui` shows a run
    internals.py     all that is done with MLflow beside its documented API
    health.py        checks for the doctor: moved artifacts, open runs, unsent records
    mending.py       what the doctor corrects of it
    outbox.py        the records of a run on disk
    failures.py      MLflow's errors: worth another try, or final
    timing.py        how long tracking waits for what
    store.py         which store the environment names

Importing this package imports neither MLflow nor torch.
"""

from pipeline.tracking.delivery import Recorded
from pipeline.tracking.links import run_pages
from pipeline.tracking.models import fetch_model
from pipeline.tracking.run import Run
from pipeline.tracking.timing import Timing
from pipeline.tracking.tracker import StageTracker, Tracker, is_gone

__all__ = ["Recorded", "Run", "StageTracker", "Timing", "Tracker", "fetch_model", "is_gone", "run_pages"]
