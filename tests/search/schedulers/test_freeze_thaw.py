import dataclasses
import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import Choices, Range
from pipeline.search.schedulers.base import RemainingBudget, Resume, Scheduler, Start, TrialView
from pipeline.search.schedulers.curve_gp import CurveProcess
from pipeline.search.schedulers.forecast import Forecast, to_go
from pipeline.search.schedulers.freeze_thaw import MODELLED, SPREAD, FreezeThaw, modelled
from pipeline.search.space.space import Space
from pipeline.search.space.values import Values

SPACE = Space(
    {
        "rate": Range(low=0.001, high=1.0, log=True, when={}),
        "decay": Range(low=0.0, high=1.0, when={}),
        "policy": Choices(choices=("none", "flip", "cutout"), when={}),
        "size": Range(low=0.1, high=0.9, when={"policy": ("cutout",)}),
    },
    {"rate": 0.1, "decay": 0.5, "policy": "none", "size": 0.5},
)
Curve = Callable[[Values, int], Sequence[float] | None]
"""Scores of a configuration over a number of epochs; None if it fails in the first epoch."""


def final(values: Values) -> float:
    rate = (math.log10(float(values["rate"])) + 1.2) / 3  # type: ignore[arg-type]
    decay = float(values["decay"]) - 0.3  # type: ignore[arg-type]
    return 0.95 - 2.0 * rate**2 - 0.4 * decay**2 - (0.0 if values["policy"] == "flip" else 0.05)


def power_law(values: Values, epochs: int) -> Sequence[float]:
    """High rates fall fast and end badly, so that who leads early need not lead at the end."""
    end = max(0.05, final(values))
    speed = 0.4 + float(values["rate"])  # type: ignore[arg-type]
    return [max(0.0, end - 0.5 * (epoch**-speed - epochs**-speed)) for epoch in range(1, epochs + 1)]


@dataclass
class Search:
    """A search by a scheduler on learning curves, with all its decisions."""

    scheduler: Scheduler
    epochs: int
    trials: int
    budget: float = math.inf
    """Epochs."""
    workers: int = 1
    curve: Curve = power_law
    views: list[TrialView] = field(default_factory=list)
    decisions: list[tuple[tuple[TrialView, ...], RemainingBudget, Start | Resume | None]] = field(default_factory=list)

    def run(self) -> "Search":
        while True:
            for _ in range(self.workers - len(self.running)):
                self.decide()
            if not self.running:
                return self
            for number in self.running:
                self.train(number)

    @property
    def running(self) -> list[int]:
        return [trial.number for trial in self.views if trial.state == "running"]

    @property
    def finished(self) -> list[TrialView]:
        return [trial for trial in self.views if trial.state == "finished"]

    @property
    def spent(self) -> int:
        return sum(len(trial.scores) for trial in self.views)

    def decide(self) -> None:
        promised = sum(trial.until if trial.state == "running" else len(trial.scores) for trial in self.views)
        left = RemainingBudget(self.trials - len(self.views), self.budget - promised)
        decision = self.scheduler.decide(tuple(self.views), left)
        self.decisions.append((tuple(self.views), left, decision))
        if isinstance(decision, Start):
            assert left.trials >= 1
            assert 0 < decision.until <= min(self.epochs, left.epochs)
            values = decision.values
            if values is None:
                values = SPACE.random(np.random.default_rng(len(self.views)), 1)[0]
            self.views.append(TrialView(len(self.views), values, (), "running", decision.until))
        elif isinstance(decision, Resume):
            trial = self.views[decision.number]
            assert trial.state == "paused"
            assert trial.until < decision.until <= min(self.epochs, trial.until + left.epochs)
            self.views[decision.number] = dataclasses.replace(trial, state="running", until=decision.until)

    def train(self, number: int) -> None:
        trial = self.views[number]
        curve = self.curve(trial.values, self.epochs)
        if curve is None:
            self.views[number] = dataclasses.replace(trial, state="failed")
            return
        scores = tuple(curve[: len(trial.scores) + 1])
        reached = "finished" if len(scores) == self.epochs else "paused" if len(scores) == trial.until else "running"
        self.views[number] = dataclasses.replace(trial, scores=scores, state=reached)  # type: ignore[arg-type]


