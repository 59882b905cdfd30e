import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from places import REPOSITORY

from pipeline import config
from pipeline.search.schedulers.base import Values
from pipeline.search.space.space import Space
from pipeline.search.studies.samplers import Named, Proposer, SpaceExhausted

SHIPPED = REPOSITORY / "examples" / "resnet20" / "params.yaml"
RATE = "train.learning_rate"


def space_of(axes: dict[str, Any]) -> Space:
    return Space.of(config.parse(config.read_yaml(SHIPPED) | {"space": axes}, {}, "the test"))


@pytest.fixture
def space() -> Space:
    return Space.of(config.load(SHIPPED))


def study_of(proposer: Proposer, storage: Any = None) -> optuna.Study:
    return optuna.create_study(
        study_name="s",
        storage=storage or InMemoryStorage(),
        sampler=proposer,
        direction="maximize",
        load_if_exists=True,
    )


def score(values: Values) -> float:
    """Best where the learning rate is 0.4; without an error this is a smooth hill."""
    rate, depth = float(str(values[RATE])), int(str(values.get("model.depth", 32)))
    return 0.9 - 0.1 * math.log(rate / 0.4) ** 2 - 0.002 * (32 - depth)


def run(study: optuna.Study, space: Space, trials: int) -> list[dict[str, Any]]:
    """A study in which each trial is trained to its end at once."""
    asked = []
    for _ in range(trials):
        trial = study.ask()
        values = space.suggest(trial)
        study.tell(trial, score(values))
        asked.append(values)
    return asked


def pause(study: optuna.Study, space: Space, accuracy: float | None = None) -> dict[str, Any]:
    """A trial that trains two epochs and waits."""
    trial = study.ask()
    values = space.suggest(trial)
    for epoch in (1, 2):
        trial.report(score(values) - 0.1 / epoch if accuracy is None else accuracy, epoch)
    trial.set_user_attr("until", 2)
    return values


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_the_files_own_values_come_first_then_those_it_names_then_what_was_planned(
    space: Space, sampler: Named
) -> None:
    first = [{"model.depth": 20}, {RATE: 0.5}, {RATE: 0.5}, {"augment.policy": "crop_flip_cutout"}]
    proposer = Proposer(space, sampler, 0, first)
    proposer.planned[4] = {**space.own, "model.depth": 8, "augment.cutout": 0.5}
    asked = run(study_of(proposer), space, 5)
    assert asked[0] == space.own
    assert asked[1] == space.own | {RATE: 0.5}
    assert asked[2] == space.own | {"augment.policy": "crop_flip_cutout", "augment.cutout": 0.5}
    assert asked[4] == space.own | {"model.depth": 8}
    proposed = proposer.propose(study_of(proposer), 4)
    assert proposed == asked[4], "without what its policy has no use for"
    assert all(asked.count(values) == 1 for values in asked)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_that_was_killed_proposes_what_it_would_have_proposed(
    space: Space, sampler: Named, tmp_path: Path
) -> None:
    whole = run(study_of(Proposer(space, sampler, 7)), space, 25)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    begun = run(study_of(Proposer(space, sampler, 7), storage), space, 13)
    again = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    assert begun + run(study_of(Proposer(space, sampler, 7), again), space, 12) == whole
    assert run(study_of(Proposer(space, sampler, 8)), space, 25)[1:] != whole[1:]


def test_a_proposal_can_be_had_before_its_trial_exists(space: Space) -> None:
    proposer = Proposer(space, "tpe", 0)
    study = study_of(proposer)
    run(study, space, 14)
    proposed = proposer.propose(study, 14)
    assert len(study.trials) == 14
    assert run(study, space, 1) == [proposed]


def test_a_proposal_does_not_hang_on_whether_the_end_of_a_finished_trial_is_noted() -> None:
    space = space_of({RATE: {"low": 0.02, "high": 0.8, "log": True}, "model.depth": {"low": 8, "high": 32, "step": 6}})
    proposer = Proposer(space, "tpe", 0)
    study = study_of(proposer)
    run(study, space, 11)
    bad = study.ask()
    space.suggest(bad)
    bad.set_user_attr("ended", "diverged")
    study.tell(bad, state=TrialState.FAIL)
    best = study.ask()
    space.suggest(best)
    for epoch, accuracy in enumerate((0.5, 0.99), start=1):
        best.report(accuracy, epoch)
    unaware, aware = (proposer.propose(study, 13, finished) for finished in ((), {best.number}))
    study.tell(best, 0.99)
    assert proposer.propose(study, 13) == proposer.propose(study, 13, {best.number}) == aware
    assert unaware != aware


