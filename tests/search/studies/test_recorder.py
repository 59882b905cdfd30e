"""What a study leaves in MLflow, with the simulated engine: no training, all of the recording."""

import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from chaos import mlflow_ledger, optuna_ledger
from mlflow import MlflowClient
from optuna.storages.journal import JournalFileBackend
from searches import EPOCHS, SPACE, Halves, curve

from pipeline import config, networks
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.exporting.process import Exporter
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.records import load_meta
from pipeline.search.engines.base import Message
from pipeline.search.engines.simulated import Fault, SimulatedEngine
from pipeline.search.engines.store import Store
from pipeline.search.studies.epochs import read_epochs
from pipeline.search.studies.journal import journal
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.models import Models
from pipeline.search.studies.owner import Limits, Owner
from pipeline.search.studies.proposals import Proposals
from pipeline.search.studies.recorder import NAME_LENGTH, Recorder, StudyRun
from pipeline.search.studies.samplers import Proposer
from pipeline.search.studies.trials import Trial, TrialSetup
from pipeline.tracking import Timing, Tracker
from pipeline.tracking.outbox import Outbox
from pipeline.tracking.reading import Runs

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")]

STRIDE = 31
"""A study has about 240 points, before and after each write to disk. It is killed at every STRIDE-th one."""
CONFUSION = tuple(tuple(10 if row == column else 1 for column in range(10)) for row in range(10))


@pytest.fixture
def search(project: Project, settings: Config, migrated: Path) -> Callable[..., Owner]:
    """Runs a study of 4 trials with all its records, and returns its owner."""

    shutil.copy(migrated, project.home)

    def run(
        engine: Any = None,
        watch: Callable[[Owner], None] = lambda owner: None,
        timing: Timing | None = None,
        store: Store | None = None,
        models: Models | None = None,
        **limits: Any,
    ) -> Owner:
        engine = engine or SimulatedEngine(curve, confusion=CONFUSION)

        def config_of(trial: Trial) -> Config:
            return settings.with_values({**trial.values, "train.seed": trial.attributes["seed"]})

        with Tracker(project, timing=timing) as tracker:
            parent = tracker.open("study-1", name="study main")
            ledger = Ledger(journal(project.optuna_journal), "main")
            folder = project.study_folder("main") / "trials"
            setup = TrialSetup(config_of=config_of, epochs=EPOCHS, folder=folder, store=store)
            run = StudyRun(tracker, parent, load_meta(project.meta), tags={})
            recorder = Recorder(study=run, ledger=ledger, setup=setup, phase="trial", models=models)
            tracker.send_leftovers()
            owner = Owner(
                ledger=ledger,
                source=Proposals(4, SPACE, Proposer(SPACE, "random", 0), 0),
                scheduler=Halves(),
                engine=engine,
                setup=setup,
                limits=Limits(**{"budget": 3.0} | limits),
                watchers=(recorder,),
            )
            recorder.reconcile()
            watch(owner)
            owner.run()
            while models and models.waiting:
                models.tick()
                time.sleep(0.02)
            parent.finish(Outcome.FINISHED)
        return owner

    return run


def test_a_trial_is_a_child_run_with_all_its_epochs_and_its_confusion_matrix(
    project: Project, search: Callable[..., Owner]
) -> None:
    owner = search()
    runs = mlflow_ledger(project.root)
    assert sorted(runs) == ["study", *(f"trial {number}" for number in range(4))]
    for trial in owner.ledger.trials:
        run = runs[f"trial {trial.number}"]
        assert run["metrics"]["train.validation_accuracy"] == list(enumerate(trial.scores, start=1))
        assert run["ended"] == trial.outcome
        assert run["status"] == {"finished": "FINISHED", "pruned": "KILLED"}[trial.status]
        assert run["params"]["train.momentum"] == repr(trial.values["train.momentum"])
        assert {name for name in Config().values() if not config.decides_scoring(name)} == set(run["params"])
        assert run["artifacts"] == ["confusion_matrix.json", "confusion_matrix.png"]
    finished = [trial.scores[-1] for trial in owner.ledger.trials if trial.state == "finished"]
    best = runs["study"]["metrics"]["best.validation_accuracy"]
    assert [step for step, _ in best] == list(range(1, len(finished) + 1))
    assert best[-1][1] == max(finished)