def paused(number: int, values: Mapping[str, Any], *scores: float) -> TrialView:
    return TrialView(number, values, scores, "paused", len(scores))


@pytest.mark.parametrize(
    ("epochs", "rungs"),
    [(52, (4, 8, 14, 27, 52)), (20, (1, 2, 4, 9, 20)), (6, (1, 2, 4, 6)), (3, (1, 2, 3)), (2, (1, 2)), (1, (1,))],
)
def test_rungs_increase_up_to_a_full_training(epochs: int, rungs: tuple[int, ...]) -> None:
    assert FreezeThaw(SPACE, epochs).rungs == rungs


def test_a_training_of_no_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        FreezeThaw(SPACE, 0)


def test_the_first_trials_are_spread_over_the_space() -> None:
    search = Search(FreezeThaw(SPACE, 13, seed=3), 13, trials=40, budget=0.4 * 40 * 13)
    for _ in range(8):
        search.decide()
        search.train(search.running[0])
    assert [trial.values for trial in search.views] == SPACE.spread(8, 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_arguments_give_the_same_decision_in_any_order_of_asking(workers: int) -> None:
    search = Search(FreezeThaw(SPACE, 13, seed=1), 13, trials=12, budget=0.4 * 12 * 13, workers=workers).run()
    another = FreezeThaw(SPACE, 13, seed=1)
    for trials, left, decision in reversed(search.decisions):
        assert another.decide(trials, left) == decision
    assert (
        another.decide(*search.decisions[len(search.decisions) // 2][:2])
        == search.decisions[len(search.decisions) // 2][2]
    )


def test_another_seed_searches_elsewhere() -> None:
    one, another = (Search(FreezeThaw(SPACE, 13, seed=seed), 13, trials=6, budget=40).run() for seed in (1, 2))
    assert not {str(trial.values) for trial in one.views} & {str(trial.values) for trial in another.views}


@pytest.mark.parametrize("proposes", [True, False])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(("trials", "epochs"), [(20, 13), (10, 52), (5, 6), (4, 5), (3, 20)])
def test_by_the_end_of_the_budget_all_have_started_and_one_is_finished(
    trials: int, epochs: int, workers: int, proposes: bool
) -> None:
    budget = 0.4 * trials * epochs
    search = Search(FreezeThaw(SPACE, epochs, proposes=proposes), epochs, trials, budget, workers).run()
    assert len(search.views) == trials
    assert search.finished
    assert search.spent <= budget


@pytest.mark.parametrize(("trials", "epochs"), list(itertools.product(range(1, 6), range(1, 7))))
def test_without_a_budget_every_trial_of_a_small_study_trains_to_its_end(trials: int, epochs: int) -> None:
    search = Search(FreezeThaw(SPACE, epochs), epochs, trials).run()
    assert len(search.finished) == trials


@pytest.mark.parametrize(("trials", "epochs"), list(itertools.product(range(1, 6), range(1, 7))))
def test_a_budget_of_a_small_study_is_used_and_kept(trials: int, epochs: int) -> None:
    budget = 0.4 * trials * epochs
    search = Search(FreezeThaw(SPACE, epochs), epochs, trials, budget).run()
    assert search.spent <= budget
    assert bool(search.finished) == (budget >= epochs)
    assert bool(search.views) == (budget >= 1)


def test_a_budget_that_is_too_small_for_all_first_rungs_still_finishes_one() -> None:
    search = Search(FreezeThaw(SPACE, 2), 2, trials=30, budget=24).run()
    assert search.finished
    assert search.spent == 24


def test_nothing_is_left_to_do_when_all_are_finished_or_the_budget_is_spent() -> None:
    scores = tuple(power_law(SPACE.own, 4))
    scheduler = FreezeThaw(SPACE, 4)
    assert scheduler.decide([TrialView(0, SPACE.own, scores, "finished", 4)], RemainingBudget(0, math.inf)) is None
    assert scheduler.decide([TrialView(0, SPACE.own, scores, "finished", 4)], RemainingBudget(9, 0)) is None
    assert scheduler.decide([TrialView(0, SPACE.own, (), "running", 4)], RemainingBudget(0, 9)) is None


def test_the_trial_that_is_predicted_best_resumes_where_nothing_can_start() -> None:
    values = SPACE.spread(4, 0)
    trials = [paused(number, values[number], *[score] * 4) for number, score in enumerate((0.2, 0.9, 0.5, 0.4))]
    assert FreezeThaw(SPACE, 52).decide(trials, RemainingBudget(0, 48)) == Resume(1, 8)


def test_a_trial_that_cannot_reach_its_end_does_not_resume() -> None:
    values = SPACE.spread(2, 0)
    trials = [paused(0, values[0], *[0.9] * 4), paused(1, values[1], *[0.2] * 27)]
    assert FreezeThaw(SPACE, 52).decide(trials, RemainingBudget(0, 47)) == Resume(1, 52)
    trials.append(TrialView(2, SPACE.own, (0.5,) * 52, "finished", 52))
    assert FreezeThaw(SPACE, 52).decide(trials, RemainingBudget(0, 24)) is None


def test_the_scores_of_a_trial_that_stopped_early_are_not_extrapolated() -> None:
    values = SPACE.spread(4, 0)
    rising = (0.2, 0.35, 0.45, 0.5)
    trials = [
        TrialView(number, values[number], rising, state, 4)  # type: ignore[arg-type]
        for number, state in enumerate(("finished", "paused", "paused", "paused"))
    ]
    trials.append(TrialView(4, SPACE.own, tuple(power_law(SPACE.own, 52)), "finished", 52))
    means = Forecast(SPACE, trials, 52, (4, 8, 14, 27, 52)).means
    assert means[0] < min(means[number] for number in (1, 2, 3))


def test_failed_trials_keep_the_search_away_from_where_they_are() -> None:
    def fails_at_high_rates(values: Values, epochs: int) -> Sequence[float] | None:
        return None if float(values["rate"]) > 0.03 else power_law(values, epochs)  # type: ignore[arg-type]

    search = Search(FreezeThaw(SPACE, 13), 13, trials=30, budget=0.4 * 30 * 13, curve=fails_at_high_rates).run()
    failed = [trial.number for trial in search.views if trial.state == "failed"]
    # At random half would fail. Of 30 trials the first 6 are spread before the model is asked.
    assert sum(number >= 6 for number in failed) <= 6
    assert search.finished


def test_a_study_in_which_all_fail_ends() -> None:
    search = Search(FreezeThaw(SPACE, 13), 13, trials=12, budget=60, curve=lambda values, epochs: None).run()
    assert [trial.state for trial in search.views] == ["failed"] * 12
    assert len({str(trial.values) for trial in search.views}) == 12


def test_the_model_learns_from_pruned_trials_which_never_resume() -> None:
    values = SPACE.spread(4, 0)
    trials = [paused(number, values[number], *[score] * 4) for number, score in enumerate((0.2, 0.9, 0.5, 0.4))]
    trials[1] = dataclasses.replace(trials[1], state="pruned")
    decision = FreezeThaw(SPACE, 52).decide(trials, RemainingBudget(0, 200))
    assert isinstance(decision, Resume)
    assert decision.number != 1


def test_workers_that_ask_at_once_get_different_work() -> None:
    search = Search(FreezeThaw(SPACE, 13), 13, trials=40, budget=0.4 * 40 * 13, workers=6).run()
    for trials, _, decision in search.decisions:
        if isinstance(decision, Start):
            assert all(decision.values != trial.values for trial in trials)
    starts = [
        SPACE.encode([decision.values])[0]
        for _, _, decision in search.decisions[12:]
        if isinstance(decision, Start) and decision.values is not None
    ]
    assert min(float(np.abs(one - other).max()) for one, other in itertools.combinations(starts, 2)) > 1e-4


def test_a_running_trial_lowers_what_is_expected_of_its_neighbours() -> None:
    values = SPACE.spread(7, 0)
    trials = [paused(number, values[number], *power_law(values[number], 52)[:4]) for number in range(6)]
    alone = Forecast(SPACE, trials, 52, (4, 8, 14, 27, 52))
    beside = Forecast(SPACE, [*trials, TrialView(6, values[6], (), "running", 4)], 52, (4, 8, 14, 27, 52))
    assert beside.expected_improvement([values[6]])[0] < 0.5 * alone.expected_improvement([values[6]])[0]


def test_a_space_of_few_configurations_is_never_proposed_twice() -> None:
    few = Space(
        {"policy": SPACE.axes["policy"], "depth": Range(low=1, high=2, when={})}, {"policy": "flip", "depth": 1}
    )
    trials = [paused(number, values, 0.5 + number / 100) for number, values in enumerate(few.grid()[:5])]
    for count in range(2, 6):
        ended = [dataclasses.replace(trial, state="pruned") for trial in trials[:count]]
        decision = FreezeThaw(few, 4).decide(ended, RemainingBudget(6 - count, math.inf))
        assert isinstance(decision, Start)
        assert decision.values in [values for values in few.grid() if values not in [trial.values for trial in ended]]


def test_without_proposes_the_values_are_left_to_the_sampler() -> None:
    search = Search(FreezeThaw(SPACE, 13, proposes=False), 13, trials=20, budget=0.4 * 20 * 13).run()
    decisions = [decision for _, _, decision in search.decisions]
    assert all(decision.values is None for decision in decisions if isinstance(decision, Start))
    assert any(isinstance(decision, Resume) for decision in decisions[:20])


@pytest.mark.parametrize("workers", [1, 4])
def test_it_finds_better_configurations_than_random_search_at_equal_cost(workers: int) -> None:
    best = final({"rate": 10**-1.2, "decay": 0.3, "policy": "flip"})
    regrets, at_random = [], []
    for seed in range(3):
        search = Search(FreezeThaw(SPACE, 26, seed), 26, trials=20, budget=0.4 * 20 * 26, workers=workers).run()
        regrets.append(best - max(trial.scores[-1] for trial in search.finished))
        draws = SPACE.random(np.random.default_rng(seed), 8)
        at_random.append(best - max(final(values) for values in draws))
    assert np.mean(regrets) < 0.3 * np.mean(at_random)


def test_it_proposes_the_edges_of_a_space_no_more_often_than_chance() -> None:
    keys = "abcdef"
    space = Space({key: Range(low=0.0, high=1.0, when={}) for key in keys}, dict.fromkeys(keys, 0.3))

    def best_in_the_middle(values: Values, epochs: int) -> Sequence[float]:
        end = 0.8 - 0.4 * sum((float(value) - 0.5) ** 2 for value in values.values())
        return [max(0.0, end - 0.4 * (epoch**-0.7 - epochs**-0.7)) for epoch in range(1, epochs + 1)]

    at_edges = []
    for seed in range(6):
        search = Search(FreezeThaw(space, 8, seed), 8, trials=30, budget=80, curve=best_in_the_middle).run()
        places = space.encode([trial.values for trial in search.views[SPREAD:]])
        at_edges.append(float((np.abs(places - 0.5) > 0.45).mean()))
    assert np.mean(at_edges) < 0.1


def test_noisy_scores_do_not_mislead_it() -> None:
    def noisy(values: Values, epochs: int) -> Sequence[float]:
        generator = np.random.default_rng(abs(hash((values["rate"], values["decay"]))))
        return list(np.clip(np.array(power_law(values, epochs)) + generator.normal(0, 0.01, epochs), 0, 1))

    best = final({"rate": 10**-1.2, "decay": 0.3, "policy": "flip"})
    search = Search(FreezeThaw(SPACE, 26), 26, trials=30, budget=0.4 * 30 * 26, curve=noisy).run()
    chosen = max(search.finished, key=lambda trial: trial.scores[-1])
    assert best - final(chosen.values) < 0.03


def test_the_gradient_of_the_process_is_that_of_its_loss() -> None:
    generator = np.random.default_rng(0)
    features, owners = generator.random((7, 3)), np.repeat(np.arange(7), 3)
    kinds = generator.integers(3, size=(7, 2))
    process = CurveProcess(features, kinds, owners, to_go(np.tile([1, 5, 20], 7), 20), generator.normal(size=21))
    at = process._centre + 0.2 * generator.normal(size=len(process._centre))
    numeric = [(process._loss(at + step)[0] - process._loss(at - step)[0]) / 2e-5 for step in 1e-5 * np.eye(len(at))]
    assert process._loss(at)[1] == pytest.approx(numeric, rel=1e-4, abs=1e-5)


def test_the_process_is_certain_of_what_it_has_observed_and_uncertain_of_the_rest() -> None:
    features = np.linspace(0, 1, 6)[:, None]
    targets: NDArray[np.float64] = np.sin(3 * features[:, 0])
    kinds = np.empty((6, 0), dtype=np.int64)
    process = CurveProcess(features, kinds, np.arange(6), np.zeros(6), targets)
    means, sds = process.ends()
    assert means == pytest.approx(targets, abs=0.1)
    begun = CurveProcess(features, kinds, np.arange(6), to_go(np.array([20] * 5 + [1]), 20), targets)
    assert begun.ends()[1][5] > 2 * sds[5]


def test_the_end_of_a_curve_is_less_certain_where_none_of_its_kind_was_seen_to_its_end() -> None:
    """Curves of two schedules begin alike; one that ended says more of those with the same schedule."""
    space = Space(
        {"rate": Range(low=0.0, high=1.0, when={}), "schedule": Choices(choices=("constant", "cycle"), when={})},
        {"rate": 0.5, "schedule": "constant"},
    )
    curve = (0.2, 0.25, 0.3, 0.32, 0.36, 0.4, 0.42, 0.43)
    values = [{"rate": 0.1 * number, "schedule": "constant"} for number in range(5)]
    trials = [TrialView(0, values[0], curve, "finished", 8)]
    trials += [paused(number, values[number], curve[0] + 0.005 * number) for number in range(1, 5)]
    other = paused(5, {"rate": 0.25, "schedule": "cycle"}, 0.21)
    same = dataclasses.replace(other, values={"rate": 0.25, "schedule": "constant"})
    sds = [Forecast(space, [*trials, sixth], 8, (1, 2, 3, 5, 8)).ends()[5][1] for sixth in (same, other)]
    assert sds[1] > 1.3 * sds[0]


def test_first_epochs_that_hardly_differ_do_not_make_it_sure_of_ends() -> None:
    """One curve was seen to its end: others may rise less or more, however many of their first epochs are alike."""
    space = Space({"rate": Range(low=0.0, high=1.0, when={})}, {"rate": 0.5})
    generator = np.random.default_rng(0)
    trials = [TrialView(0, {"rate": 0.5}, (0.2, 0.25, 0.3, 0.32, 0.36, 0.4, 0.42, 0.43), "finished", 8)]
    trials += [
        paused(number, {"rate": float(rate)}, 0.2 + generator.normal(0, 0.004))
        for number, rate in enumerate(generator.random(20), 1)
    ]
    ends = Forecast(space, trials, 8, (1, 2, 3, 5, 8)).ends()
    assert np.mean([sd for number, (_, sd) in ends.items() if number]) > 0.0025  # 0.0019 by the spread of all scores


def test_the_distance_from_the_end_is_1_after_the_first_epoch_and_0_after_the_last() -> None:
    assert to_go(np.array([1, 4, 16]), 16) == pytest.approx([1, 0.5, 0])
    assert to_go(np.array([1]), 1) == pytest.approx([0])


def test_of_many_trials_the_model_sees_the_running_and_the_best_of_each_rung() -> None:
    trials = [paused(number, SPACE.own, *[0.5 + number / 1e4] * (1 if number < 300 else 4)) for number in range(400)]
    trials[7] = dataclasses.replace(trials[7], state="running", until=4)
    kept = [trial.number for trial in modelled(trials)]
    assert len(kept) == MODELLED
    assert kept == sorted(kept)
    assert {7, 299, 399} <= set(kept)
    assert 0 not in kept
    assert modelled(trials[:MODELLED]) == trials[:MODELLED]


def test_a_decision_among_2_000_trials_learns_from_a_bounded_number_of_them() -> None:
    values = SPACE.random(np.random.default_rng(0), 2_000)
    reached = (4, 4, 4, 8, 8, 14, 27, 52)
    trials = [
        TrialView(
            number,
            values[number],
            tuple(power_law(values[number], 52)[:until]),
            "finished" if until == 52 else "paused",
            until,
        )
        for number in range(2_000)
        for until in [reached[number % 8]]
    ]
    assert len(modelled(trials)) == MODELLED
    assert FreezeThaw(SPACE, 52).decide(trials, RemainingBudget(100, 10_000)) is not None


def test_the_module_loads_without_the_libraries_that_take_long_to_load() -> None:
    code = (
        "import sys, pipeline.search.schedulers.freeze_thaw;"
        "print({'torch', 'sklearn', 'scipy', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