def test_a_sampler_that_repeats_itself_gives_way_to_a_draw(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    proposer = Proposer(space, "tpe", 0)
    study = study_of(proposer)
    run(study, space, 3)
    monkeypatch.setattr(proposer, "_attempt", lambda *_: study.trials[1].params)
    drawn = proposer.propose(study, 3)
    assert drawn not in [trial.params for trial in study.trials]
    assert drawn == proposer.propose(study, 3)


def test_tpe_finds_the_hill(space: Space) -> None:
    asked = run(study_of(Proposer(space, "tpe", 0)), space, 60)
    late = [abs(math.log(values[RATE] / 0.4)) for values in asked[40:]]
    early = [abs(math.log(values[RATE] / 0.4)) for values in asked[1:11]]
    assert sum(late) / len(late) < 0.5 * sum(early) / len(early)


def test_tpe_learns_from_paused_trials_though_the_storage_holds_them_as_running(space: Space) -> None:
    study = study_of(Proposer(space, "tpe", 0))
    asked = [pause(study, space) for _ in range(60)]
    assert {trial.state for trial in study.trials} == {TrialState.RUNNING}, "the storage is left as it is"
    assert not any("constraints" in key for trial in study.trials for key in trial.system_attrs)
    late = [abs(math.log(values[RATE] / 0.4)) for values in asked[40:]]
    early = [abs(math.log(values[RATE] / 0.4)) for values in asked[1:11]]
    assert sum(late) / len(late) < 0.5 * sum(early) / len(early)


def test_of_paused_trials_the_scores_count_not_their_number(space: Space) -> None:
    flat, hilly = study_of(Proposer(space, "tpe", 0)), study_of(Proposer(space, "tpe", 0))
    for _ in range(11):
        pause(flat, space, 0.5)
        pause(hilly, space)
    first_ten = [[trial.params for trial in study.trials[:10]] for study in (flat, hilly)]
    assert first_ten[0] == first_ten[1]
    assert pause(flat, space) != pause(hilly, space)


@pytest.mark.parametrize("ended", ["diverged", "out of memory"])
@pytest.mark.parametrize("others", ["finish", "are paused"])
def test_tpe_keeps_away_from_what_cannot_be_trained_and_not_from_what_crashed(
    space: Space, others: str, ended: str
) -> None:
    failures = {}
    for reason in (ended, "crashed"):
        study = study_of(Proposer(space, "tpe", 3))
        for _ in range(60):
            trial = study.ask()
            values = space.suggest(trial)
            if values[RATE] > 0.25:
                trial.set_user_attr("ended", reason)
                study.tell(trial, state=TrialState.FAIL)
            elif others == "finish":
                study.tell(trial, score(values))  # the better, the nearer to the cliff
            else:
                trial.report(score(values), 1)
        failures[reason] = sum(trial.state == TrialState.FAIL for trial in study.trials[25:])
    assert failures[ended] < 0.75 * failures["crashed"]


def test_a_gaussian_process_learns_from_infeasible_trials_too() -> None:
    space = space_of({RATE: {"low": 0.02, "high": 0.8, "log": True}, "model.depth": {"low": 8, "high": 32, "step": 6}})
    study = study_of(Proposer(space, "gp", 0))
    asked = []
    for _ in range(15):
        trial = study.ask()
        values = space.suggest(trial)
        if values[RATE] > 0.6:
            trial.set_user_attr("ended", "diverged")
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, score(values))
        asked.append(values)
    assert any(trial.state == TrialState.FAIL for trial in study.trials[:12])
    assert all(0.2 < values[RATE] < 0.6 for values in asked[-3:])


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "gp"])
def test_no_configuration_is_tried_twice_and_the_last_one_is_told(sampler: Named) -> None:
    space = space_of(
        {
            RATE: [0.1, 0.2],
            "augment.policy": ["crop_flip", "crop_flip_cutout"],
            "augment.cutout": {"choices": [0.4, 0.5], "when": {"augment.policy": ["crop_flip_cutout"]}},
            "model.width": [8, 16],
        }
    )
    assert space.size == 12
    proposer = Proposer(space, sampler, 0)
    study = study_of(proposer)
    asked = run(study, space, 12)
    assert sorted(map(json.dumps, asked)) == sorted(map(json.dumps, space.grid()))
    with pytest.raises(SpaceExhausted, match="all 12 configurations of the space have been tried") as caught:
        proposer.propose(study, 12)
    assert caught.value.size == 12


def test_trials_of_any_state_and_plans_are_not_proposed_again() -> None:
    space = space_of({"model.width": [8, 16, 24, 32]})
    proposer = Proposer(space, "grid", 0)
    study = study_of(proposer)
    space.suggest(study.ask())
    failed = study.ask()
    assert space.suggest(failed) == {"model.width": 8}
    study.tell(failed, state=TrialState.FAIL)
    proposer.planned[9] = {"model.width": 24}
    assert proposer.propose(study, 2) == {"model.width": 32}


def test_the_grid_is_tried_in_its_order(space: Space) -> None:
    grid = space_of({"model.width": [8, 16, 24], "model.depth": [8, 20]})
    asked = run_grid(grid)
    assert asked[0] == grid.own
    assert asked[1:] == [values for values in grid.grid() if values != grid.own]


def run_grid(space: Space) -> list[dict[str, Any]]:
    study, asked = study_of(Proposer(space, "grid", 0)), []
    for _ in range(space.size or 0):
        trial = study.ask()
        asked.append(space.suggest(trial))
        study.tell(trial, 0.5)
    return asked


def test_to_ask_for_a_key_that_the_configuration_lacks_is_an_error(space: Space) -> None:
    trial = study_of(Proposer(space, "tpe", 0)).ask()
    with pytest.raises(ValueError, match=r"trial 0 has no augment\.cutout"):
        trial.suggest_float("augment.cutout", 0.25, 0.6)


def test_what_a_sampler_is_shown_is_a_copy(space: Space) -> None:
    proposer = Proposer(space, "tpe", 0)
    study = study_of(proposer)
    for _ in range(12):
        pause(study, space)
    failed = study.ask()
    space.suggest(failed)
    failed.set_user_attr("ended", "diverged")
    study.tell(failed, state=TrialState.FAIL)
    before: list[FrozenTrial] = study.get_trials()
    proposer.propose(study, 13)
    assert study.get_trials() == before