def test_a_trial_that_stops_early_ends_as_finished_with_the_epochs_that_it_has(
    project: Project, search: Callable[..., Owner]
) -> None:
    search(SimulatedEngine(curve, confusion=CONFUSION, early_stop=5), budget=9.0)
    runs = mlflow_ledger(project.root)
    for number in range(4):
        run = runs[f"trial {number}"]
        assert (run["ended"], run["status"]) == ("finished", "FINISHED")
        assert len(run["metrics"]["train.validation_accuracy"]) == 5
        assert run["artifacts"] == ["confusion_matrix.json", "confusion_matrix.png"]


def test_a_run_says_its_values_in_its_name_and_is_found_by_its_number(
    project: Project, search: Callable[..., Owner]
) -> None:
    owner = search()
    runs = Runs(project)
    for trial in owner.ledger.trials:
        rate, momentum = trial.values["train.learning_rate"], trial.values["train.momentum"]
        run = runs.run(f"trial {trial.number}")
        assert run.name == f"{trial.number}: lr {rate:.3g} momentum {momentum:.3g}"
        assert run.tags["trial"] == str(trial.number)
        assert str(run).startswith(f"trial {trial.number} of main (")
        assert runs.run(run.name).id == run.id
    with pytest.raises(PipelineError, match="There is no run confirm 1 in "):
        runs.run("confirm 1")


def test_a_run_of_an_earlier_version_is_found_by_its_name(project: Project, search: Callable[..., Owner]) -> None:
    from mlflow import MlflowClient

    search()
    runs = Runs(project)
    old = runs.run("trial 2").id
    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    client.update_run(old, name="trial 2")
    assert runs.run("trial 2").id == old


def test_many_long_values_make_no_name_that_mlflow_refuses() -> None:
    recorder = Recorder(study=Mock(), ledger=Mock(trials=[]), setup=Mock(), phase="confirm")
    values: dict[str, Any] = {f"model.extra.{'x' * 40}{number}": 0.123456 for number in range(30)}
    assert recorder.run_name(Trial(7, values, id=7)).startswith("confirm 7: xxx")
    assert len(recorder.run_name(Trial(7, values, id=7))) == NAME_LENGTH
    alike: dict[str, Any] = {"train.weight_decay": 0.1, "augment.warp_depth": 3, "train.learning_rate": 0.01}
    assert recorder.run_name(Trial(7, alike, id=7)) == "confirm 7: weight_decay 0.1 warp_depth 3 lr 0.01"


def test_a_failed_trial_says_why(project: Project, search: Callable[..., Owner]) -> None:
    fault = Fault(0, Outcome.DIVERGED, "the loss is not finite")
    search(SimulatedEngine(curve, confusion=CONFUSION, fault=lambda order: fault if order.trial == 1 else None))
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pipeline")
    (run,) = client.search_runs([experiment.experiment_id], "tags.trial = '1'")
    assert run.info.status == "FAILED"
    assert (run.data.tags["ended"], run.data.tags["ended.why"]) == ("diverged", "the loss is not finite")


def test_a_database_that_is_gone_is_filled_again_at_the_next_start(
    project: Project, search: Callable[..., Owner]
) -> None:
    search()
    before = mlflow_ledger(project.root)
    for path in project.root.glob("mlflow.db*"):
        path.unlink()
    search()
    after = mlflow_ledger(project.root)
    for name, run in before.items():
        if name != "study":  # its figures over the trials are logged while they end
            assert after[name] == run, name


def stop_early(owner: Owner) -> None:
    """Its engine ends the search after five epochs."""

    class Halting(SimulatedEngine):
        def next(self, timeout_s: float) -> Message | None:
            if self.epochs_trained == 5:
                owner.halt()
            return super().next(timeout_s)

    owner.engine = Halting(curve, confusion=CONFUSION)


def test_a_study_that_is_stopped_leaves_paused_and_interrupted_runs_and_then_resumes(
    project: Project, search: Callable[..., Owner]
) -> None:
    search(watch=stop_early)
    runs = mlflow_ledger(project.root)
    assert (runs["trial 0"]["status"], runs["trial 0"]["ended"]) == ("SCHEDULED", None)
    assert (runs["trial 1"]["status"], runs["trial 1"]["ended"]) == ("KILLED", "interrupted")
    owner = search()
    runs = mlflow_ledger(project.root)
    for trial in owner.ledger.trials:
        assert runs[f"trial {trial.number}"]["ended"] == trial.outcome
        assert runs[f"trial {trial.number}"]["metrics"]["train.validation_accuracy"] == list(
            enumerate(trial.scores, start=1)
        )


