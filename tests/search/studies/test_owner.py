from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from searches import EPOCHS, SPACE, Diary, Halves, curve, owner

from pipeline.outcome import Outcome
from pipeline.records import Epoch
from pipeline.search.engines.base import Message, Order, Stuck, TargetReached
from pipeline.search.engines.simulated import Fault, SimulatedEngine
from pipeline.search.engines.store import Store
from pipeline.search.schedulers.base import RemainingBudget, Resume, Start, TrialView
from pipeline.search.schedulers.freeze_thaw import FreezeThaw
from pipeline.search.studies.epochs import append_epoch
from pipeline.search.studies.journal import journal
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.owner import Limits, Owner
from pipeline.search.studies.proposals import Planned, trial_seed
from pipeline.search.studies.ranking import finished
from pipeline.search.studies.trials import Trial
from pipeline.search.studies.watcher import Watcher


def diary(owner: Owner) -> Diary:
    (found,) = owner.watchers
    assert isinstance(found, Diary)
    return found


def states(owner: Owner) -> list[str]:
    return [trial.status for trial in owner.ledger.trials]


class Faulty(SimulatedEngine):
    """Some orders fail: `faults` has the faults of a trial's next orders. The orders are recorded."""

    def __init__(self, faults: dict[int, list[Fault]]) -> None:
        super().__init__(curve, fault=self._fault)
        self.orders: list[Order] = []
        self._faults = faults

    def _fault(self, order: Order) -> Fault | None:
        self.orders.append(order)
        faults = self._faults.get(order.trial)
        return faults.pop(0) if faults else None


CRASH = Fault(2, Outcome.CRASHED, "it crashed")
CRASH_AT_ONCE = Fault(0, Outcome.CRASHED, "it crashed")
HANG = Fault(0)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_study_has_exactly_as_many_trials_as_it_was_asked_for(tmp_path: Path, workers: int) -> None:
    study = owner(tmp_path, engine=SimulatedEngine(curve, workers), trials=8, budget=4.0)
    assert study.run()
    assert [trial.number for trial in study.ledger.trials] == list(range(8))
    assert set(states(study)) == {"finished", "pruned"}
    assert all(len(trial.scores) in (3, EPOCHS) for trial in study.ledger.trials)


def test_the_budget_ends_a_search_and_what_is_paused_counts_as_pruned(tmp_path: Path) -> None:
    engine = SimulatedEngine(curve)
    study = owner(tmp_path, engine=engine, trials=6, budget=3.0)
    study.run()
    # 6 trials of 3 epochs are 2 full trainings; two more to the end are 6 epochs each.
    assert engine.epochs_trained == 6 * 3 + 2 * 6
    assert sorted(states(study)) == ["finished"] * 2 + ["pruned"] * 4
    best = sorted(study.ledger.trials, key=lambda trial: -trial.scores[2])[:2]
    assert all(trial.state == "finished" for trial in best)


def test_a_search_out_of_patience_ends_and_goes_on_with_more(tmp_path: Path) -> None:
    class Ends:
        """Every trial trains to its end."""

        def decide(self, trials: Sequence[TrialView], left: RemainingBudget) -> Start | Resume | None:
            return Start(EPOCHS) if left.trials else None

    accuracies = iter([0.5, 0.7, 0.6, 0.6, 0.65, 0.6, 0.6, 0.6, 0.6])
    study = owner(tmp_path, scheduler=Ends(), trials=9, patience=3, curve=lambda values: [next(accuracies)] * EPOCHS)
    assert study.run()
    # The second is the best. The third has begun when its end is recorded, then three more begin.
    assert len(study.ledger.trials) == 6
    study.limits = Limits(patience=5)
    assert study.run()
    assert len(study.ledger.trials) == 8


def test_a_search_whose_budget_is_too_small_for_one_training_still_finishes_its_best_one(tmp_path: Path) -> None:
    study = owner(tmp_path, trials=3, budget=0.5)
    study.run()
    assert states(study).count("finished") == 1


def test_trial_0_is_trained_to_its_end_whatever_the_scheduler_says(tmp_path: Path) -> None:
    study = owner(tmp_path, trials=4, budget=3.0)
    study.source = replace(study.source, first_until=EPOCHS)
    study.run()
    assert diary(study).of("sent")[:2] == [(0, EPOCHS), (1, 3)]
    assert study.ledger.trials[0].state == "finished"


