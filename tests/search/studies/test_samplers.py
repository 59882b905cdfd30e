import copy
import json
import math
import statistics
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from places import REPOSITORY

from pipeline import config
from pipeline.outcome import Outcome
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values
from pipeline.search.studies.journal import journal
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.samplers import Named, Proposer
from pipeline.search.studies.trials import Trial

SHIPPED = REPOSITORY / "examples" / "resnet20" / "params.yaml"
RATE = "train.learning_rate"


def space_of(axes: dict[str, Any]) -> Space:
    return Space.of(config.parse(config.read_yaml(SHIPPED) | {"space": axes}, {}, "the test"))


@pytest.fixture
def space() -> Space:
    return Space.of(config.load(SHIPPED))


class Study:
    """A ledger, and the proposer of its trials."""

    def __init__(self, proposer: Proposer, space: Space, storage: Any = None) -> None:
        self.proposer, self.space = proposer, space
        self.ledger = Ledger(storage or InMemoryStorage(), "s")

    def propose(self, finished: Container[int] = ()) -> dict[str, Any]:
        """Values for the next trial."""
        return self.proposer.propose(self.ledger.frozen(), len(self.ledger.trials), finished)

    def enter(self) -> Trial:
        """The next trial, with the values that are proposed for it."""
        return self.ledger.enter(self.propose(), self.space.distributions, 2, seed=0)

    def finish(self, trials: int, score: Callable[[Values], float] | None = None) -> list[dict[str, Any]]:
        """The values of so many trials, each trained to its end before the next one is proposed."""
        entered = [self.end(self.enter(), score) for _ in range(trials)]
        return [trial.values for trial in entered]

    def end(self, trial: Trial, score: Callable[[Values], float] | None = None) -> Trial:
        self.ledger.score(trial, 1, (score or hill)(trial.values))
        self.ledger.end(trial, Outcome.FINISHED)
        return trial

    def fail(self, outcome: Outcome = Outcome.DIVERGED) -> Trial:
        trial = self.enter()
        self.ledger.end(trial, outcome)
        return trial

    def pause(self, accuracy: float | None = None) -> dict[str, Any]:
        """A trial that has trained two epochs and is paused."""
        trial = self.enter()
        for epoch in (1, 2):
            self.ledger.score(trial, epoch, hill(trial.values) - 0.1 / epoch if accuracy is None else accuracy)
        self.ledger.reach(trial, 2)
        return trial.values


def hill(values: Values) -> float:
    """Best where the learning rate is 0.4; without an error this is a smooth hill."""
    rate, depth = float(str(values[RATE])), int(str(values.get("model.depth", 32)))
    return 0.9 - 0.1 * math.log(rate / 0.4) ** 2 - 0.002 * (32 - depth)


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_the_files_own_values_come_first_then_those_it_names_then_what_was_planned(
    space: Space, sampler: Named
) -> None:
    first = [{"model.depth": 20}, {RATE: 0.5}, {RATE: 0.5}, {"augment.policy": "crop_flip_cutout"}]
    study = Study(Proposer(space, sampler, 0, first), space)
    study.proposer.planned[4] = {**space.own, "model.depth": 8, "augment.cutout": 0.5}
    proposed = study.finish(5)
    assert proposed[0] == space.own
    assert proposed[1] == space.own | {RATE: 0.5}
    assert proposed[2] == space.own | {"augment.policy": "crop_flip_cutout", "augment.cutout": 0.5}
    assert proposed[4] == space.own | {"model.depth": 8}, "without the key that its policy does not use"
    assert all(proposed.count(values) == 1 for values in proposed)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_that_was_killed_proposes_what_it_would_have_proposed(
    space: Space, sampler: Named, tmp_path: Path
) -> None:
    def study(seed: int = 7) -> Study:
        return Study(Proposer(space, sampler, seed), space, journal(tmp_path / f"{seed}.journal"))

    whole = Study(Proposer(space, sampler, 7), space).finish(25)
    assert study().finish(13) + study().finish(12) == whole
    assert study(seed=8).finish(25)[1:] != whole[1:]


def test_a_proposal_does_not_depend_on_whether_its_trial_exists(space: Space) -> None:
    study = Study(Proposer(space, "tpe", 0), space)
    study.finish(14)
    proposed = study.propose()
    assert study.enter().values == proposed
    assert study.proposer.propose(study.ledger.frozen(), 14) == proposed


def test_a_proposal_does_not_depend_on_whether_the_end_of_a_finished_trial_is_stored() -> None:
    space = space_of({RATE: {"low": 0.02, "high": 0.8, "log": True}, "model.depth": {"low": 8, "high": 32, "step": 6}})
    study = Study(Proposer(space, "tpe", 0), space)
    study.finish(11)
    study.fail()
    best = study.enter()
    for epoch, accuracy in enumerate((0.5, 0.99), start=1):
        study.ledger.score(best, epoch, accuracy)
    unaware, aware = study.propose(), study.propose({best.number})
    study.ledger.end(best, Outcome.FINISHED)
    assert study.propose() == study.propose({best.number}) == aware
    assert unaware != aware