def test_an_owner_in_another_folder_goes_on_with_the_runs_that_are_there(
    project: Project, search: Callable[..., Owner]
) -> None:
    search(watch=stop_early)
    shutil.rmtree(project.study_folder("main"))  # as in a folder that shares the ledgers alone
    search()
    client = MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}")
    keys = [run.data.tags["pipeline.key"] for run in client.search_runs(["1"], max_results=100)]
    assert len(keys) == len(set(keys)) == 5  # four trials and the study


def test_an_owner_in_another_folder_logs_the_models_that_mlflow_lacks_and_no_other_again(
    project: Project,
    settings: Config,
    search: Callable[..., Owner],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = tmp_path / "model.safetensors"
    networks.save(networks.build(settings.model, load_meta(project.meta), 0), weights)
    store = Store(f"file://{tmp_path}/store")
    for number in range(4):
        folder = store / f"{number:04}"
        folder.claim("only", tmp_path)
        folder.put("only", {"model.safetensors": weights})
    owner = search(store=store)  # killed before it has logged a model
    finished = {trial.number for trial in owner.ledger.trials if trial.state == "finished"}
    models = Models(Exporter(project.meta, project.training_data))
    make = Mock(side_effect=models.make)
    monkeypatch.setattr(models, "make", make)
    try:
        for _ in range(2):
            shutil.rmtree(project.study_folder("main"))  # as in a folder that shares the ledgers and the store alone
            search(store=store, models=models)
            runs = MlflowClient(f"sqlite:///{project.home / 'mlflow.db'}").search_runs(["1"])
            logged = {int(run.data.tags["trial"]): run.outputs for run in runs if "trial" in run.data.tags}
            models_of = {number: len(outputs.model_outputs) if outputs else 0 for number, outputs in logged.items()}
            assert models_of == {number: int(number in finished) for number in range(4)}
            assert make.call_count == len(finished)
    finally:
        models.exporter.close()


def apart(do: Callable[[], Any]) -> int:
    """Does it in a process of its own, which opens MLflow's database anew, and returns the exit code."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            do()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't fork a process with threads safely")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("linger_s", [0.0, 60.0])
def test_a_study_killed_at_any_write_leaves_in_mlflow_what_one_leaves_that_was_not(
    project: Project, search: Callable[..., Owner], migrated: Path, tmp_path: Path, linger_s: float
) -> None:
    """MLflow hears of all at once, or, with the longer wait, of nothing before the kill."""
    ledgers = tmp_path / "ledgers.json"

    def whole() -> None:
        search()
        ledgers.write_text(json.dumps([mlflow_ledger(project.root), optuna_ledger(project.root, "main")]))

    def killed(at: int) -> None:
        points = itertools.count()

        def point() -> None:
            if next(points) == at:
                os._exit(9)

        def between_points(write: Callable[..., Any]) -> Callable[..., Any]:
            def then(*arguments: Any) -> None:
                point()
                write(*arguments)
                point()

            return then

        Outbox._write = between_points(Outbox._write)  # type: ignore[method-assign]
        JournalFileBackend.append_logs = between_points(JournalFileBackend.append_logs)  # type: ignore[method-assign]
        search(timing=Timing(linger_s=linger_s))

    at, undisturbed = 0, None
    while True:
        for path in project.root.glob("mlflow.db*"):
            path.unlink()
        for path in (project.study_folder("main"), project.outbox, project.optuna_journal):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.copy(migrated, project.home)
        if undisturbed:
            code = apart(partial(killed, at))
            if code == 0:  # it was over before
                break
            assert code == 9
            at += STRIDE
        assert apart(whole) == 0
        left = json.loads(ledgers.read_text())
        undisturbed = undisturbed or left
        assert left == undisturbed, f"killed at point {at - STRIDE}"
        assert not list(project.outbox.iterdir())
    assert at > 200


def test_the_epochs_in_a_trials_folder_survive_a_torn_line(tmp_path: Path) -> None:
    whole = (
        '{"number": 1, "learning_rate": 0.1, "training_loss": 1.0, "training_accuracy": 0.5, "validation_loss": 1.0, '
        '"validation_accuracy": 0.5, "images_per_second": 1.0, "elapsed_s": 1.0}'
    )
    (tmp_path / "epochs.jsonl").write_text(f"\n{whole}\n{whole[:40]}\n{whole.replace(': 1,', ': 2,', 1)}")
    assert list(read_epochs(tmp_path)) == [1, 2]
    assert read_epochs(tmp_path / "nowhere") == {}