def test_a_trial_is_scored_in_every_epoch_and_once(tmp_path: Path) -> None:
    study = owner(tmp_path, trials=4, budget=3.0)
    study.run()
    for trial in study.ledger.trials:
        assert trial.scores == curve(trial.values)[: len(trial.scores)]
        assert [epoch for number, epoch in diary(study).of("trained") if number == trial.number] == list(
            range(1, len(trial.scores) + 1)
        )


def test_a_diverged_trial_and_one_out_of_memory_end_and_are_not_tried_again(tmp_path: Path) -> None:
    engine = Faulty({1: [Fault(2, Outcome.DIVERGED, "it diverged")], 2: [Fault(2, Outcome.OUT_OF_MEMORY, "no room")]})
    study = owner(tmp_path, engine=engine, trials=4, retries=2)
    study.run()
    assert states(study)[1:3] == ["diverged", "out of memory"]
    assert [order.trial for order in engine.orders].count(1) == 1
    assert study.ledger.trials[1].why == "it diverged"
    assert study.ledger.trials[1].state == "failed"


def test_a_crashed_trial_is_tried_again_from_where_it_was_and_ends_like_the_others(tmp_path: Path) -> None:
    engine = Faulty({1: [CRASH, CRASH]})
    study = owner(tmp_path, engine=engine, trials=3, retries=2)
    study.run()
    assert [order.known for order in engine.orders if order.trial == 1][:3] == [0, 2, 3]
    assert states(study)[1] in ("finished", "pruned")
    assert study.ledger.trials[1].scores == curve(study.ledger.trials[1].values)[: len(study.ledger.trials[1].scores)]


def test_a_trial_that_crashes_without_getting_further_is_given_up(tmp_path: Path) -> None:
    engine = Faulty({1: [CRASH_AT_ONCE] * 5})
    study = owner(tmp_path, engine=engine, trials=3, retries=2)
    study.run()
    assert [order.trial for order in engine.orders].count(1) == 3
    assert states(study)[1] == "crashed"
    assert diary(study).of("failed") == [(1, "crashed")] * 2


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"epoch_timeout_s": 5.0}, "tune.epoch_timeout_s is 5"),
        ({"trial_timeout_s": 20.0}, "tune.trial_timeout_s is 20"),
    ],
)
def test_a_trial_that_hangs_is_stopped_tried_again_and_given_up(
    tmp_path: Path, limits: dict[str, float], why: str
) -> None:
    engine = Faulty({1: [HANG] * 9})
    study = owner(tmp_path, engine=engine, trials=3, retries=1, **limits)
    study.run()
    assert [order.trial for order in engine.orders].count(1) == 2
    assert states(study)[1] == "timed out"
    assert why in str(study.ledger.trials[1].why)
    assert states(study)[0] in ("finished", "pruned")


class Interrupted(Exception):
    pass