def test_a_sampler_that_repeats_itself_is_replaced_by_a_draw(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(Proposer(space, "tpe", 0), space)
    tried = study.finish(3)
    monkeypatch.setattr(study.proposer, "_attempt", lambda *_: tried[1])
    drawn = study.propose()
    assert drawn not in tried
    assert drawn == study.propose()


def distances(proposed: Sequence[Values]) -> tuple[float, float]:
    """Mean distance from the hill's top, of the first random trials and of the last ones."""
    away = [abs(math.log(float(str(values[RATE])) / 0.4)) for values in proposed]
    return statistics.fmean(away[1:11]), statistics.fmean(away[40:])


def test_tpe_finds_the_hill(space: Space) -> None:
    early, late = distances(Study(Proposer(space, "tpe", 0), space).finish(60))
    assert late < 0.5 * early


def test_tpe_learns_from_paused_trials_though_they_are_running_in_the_storage(space: Space) -> None:
    study = Study(Proposer(space, "tpe", 0), space)
    early, late = distances([study.pause() for _ in range(60)])
    frozen = study.ledger.frozen()
    assert {trial.state for trial in frozen} == {TrialState.RUNNING}, "the storage is left as it is"
    assert not any(trial.constraints for trial in frozen)
    assert late < 0.5 * early


def test_of_paused_trials_the_scores_count_not_their_number(space: Space) -> None:
    flat, hilly = Study(Proposer(space, "tpe", 0), space), Study(Proposer(space, "tpe", 0), space)
    for _ in range(11):
        flat.pause(0.5)
        hilly.pause()
    first_ten = [[trial.values for trial in study.ledger.trials[:10]] for study in (flat, hilly)]
    assert first_ten[0] == first_ten[1]
    assert flat.propose() != hilly.propose()


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.OUT_OF_MEMORY])
@pytest.mark.parametrize("others", ["finish", "are paused"])
def test_tpe_avoids_what_cannot_be_trained_and_not_what_crashed(space: Space, others: str, outcome: Outcome) -> None:
    failures = {}
    for reason in (outcome, Outcome.CRASHED):
        study = Study(Proposer(space, "tpe", 3), space)
        for _ in range(60):
            trial = study.enter()
            if float(str(trial.values[RATE])) > 0.25:
                study.ledger.end(trial, reason)
            elif others == "finish":
                study.end(trial)  # the better, the nearer to the cliff
            else:
                study.ledger.score(trial, 1, hill(trial.values))
        failures[reason] = sum(trial.outcome is reason for trial in study.ledger.trials[25:])
    assert failures[outcome] < 0.75 * failures[Outcome.CRASHED]


def test_a_gaussian_process_learns_from_infeasible_trials_too() -> None:
    space = space_of({RATE: {"low": 0.02, "high": 0.8, "log": True}, "model.depth": {"low": 8, "high": 32, "step": 6}})
    study = Study(Proposer(space, "gp", 0), space)
    for _ in range(15):
        trial = study.enter()
        if float(str(trial.values[RATE])) > 0.6:
            study.ledger.end(trial, Outcome.DIVERGED)
        else:
            study.end(trial)
    trials = study.ledger.trials
    assert any(trial.outcome is Outcome.DIVERGED for trial in trials[:12])
    assert all(0.2 < float(str(trial.values[RATE])) < 0.6 for trial in trials[-3:])


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "gp"])
def test_no_configuration_is_tried_twice_and_after_the_last_one_there_is_none(sampler: Named) -> None:
    space = space_of(
        {
            RATE: [0.1, 0.2],
            "augment.policy": ["crop_flip", "crop_flip_cutout"],
            "augment.cutout": {"choices": [0.4, 0.5], "when": {"augment.policy": ["crop_flip_cutout"]}},
            "model.width": [8, 16],
        }
    )
    assert space.size == 12
    study = Study(Proposer(space, sampler, 0), space)
    proposed = study.finish(12)
    assert sorted(map(json.dumps, proposed)) == sorted(map(json.dumps, space.grid()))
    with pytest.raises(ValueError, match="all 12 configurations of the space have been tried"):
        study.propose()


def test_the_values_of_failed_and_of_planned_trials_are_not_proposed_again() -> None:
    space = space_of({"model.width": [8, 16, 24, 32]})
    study = Study(Proposer(space, "grid", 0), space)
    study.enter()
    assert study.fail(Outcome.CRASHED).values == {"model.width": 8}
    study.proposer.planned[9] = {"model.width": 24}
    assert study.propose() == {"model.width": 32}


def test_the_grid_is_tried_in_its_order() -> None:
    space = space_of({"model.width": [8, 16, 24], "model.depth": [8, 20]})
    proposed = Study(Proposer(space, "grid", 0), space).finish(6, score=lambda values: 0.5)
    assert proposed[0] == space.own
    assert proposed[1:] == [values for values in space.grid() if values != space.own]


def test_a_proposal_changes_nothing_in_the_storage(space: Space) -> None:
    study = Study(Proposer(space, "tpe", 0), space)
    for _ in range(12):
        study.pause()
    study.fail()
    before = copy.deepcopy(study.ledger.frozen())
    study.propose()
    assert study.ledger.frozen() == before
