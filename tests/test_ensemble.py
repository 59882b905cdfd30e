import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import mlflow
import numpy as np
import pytest
from places import QUICK_STUDY

from pipeline import config, ensemble, networks
from pipeline.config import Choices, Config
from pipeline.evaluation.inference import load_network
from pipeline.evaluation.metrics import score
from pipeline.evaluation.test_set import predict_test_set
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.records import load_meta
from pipeline.search.space.space import Space
from pipeline.search.studies.journal import journal
from pipeline.search.studies.ledger import CONFIRMATION, Ledger

LABELS = np.array([0, 1, 0, 1])


@pytest.fixture
def study(project: Project, settings: Config) -> Project:
    """A project with a study whose three finished trials were made up: 0 and 1 have the same weights, 2 is larger.

    A fourth is paused, and a network of trial 0 was trained again.
    """
    meta = load_meta(project.meta)
    space = Space({"model.width": Choices(choices=(4, 8))}, {"model.width": 4})
    fixed = {key: value for key, value in settings.values().items() if key != "model.width"}
    for suffix, folder, widths in (("", "trials", (4, 4, 8, 8)), (CONFIRMATION, "confirm", (4,))):
        ledger = Ledger(journal(project.optuna_journal), f"main{suffix}")
        ledger.note(key="abc", values=fixed, data={"name": meta.name, "digest": meta.digest})
        for number, width in enumerate(widths):
            trial = ledger.enter({"model.width": width}, space.distributions, 1, seed=number, of=0)
            ledger.score(trial, 1, 0.5 + number / 10)
            if number == 3:
                continue
            ledger.end(trial, Outcome.FINISHED)
            network = networks.build(settings.model.model_copy(update={"width": width}), meta, seed=0)
            networks.save(network, project.study_folder("main") / folder / f"{number:04}" / "model.safetensors")
    return project


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--top", "0"], "argument --top: must be a whole number of at least 2, got 0"),
        (["--top", "1"], "argument --top: must be a whole number of at least 2, got 1"),
        (["--top", "all"], "argument --top: must be a whole number of at least 2, got all"),
        (["--without", "best"], "argument --without: must be the number of a trial, got best"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_sentence(
    arguments: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        ensemble.main(arguments)
    assert exit.value.code == 2
    assert sentence in capsys.readouterr().err


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command says when it refuses, in which case it leaves nothing."""
    assert ensemble.main(arguments) == 1
    assert not Path("results/ensemble").exists()
    assert not Path("mlflow.db").exists()
    return capsys.readouterr().err


def test_without_a_study_the_command_says_how_to_begin_one(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys)
    assert "There is no study main (there is none at all): `python -m pipeline.tune --study main` begins it" in said
    assert not project.optuna_journal.exists()


def test_what_can_not_be_put_together_is_said_with_what_to_do(
    study: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "There is no study other (there is main)" in refusal(capsys, "--study", "other")
    said = refusal(capsys, "--without", "0", "--without", "1")
    assert (
        "The study main has 1 finished network to combine, and an ensemble takes two: `python -m pipeline.tune" in said
    )
    weights = study.study_folder("main") / "trials" / "0002" / "model.safetensors"
    shutil.copy(weights.parents[1] / "0001" / "model.safetensors", weights)
    said = refusal(capsys)
    assert "does not hold the network of trial 2 (family resnet, depth 8, width 8, " in said
    assert "`--without 2` leaves trial 2 out" in said
    weights.write_bytes(b"torn")
    assert "does not hold the network of trial 2" in refusal(capsys)
    weights.unlink()
    assert f"{weights}, the weights of trial 2, is missing: `--without 2` leaves trial 2 out" in refusal(capsys)
    shutil.rmtree(weights.parents[1])
    assert "None of the weights that the study main trained are left in" in refusal(capsys)


def test_a_study_of_which_nothing_is_finished_is_said_to_go_on(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    Ledger(journal(project.optuna_journal), "main")
    assert "No trial of the study main was trained to its end yet" in refusal(capsys)


def test_a_study_of_other_data_is_refused(study: Project, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(study.meta.read_text())
    study.meta.write_text(json.dumps(content | {"digest": "sha256:other"}))
    said = refusal(capsys)
    assert f"The study main searched on digits with the digest {content['digest']}, but data/ holds digits" in said
    shutil.rmtree(study.data)
    assert "meta.json is missing: run `dvc repro`" in refusal(capsys)


def test_a_study_of_folds_is_refused(study: Project, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(journal(study.optuna_journal), "main")
    ledger.note(values=ledger.about["values"] | {"train.folds": 5})
    assert "The trials of the study main are cross-validations (train.folds is 5)" in refusal(capsys)


@pytest.mark.slow
def test_a_soup_that_is_no_worse_is_written_and_recorded_and_leaves_with_the_next_command(
    study: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ensemble.main(["--json"]) == 0
    said = capsys.readouterr()
    content = json.loads(said.out)
    assert content == json.loads(study.ensemble_figures.read_text())
    assert "3 finished networks, not the 5 asked for" in said.err
    assert content["soup"]["members"] == {"trial 0": 1, "trial 1": 1}
    assert content["soup"]["validation"] == pytest.approx(content["members"][1]["validation"])
    settings, meta = config.load(study.params), load_meta(study.meta)
    probabilities, labels = predict_test_set(study, settings.model, study.soup, settings)
    scores = asdict(score(probabilities, labels, settings.evaluate.calibration_bins))
    assert content["soup"]["test"] == {name: value for name, value in scores.items() if value is not None}
    load_network(settings.model, study.soup, meta)  # fits

    assert ensemble.main(["--top", "2", "--without", "0"]) == 0
    assert "No soup: no two of the networks have the same model.*" in capsys.readouterr().out
    assert not study.soup.exists()
    assert ensemble.main(["--confirmed", "--top", "9"]) == 0
    members = [member["name"] for member in json.loads(study.ensemble_figures.read_text())["members"]]
    assert members == ["trial 2", "trial 1", "trial 0", "confirm 0"]

    client = mlflow.MlflowClient(f"sqlite:///{study.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pipeline")
    runs = client.search_runs([experiment.experiment_id], order_by=["start_time"])
    assert [run.info.run_name for run in runs] == ["ensemble of study main"] * 3
    artifacts = [sorted(file.path for file in client.list_artifacts(run.info.run_id)) for run in runs]
    assert artifacts[:2] == [["ensemble.json", "soup.safetensors"], ["ensemble.json"]]
    assert runs[0].data.params["soup.members"] == "trial 1, trial 0"  # the best first
    assert runs[0].data.metrics["soup.test.accuracy"] == pytest.approx(content["soup"]["test"]["accuracy"])


@pytest.mark.slow
def test_networks_of_a_real_search_are_put_together_and_scored_once(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    shutil.copytree(searched, root)
    monkeypatch.chdir(root)
    project = Project(root, root)
    command = [sys.executable, "-m", "pipeline.ensemble", "--confirmed", "--json"]
    content = json.loads(subprocess.check_output(command, timeout=240))
    candidates = {one["trial"]: one for one in json.loads((root / "study.out").read_text())["candidates"]}

    # What the search found on validation is what its weights give, and the best of them is the single one.
    search = Ledger(journal(project.optuna_journal), "main")
    scores = {f"trial {trial.number}": trial.scores[-1] for trial in search.trials}
    confirmation = Ledger(journal(project.optuna_journal), f"main{CONFIRMATION}")
    scores |= {f"confirm {trial.number}": trial.scores[-1] for trial in confirmation.trials}
    for member in content["members"]:
        # In bf16 the rounding depends on the batch size: an image on the border may change sides.
        border = 1.5 / content["validation_pictures"]
        assert member["validation"]["accuracy"] == pytest.approx(scores[member["name"]], abs=border)
        assert member["trial"] in candidates or member["name"].startswith("trial")
    [best] = content["single"]["members"]
    assert scores[best] == pytest.approx(max(scores[member["name"]] for member in content["members"]))
    assert content["single"]["validation"]["accuracy"] <= content["ensemble"]["validation"]["accuracy"]

    # The ensemble's test figures are those of the mean of its members' probabilities.
    settings = config.load(project.params)
    by_name = {member["name"]: member for member in content["members"]}
    weights = content["ensemble"]["members"]
    found = [
        predict_test_set(
            project, config.Model(**by_name[name]["model"]), project.home / by_name[name]["weights"], settings
        )
        for name in weights
    ]
    mean = sum(count * each for count, (each, _) in zip(weights.values(), found, strict=True)) / sum(weights.values())
    figures = score(mean, found[0][1], settings.evaluate.calibration_bins)
    assert content["ensemble"]["test"] == pytest.approx(asdict(figures))
    assert content["test_pictures"] == len(mean) == 359

    # It is a child of the study's run.
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pipeline")
    named = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    run = named["ensemble of study main"]
    assert run.data.tags["mlflow.parentRunId"] == named["study main"].info.run_id
    assert run.data.metrics["ensemble.test.accuracy"] == pytest.approx(figures.accuracy)

    # The study goes on as if nothing had been.
    over = subprocess.run(
        [sys.executable, "-m", "pipeline.tune", "--trials", "5", *QUICK_STUDY], capture_output=True, text=True
    )
    assert "The study main is over" in over.stdout, over.stderr


@pytest.mark.parametrize(("outcome", "given"), [(None, []), (None, ["train.epochs=3"]), (Outcome.CRASHED, [])])
@pytest.mark.parametrize("name", ["main", "night", "grid-depth"])
def test_the_advice_on_a_study_without_networks_depends_on_whether_anything_is_left_to_train(
    project: Project, name: str, outcome: Outcome | None, given: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    space = Space({"model.width": Choices(choices=(4, 8))}, {"model.width": 4})
    ledger = Ledger(journal(project.optuna_journal), name)
    ledger.note(key="abc", given=list(given))
    trial = ledger.enter({"model.width": 4}, space.distributions, 1, seed=0)
    if outcome:
        ledger.end(trial, outcome, "model.family vgg11 halves images")
    assert ensemble.main(["--study", name]) == 1
    error = capsys.readouterr().err
    options = "".join(f" --set {value}" for value in given)
    if outcome:
        assert "resumes it" not in error
        assert "(model.family vgg11 halves images), and none is left to resume" in error
        assert f"--study {name} --delete" in error
    else:
        command = {
            "main": "pipeline.tune --resume-only",
            "night": "pipeline.tune --study night --resume-only",
            "grid-depth": "pipeline.study depth",
        }[name]
        assert f"`python -m {command}{options}` resumes it" in error