class Killed(Diary):
    """Raises Interrupted at a given event, as if the owner's process were killed there."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def _count(self) -> None:
        self.at -= 1
        if self.at < 0:
            raise Interrupted

    def sent(self, trial, config) -> None:  # type: ignore[no-untyped-def]
        self._count()
        super().sent(trial, config)

    def trained(self, trial, epoch) -> None:  # type: ignore[no-untyped-def]
        self._count()
        super().trained(trial, epoch)
        self._count()

    def reached(self, trial, reached) -> None:  # type: ignore[no-untyped-def]
        self._count()
        super().reached(trial, reached)
        self._count()

    def ended(self, trial, outcome, why) -> None:  # type: ignore[no-untyped-def]
        self._count()
        super().ended(trial, outcome, why)
        self._count()


def recorded(ledger: Ledger) -> list[tuple[object, ...]]:
    return [
        (trial.number, trial.values, trial.scores, trial.outcome, trial.attributes["seed"]) for trial in ledger.trials
    ]


def test_a_study_killed_at_any_event_ends_like_one_that_was_not(tmp_path: Path) -> None:
    undisturbed = owner(tmp_path, trials=5, budget=3.0)
    undisturbed.run()
    for at in range(0, 70, 3):
        path = tmp_path / f"{at}.journal"
        for attempt in (at, at + 5, 10_000):
            # A new ledger: what was in memory is lost with the process, and the journal has the rest.
            study = owner(tmp_path, ledger=Ledger(journal(path), "study"), trials=5, budget=3.0)
            study.watchers = (Killed(attempt),)
            try:
                study.run()
            except Interrupted:
                continue
        assert recorded(Ledger(journal(path), "study")) == recorded(undisturbed.ledger), at


class Announcing(SimulatedEngine):
    """Records its orders in a diary."""

    diary: Diary | None = None

    def submit(self, order: Order) -> None:
        if self.diary:
            self.diary.events.append(("ordered", order.trial, order.until))
        super().submit(order)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_has_its_next_order_before_what_it_has_reached_is_recorded(tmp_path: Path, workers: int) -> None:
    engine = Announcing(curve, workers)
    study = owner(tmp_path, engine=engine, trials=5, budget=3.0, first_until=EPOCHS)
    engine.diary = diary(study)
    study.run()
    events = diary(study).events
    orders = [event for event in events if event[0] == "ordered"]
    assert [("sent", *order[1:]) for order in orders] == [event for event in events if event[0] == "sent"]
    # All workers get their first orders. Each reached rung frees a worker, which gets an order before the record.
    assert [event[0] for event in events[:workers]] == ["ordered"] * workers
    ordered_first = [events[index - 1][0] == "ordered" for index, event in enumerate(events) if event[0] == "reached"]
    assert ordered_first == [True] * (len(orders) - workers) + [False] * workers


def test_a_trial_that_resumes_at_once_is_recorded_in_order(tmp_path: Path) -> None:
    ledger = Ledger(journal(tmp_path / "journal"), "study")
    study = owner(tmp_path, ledger=ledger, trials=1, budget=1.0)
    study.run()
    epochs = [("trained", 0, epoch) for epoch in range(1, EPOCHS + 1)]
    assert diary(study).events == [
        ("sent", 0, 3),
        *epochs[:3],
        ("reached", 0, 3),
        ("sent", 0, EPOCHS),
        *epochs[3:],
        ("reached", 0, EPOCHS),
        ("ended", 0, "finished"),
    ]
    assert ledger.trials[0].attributes["reached"] == 3


def test_what_was_reached_and_could_not_be_recorded_is_reached_again(tmp_path: Path) -> None:
    class Failing(Diary):
        def reached(self, trial, reached) -> None:  # type: ignore[no-untyped-def]
            raise OSError("the disk is full")

    path = tmp_path / "journal"
    study = owner(tmp_path, ledger=Ledger(journal(path), "study"), trials=3, budget=3.0)
    study.watchers = (Failing(),)
    with pytest.raises(OSError, match="disk is full"):
        study.run()
    # Trial 1 had its order already.
    assert diary(study).of("stopped") == [(0,), (1,)]
    following = owner(tmp_path, ledger=Ledger(journal(path), "study"), trials=3, budget=3.0)
    assert [trial.state for trial in following.ledger.trials] == ["running", "running"]
    following.run()
    assert diary(following).of("reached")[:2] == [(0, 3), (1, 3)]
    undisturbed = owner(tmp_path, trials=3, budget=3.0)
    undisturbed.run()
    assert recorded(following.ledger) == recorded(undisturbed.ledger)


def test_a_study_resumes_when_it_is_asked_for_more_trials(tmp_path: Path) -> None:
    ledger = Ledger(journal(tmp_path / "journal"), "study")
    owner(tmp_path, ledger=ledger, trials=3, budget=2.0).run()
    before = recorded(ledger)
    more = owner(tmp_path, ledger=Ledger(journal(tmp_path / "journal"), "study"), trials=5, budget=4.0)
    more.run()
    assert recorded(more.ledger)[:3] == before
    assert len(more.ledger.trials) == 5


def test_a_study_that_is_over_does_nothing_when_it_is_run_again(tmp_path: Path) -> None:
    ledger = Ledger(journal(tmp_path / "journal"), "study")
    owner(tmp_path, ledger=ledger, trials=3, budget=2.0).run()
    again = owner(tmp_path, ledger=Ledger(journal(tmp_path / "journal"), "study"), trials=3, budget=2.0)
    assert again.run()
    assert diary(again).events == []


def test_stopping_lets_nothing_new_start_and_the_next_owner_resumes(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    study = owner(
        tmp_path, ledger=Ledger(journal(path), "study"), engine=SimulatedEngine(curve, 2), trials=6, budget=4.0
    )

    class Stop(Diary):
        def trained(self, trial, epoch) -> None:  # type: ignore[no-untyped-def]
            super().trained(trial, epoch)
            if epoch.number == 2:
                study.stop()

    study.watchers = (Stop(),)
    assert not study.run()
    assert {event[1] for event in diary(study).events if event[0] == "sent"} == {0, 1}
    assert sorted(diary(study).of("stopped")) == [(0,), (1,)]
    following = owner(tmp_path, ledger=Ledger(journal(path), "study"), trials=6, budget=4.0)
    assert following.run()
    # The trials that were stopped resume first, from where they were.
    assert diary(following).of("sent")[:2] == [(0, 3), (1, 3)]
    assert min(epoch for number, epoch in diary(following).of("trained") if number == 0) == 3


def test_checkpoints_of_trials_that_have_ended_are_deleted(tmp_path: Path) -> None:
    class Leaving(SimulatedEngine):
        def submit(self, order: Order) -> None:
            order.folder.mkdir(exist_ok=True)
            for name in ("checkpoint.pt", "checkpoint.pt.before", "checkpoint-2.pt.before", "model.safetensors"):
                (order.folder / name).write_bytes(b"x" * 100)
            super().submit(order)

    study = owner(tmp_path, engine=Leaving(curve), trials=5, budget=3.0)
    study.run()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["model.safetensors"] * 5


def test_a_trial_that_stops_early_is_finished_with_the_epochs_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    study = owner(
        tmp_path,
        ledger=Ledger(journal(path), "study"),
        engine=SimulatedEngine(curve, early_stop=5),
        trials=4,
        budget=9.0,
    )
    assert study.run()
    assert states(study) == ["finished"] * 4
    for ledger in (study.ledger, Ledger(journal(path), "study")):
        assert [(len(trial.scores), trial.until) for trial in ledger.trials] == [(5, 5)] * 4
        best = finished(ledger)[0]
        assert best.scores[-1] == max(trial.scores[-1] for trial in ledger.trials)
    # Each reaches its first rung and then its early end, where none is paused.
    assert sorted(diary(study).of("reached")) == [(number, epoch) for number in range(4) for epoch in (3, 5)]
    again = owner(
        tmp_path,
        ledger=Ledger(journal(path), "study"),
        engine=SimulatedEngine(curve, early_stop=5),
        trials=4,
        budget=9.0,
    )
    assert again.run()
    assert diary(again).events == []


def test_a_study_of_trials_that_stop_early_ends_as_it_would_wherever_it_is_killed(tmp_path: Path) -> None:
    undisturbed = owner(tmp_path, engine=SimulatedEngine(curve, early_stop=5), trials=3, budget=3.0)
    undisturbed.run()
    for at in range(0, 36, 3):
        path = tmp_path / f"{at}.journal"
        for attempt in (at, 10_000):
            engine = SimulatedEngine(curve, early_stop=5)
            study = owner(tmp_path, ledger=Ledger(journal(path), "study"), engine=engine, trials=3, budget=3.0)
            study.watchers = (Killed(attempt),)
            with suppress(Interrupted):
                study.run()
        assert recorded(Ledger(journal(path), "study")) == recorded(undisturbed.ledger), at


def test_the_least_promising_checkpoints_are_given_up_when_they_take_too_much_room(tmp_path: Path) -> None:
    class Leaving(SimulatedEngine):
        def submit(self, order: Order) -> None:
            order.folder.mkdir(exist_ok=True)
            (order.folder / "checkpoint.pt").write_bytes(b"x" * 100)
            super().submit(order)

    study = owner(tmp_path, engine=Leaving(curve), trials=6, budget=20.0, checkpoint_bytes=350)
    study.run()
    pruned = [trial for trial in study.ledger.trials if trial.state == "pruned"]
    others = [trial for trial in study.ledger.trials if trial.state == "finished"]
    assert len(pruned) == 3
    assert all("room on the disk" in str(trial.why) for trial in pruned)
    assert max(trial.scores[2] for trial in pruned) < min(trial.scores[2] for trial in others)


def test_workers_that_cannot_work_end_the_study_and_lose_nothing(tmp_path: Path) -> None:
    class Full(SimulatedEngine):
        def next(self, timeout_s: float) -> Message | None:
            if self.epochs_trained == 4:
                raise Stuck("the disk is full")
            return super().next(timeout_s)

    ledger = Ledger(journal(tmp_path / "journal"), "study")
    study = owner(tmp_path, ledger=ledger, engine=Full(curve), trials=3, budget=3.0)
    with pytest.raises(Stuck, match="disk is full"):
        study.run()
    assert diary(study).of("stopped") == [(1,)]
    following = owner(tmp_path, ledger=Ledger(journal(tmp_path / "journal"), "study"), trials=3, budget=3.0)
    following.run()
    undisturbed = owner(tmp_path, trials=3, budget=3.0)
    undisturbed.run()
    assert recorded(following.ledger) == recorded(undisturbed.ledger)


def test_a_scheduler_that_repeats_values_does_not_train_them_twice(tmp_path: Path) -> None:
    class Repeats:
        def decide(self, trials: list[TrialView], left: RemainingBudget) -> Start | Resume | None:
            return Start(EPOCHS, {"train.learning_rate": 0.5, "train.momentum": 0.5}) if left.trials > 0 else None

    study = owner(tmp_path, scheduler=Repeats(), trials=4)
    study.run()
    values = [tuple(trial.values.values()) for trial in study.ledger.trials]
    assert len(set(values)) == 4
    assert values[0] == (0.1, 0.9)  # params.yaml's own
    assert values[1] == (0.5, 0.5)


def test_planned_trials_have_the_values_the_seeds_and_the_notes_of_the_plan(tmp_path: Path) -> None:
    values = {"train.learning_rate": 0.5, "train.momentum": 0.5}
    plan = [(values, {"seed": 7, "of": 3}), (values, {"seed": 8, "of": 3})]
    study = owner(tmp_path, scheduler=Halves())
    study.source = Planned(plan, SPACE.distributions)
    study.run()
    assert [trial.attributes["seed"] for trial in study.ledger.trials] == [7, 8]
    assert [trial.values for trial in study.ledger.trials] == [values] * 2


def test_seeds_follow_from_the_study_and_the_number_and_differ() -> None:
    seeds = {trial_seed(study, number) for study in range(5) for number in range(50)}
    assert len(seeds) == 250
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert trial_seed(3, 4) == trial_seed(3, 4) != trial_seed(3, 4, 1)


def test_several_workers_take_the_time_of_one_divided_among_them(tmp_path: Path) -> None:
    clocks: dict[int, float] = {}
    for workers in (1, 4):
        engine = SimulatedEngine(curve, workers)
        owner(tmp_path, engine=engine, trials=8, budget=8.0).run()
        clocks[workers] = engine.clock_s()
    assert clocks[4] < clocks[1] / 3


def test_a_trial_whose_worker_is_taken_away_goes_on_without_a_retry(tmp_path: Path) -> None:
    taken = [Fault(1, Outcome.INTERRUPTED), Fault(0, Outcome.INTERRUPTED)]
    study = owner(tmp_path, engine=Faulty({0: taken}), trials=2, retries=0)
    assert study.run()
    assert set(states(study)) <= {"finished", "pruned"}
    assert diary(study).of("interrupted") == [(0,), (0,)]
    assert not diary(study).of("failed")
    assert [event[1] for event in diary(study).of("trained") if event[0] == 0] == list(
        range(1, len(study.ledger.trials[0].scores) + 1)
    )


@dataclass
class Storing(SimulatedEngine):
    """Workers leave a checkpoint of 100 bytes in the store where they pause, and a model at the end."""

    addresses: dict[int, str] = field(default_factory=dict)

    def next(self, timeout_s: float) -> Message | None:
        message = super().next(timeout_s)
        if not isinstance(message, TargetReached):
            return message
        address = self.addresses[message.trial]
        store = Store(address)
        (store / "attempt").write(b"only")
        (store / "only" / "checkpoint.pt").write(b"1" * 100)
        if message.epoch == EPOCHS:
            (store / "only" / "model.safetensors").write(b"weights")
        return replace(message, checkpoint_bytes=100)

    def submit(self, order: Order) -> None:
        assert order.store
        self.addresses[order.trial] = order.store
        super().submit(order)


def test_an_owner_deletes_checkpoints_in_a_store_and_fetches_models_from_it(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}")
    study = owner(tmp_path, engine=Storing(curve), trials=4, store=store, checkpoint_bytes=250, budget=2.5)
    assert study.run()
    assert store.sizes() == {}
    by_room = [trial for trial in study.ledger.trials if "given up for room" in (trial.why or "")]
    assert len(by_room) == 2, "two of 100 bytes are all that fits"
    done = [trial.number for trial in study.ledger.trials if trial.state == "finished"]
    assert done
    models = sorted(path.parent.name for path in tmp_path.rglob("model.safetensors"))
    assert models == [f"{number:04}" for number in done]


def test_an_owner_on_another_machine_takes_up_what_is_in_the_store(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}")
    ledger = Ledger(journal(tmp_path / "journal"), "study")
    first = owner(tmp_path / "here", ledger=ledger, engine=Storing(curve), trials=4, store=store, budget=2.5)
    first.run()
    left = store / "0000"
    (left / "only" / "checkpoint.pt").write(b"of a worker that came too late")
    again = Ledger(journal(tmp_path / "journal"), "study")
    second = owner(tmp_path / "there", ledger=again, engine=Storing(curve), trials=4, store=store, budget=2.5)
    assert second.run()
    assert store.sizes() == {}
    here, there = (
        sorted(path.parent.name for path in (tmp_path / name).rglob("model.safetensors")) for name in ("here", "there")
    )
    assert here == there != []


def test_many_workers_train_each_trial_once_within_the_budget(tmp_path: Path) -> None:
    engine = SimulatedEngine(curve, workers=48)
    ledger = Ledger(journal(tmp_path / "journal"), "study")
    scheduler = FreezeThaw(SPACE, EPOCHS)
    study = owner(tmp_path, ledger=ledger, engine=engine, scheduler=scheduler, trials=120, budget=20.0)
    assert study.run()
    trials = study.ledger.trials
    assert len({frozenset(trial.values.items()) for trial in trials}) == len(trials) <= 120
    assert engine.epochs_trained <= 20 * EPOCHS
    assert "finished" in states(study)
    assert recorded(Ledger(journal(tmp_path / "journal"), "study")) == recorded(study.ledger)


def test_what_a_killed_owner_had_put_off_is_reported_again(tmp_path: Path) -> None:
    class Killed(Ledger):
        def save(self) -> None:
            self._later.clear()  # as if the process had been killed before each time

    study = owner(tmp_path, ledger=Killed(journal(tmp_path / "journal"), "study"), trials=3, budget=3.0)
    study.run()
    following = owner(tmp_path, ledger=Ledger(journal(tmp_path / "journal"), "study"), trials=3, budget=3.0)
    assert {trial.state for trial in following.ledger.trials} == {"running"}
    following.run()
    undisturbed = owner(tmp_path, trials=3, budget=3.0)
    undisturbed.run()
    assert recorded(following.ledger) == recorded(undisturbed.ledger)


def test_the_training_time_of_a_trial_is_kept_if_its_owner_is_killed_before_it_records_the_end(tmp_path: Path) -> None:
    class Writing(Watcher):
        def trained(self, trial: Trial, epoch: Epoch) -> None:
            append_epoch(tmp_path / f"{trial.number:04}", epoch)

        def reached(self, trial: Trial, reached: TargetReached) -> None:
            raise Interrupted

    path = tmp_path / "journal"
    study = owner(tmp_path, ledger=Ledger(journal(path), "study"), trials=2, budget=2.0, first_until=EPOCHS)
    study.watchers = (Writing(),)
    with pytest.raises(Interrupted):
        study.run()
    following = owner(tmp_path, ledger=Ledger(journal(path), "study"), trials=2, budget=2.0, first_until=EPOCHS)
    assert len(following.ledger.trials[0].scores) == EPOCHS
    following.run()
    assert following.ledger.trials[0].elapsed_s == EPOCHS * SimulatedEngine(curve).epoch_s
