import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.batches.data import Batch, Pictures, TrainingBatches
from pipeline.config import Config, Train
from pipeline.meta import Meta
from pipeline.training import loop
from pipeline.training.device import Device
from pipeline.training.focus import Focus, is_hard, steps_of
from pipeline.training.loop import Parts
from pipeline.training.schedules import learning_rate_factor

CPU = torch.device("cpu")


@pytest.fixture
def hard(settings: Config) -> Config:
    """48 training pictures, three batches; epochs 3 to 6 of 8 take two of them."""
    return settings.with_values(
        {
            "train.epochs": 8,
            "train.batch_size": 16,
            "train.validation_share": 0.25,
            "train.hard_share": 0.6,
            "train.hard_from": 0.25,
            "train.hard_until": 0.75,
        }
    )


class Seen:
    """Training batches that keep what went through them: the places of each epoch, and the rate of its last step."""

    def __init__(self, batches: TrainingBatches) -> None:
        self._batches = batches
        self.steps, self.pictures = batches.steps, batches.pictures
        self.places: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int, chosen: torch.Tensor | None = None) -> Iterator[Batch]:
        self.places[number] = []
        for batch in self._batches.epoch(number, chosen):
            assert batch.places is not None
            self.places[number] += batch.places.tolist()
            yield batch


def settings_of(hard: Config, **values: float) -> Train:
    return hard.with_values({f"train.{key}": value for key, value in values.items()}).train


def test_the_epochs_between_the_two_shares_are_hard_and_never_the_first(hard: Config) -> None:
    def numbers(**values: float) -> list[int]:
        return [number for number in range(1, 9) if is_hard(settings_of(hard, **values), number)]

    assert numbers() == [3, 4, 5, 6]
    assert numbers(hard_from=0.0, hard_until=1.0) == [2, 3, 4, 5, 6, 7, 8]
    assert numbers(hard_share=1.0) == []


def test_a_hard_epoch_has_its_share_of_the_batches_and_one_at_least(hard: Config) -> None:
    assert [steps_of(hard.train, number, 10) for number in (2, 3, 6, 7)] == [10, 6, 6, 10]
    assert steps_of(settings_of(hard, hard_share=0.01), 3, 10) == 1


def test_the_hardest_are_those_of_the_highest_last_loss() -> None:
    focus = Focus(6, CPU)
    focus.note(torch.tensor([4, 0, 1, 2]), torch.tensor([0.5, 0.1, 0.9, 0.3]))
    assert focus.hardest(3).tolist() == [1, 3, 5], "the two that were never seen, and the highest"
    focus.note(torch.tensor([3, 5, 1]), torch.tensor([0.3, 0.2, 0.05]))
    assert focus.hardest(1).tolist() == [4]
    assert focus.hardest(2).tolist() == [2, 4], "of equal ones the first"
    assert Focus(6, CPU, focus.losses).hardest(2).tolist() == [2, 4]


def test_a_training_takes_the_pictures_whose_loss_was_highest(
    hard: Config, meta: Meta, pictures: Pictures, cpu: Device
) -> None:
    network, batches, validation = Parts.of(hard, meta, pictures, cpu)
    seen = Seen(batches)
    losses: dict[int, float] = {}
    noted = loop.Focus.note

    def note(self: Focus, places: torch.Tensor, values: torch.Tensor) -> None:
        losses.update(zip(places.tolist(), values.tolist(), strict=True))
        noted(self, places, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Focus, "note", note)
        before: dict[int, dict[int, float]] = {}
        for epoch in loop.fit(network, seen, validation, hard.train, cpu):
            before[epoch.number + 1] = dict(losses)
    # 20 steps in all, not 24.
    last = hard.train.learning_rate * learning_rate_factor(hard.train, 19, 20)
    assert [len(seen.places[number]) for number in range(1, 9)] == [48, 48, 32, 32, 32, 32, 48, 48]
    for number in range(3, 7):
        taken = set(seen.places[number])
        assert len(taken) == 32
        left_out = set(range(48)) - taken
        assert max(before[number][place] for place in left_out) <= min(before[number][place] for place in taken)
    assert len(set(map(frozenset, (seen.places[number] for number in range(3, 7))))) > 1, "not the same for good"
    assert epoch.learning_rate == pytest.approx(last), "the schedule ends with the training"


def test_speed_is_that_of_the_pictures_taken(hard: Config, meta: Meta, pictures: Pictures, cpu: Device) -> None:
    parts = Parts.of(hard, meta, pictures, cpu)
    now = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        # Each look at the clock is a second after the one before.
        patch.setattr(loop.time, "perf_counter", lambda: float(next(now)))
        found = [epoch.images_per_second for epoch in loop.fit(*parts, hard.train, cpu)]
    assert found == [48, 48, 32, 32, 32, 32, 48, 48]


@pytest.mark.parametrize("values", [{}, {"augment.mixup": 1.0}, {"train.ema": 0.9, "augment.flip": "alternating"}])
def test_a_training_that_goes_on_remembers_the_losses(
    hard: Config, meta: Meta, pictures: Pictures, cpu: Device, tmp_path: Path, values: dict[str, str | float]
) -> None:
    settings = hard.with_values(values)
    whole = Parts.of(settings, meta, pictures, cpu)
    wanted = [epoch.training_loss for epoch in loop.fit(*whole, settings.train, cpu)]
    path = tmp_path / "checkpoint.pt"
    found: list[float] = []
    while len(found) < 8:
        parts = Parts.of(settings, meta, pictures, cpu)
        fit = loop.fit(*parts, settings.train, cpu, path=path, checkpoint=loop.Checkpoint.load(path))
        found += [epoch.training_loss for epoch in itertools.islice(fit, 3)]
    assert found == wanted
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parts.network.state_dict()[name])


def test_it_learns(hard: Config, meta: Meta, pictures: Pictures, cpu: Device) -> None:
    longer = hard.with_values({"train.epochs": 16, "train.learning_rate": 0.05})
    epochs = list(loop.fit(*Parts.of(longer, meta, pictures, cpu), longer.train, cpu))
    assert epochs[-1].training_accuracy > 0.9
    assert epochs[-1].validation_accuracy > 0.8
