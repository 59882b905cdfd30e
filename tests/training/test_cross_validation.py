import itertools
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch

from pipeline import train
from pipeline.batches.images import Images
from pipeline.config import Config
from pipeline.errors import Diverged
from pipeline.files import Project
from pipeline.records import Epoch, Meta
from pipeline.search.engines.base import EpochDone, Message, Order, Paused, TargetReached
from pipeline.search.engines.trainer import Hardware, Trainer, Unfit
from pipeline.training import cross_validation, loop
from pipeline.training.cross_validation import Training
from pipeline.training.device import Device
from pipeline.training.parts import Parts

SHORT = {"train.epochs": 3, "train.batch_size": 16, "train.folds": 3}


@pytest.fixture
def short(settings: Config) -> Config:
    return settings.with_values(SHORT)


def figures(epochs: list[Epoch]) -> list[Epoch]:
    """Without the times, which differ."""
    return [replace(epoch, images_per_second=0.0, elapsed_s=0.0) for epoch in epochs]


def weights(training: Training) -> list[dict[str, torch.Tensor]]:
    return [{name: value.clone() for name, value in part.network.state_dict().items()} for part in training.parts]


def equal(one: list[dict[str, torch.Tensor]], other: list[dict[str, torch.Tensor]]) -> bool:
    return all(
        torch.equal(value, there[name]) for here, there in zip(one, other, strict=True) for name, value in here.items()
    )


def test_the_datas_own_validation_images_validate_and_are_dealt_to_the_folds_like_all_others(
    settings: Config, short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    own = images._replace(validation=np.arange(64) >= 50)
    training = Training.of(settings, meta, own, cpu, tmp_path)
    assert training.parts[0].validation.positions.tolist() == list(range(50, 64))
    assert training.parts[0].training.positions.tolist() == list(range(50))
    assert training.counts == {"training": 50, "validation": 14}
    for part, without in zip(
        Training.of(short, meta, own, cpu, tmp_path).parts,
        Training.of(short, meta, images, cpu, tmp_path).parts,
        strict=True,
    ):
        assert part.validation.positions.tolist() == without.validation.positions.tolist()


def test_every_image_is_validated_once_by_a_network_that_was_not_trained_on_it(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    training = Training.of(short, meta, images, cpu, tmp_path)
    validated = np.concatenate([part.validation.positions for part in training.parts])
    assert sorted(validated) == list(range(64))
    for part in training.parts:
        held_out, trained_on = set(part.validation.positions.tolist()), set(part.training.positions.tolist())
        assert not held_out & trained_on
        assert len(held_out | trained_on) == 64
    logits, labels = training.infer()
    assert logits.shape == (64, 2)
    assert labels.bincount().tolist() == [32, 32]


def test_an_epoch_is_reported_as_the_means_over_what_each_network_reports_alone(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    training_ = Training.of(short, meta, images, cpu, tmp_path)
    reported = list(training_.fit())
    alone = []
    for part, seed in zip(
        Training.of(short, meta, images, cpu, tmp_path / "other").parts,
        cross_validation.seeds(short.train),
        strict=True,
    ):
        alone.append(list(loop.fit(*part, short.train.model_copy(update={"seed": seed}), cpu)))
    assert [epoch.number for epoch in reported] == [1, 2, 3]
    for epoch, *of_folds in zip(reported, *alone, strict=True):
        for key in ("training_loss", "training_accuracy", "validation_loss", "validation_accuracy", "learning_rate"):
            assert getattr(epoch, key) == pytest.approx(statistics.fmean(getattr(one, key) for one in of_folds))
        assert training_.accuracies(epoch.number) == [one.validation_accuracy for one in of_folds]
    assert len({one[-1].training_loss for one in alone}) == 3
    assert reported == training_.done


def test_the_speed_of_several_networks_is_all_images_by_all_time() -> None:
    def epoch(speed: float, elapsed_s: float) -> Epoch:
        return Epoch(4, 0.1, 1.0, 0.5, 1.0, 0.5, speed, elapsed_s)

    reported = cross_validation.mean([epoch(100.0, 9.0), epoch(50.0, 5.0)], [200, 100])
    assert (reported.images_per_second, reported.elapsed_s, reported.number) == (75.0, 14.0, 4)


def test_without_folds_one_network_is_trained(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    single = short.with_values({"train.folds": None})
    whole = Training.of(single, meta, images, cpu, tmp_path)
    parts = Parts.build(single, meta, images, cpu)
    assert figures(list(whole.fit())) == figures(list(loop.fit(*parts, single.train, cpu)))
    assert equal(weights(whole), [parts.network.state_dict()])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "checkpoint.pt.before"]
    assert whole.counts == {"training": 58, "validation": 6}


@pytest.mark.parametrize("values", [{}, {"train.ema": 0.9, "model.dropout": 0.3}], ids=["plain", "ema and dropout"])
def test_folds_that_were_killed_in_the_middle_of_an_epoch_end_with_the_same_numbers(
    short: Config,
    meta: Meta,
    images: Images,
    cpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, float],
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", 0.0)
    settings = short.with_values(values)
    undisturbed = Training.of(settings, meta, images, cpu, tmp_path / "undisturbed")
    whole = list(undisturbed.fit())

    folder = tmp_path / "killed"
    first = list(itertools.islice(Training.of(settings, meta, images, cpu, folder).fit(), 1))
    # The second epoch has ended in the first two folds but not in the third.
    killed = Training.of(settings, meta, images, cpu, folder)
    epochs = killed.fit()
    third = folder / "checkpoint-3.pt"
    kept = third.read_bytes()
    next(epochs)
    third.write_bytes(kept)
    second = Training.of(settings, meta, images, cpu, folder)
    assert [len(history) for history in second.histories] == [2, 2, 1]
    assert figures(second.done) == figures(whole)[:1]
    then = list(second.fit())
    assert figures(first + then) == figures(whole)
    assert equal(weights(second), weights(undisturbed))
    # A start after the end has the weights and trains nothing.
    finished = Training.of(settings, meta, images, cpu, folder)
    assert equal(weights(finished), weights(undisturbed))
    assert list(finished.fit()) == []


def test_a_fold_whose_checkpoint_is_lost_catches_up(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    whole = list(Training.of(short, meta, images, cpu, tmp_path).fit())
    for path in tmp_path.glob("checkpoint-2.pt*"):
        path.unlink()
    again = list(Training.of(short, meta, images, cpu, tmp_path).fit())
    assert figures(again) == figures(whole)


def test_folds_stop_early_together_by_their_mean(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    # At so small a rate the accuracy stands still.
    settings = short.with_values({"train.learning_rate": 1e-9, "train.early_stopping": 1, "train.epochs": 9})
    stopped = Training.of(settings, meta, images, cpu, tmp_path)
    reported = list(stopped.fit())
    assert 1 < len(reported) < 9
    assert loop.over(reported, settings.train)
    assert not loop.over(reported[:-1], settings.train)
    assert {len(history) for history in stopped.histories} == {len(reported)}


def test_the_fold_that_diverges_is_named(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    settings = short.with_values(
        {"train.learning_rate": 100.0, "train.schedule": "constant", "train.weight_decay": 1.0, "train.epochs": 50}
    )
    with pytest.raises(Diverged, match=r"^Fold [123] of 3: The training diverged"):
        list(Training.of(settings, meta, images, cpu, tmp_path).fit())


def test_the_seeds_of_folds_follow_from_the_seed_and_differ(short: Config) -> None:
    seeds = cross_validation.seeds(short.train)
    assert len(set(seeds)) == 3
    assert seeds == cross_validation.seeds(short.train)
    assert not set(seeds) & set(cross_validation.seeds(short.with_values({"train.seed": 1}).train))
    assert cross_validation.seeds(short.with_values({"train.folds": None}).train) == [short.train.seed]
    # With more folds the first networks have the same seeds.
    assert cross_validation.seeds(short.with_values({"train.folds": 5}).train)[:3] == seeds


@pytest.fixture
def trainer(meta: Meta, images: Images) -> Trainer:
    """The trainer of a worker, in this process."""
    return Trainer(meta, images, Hardware("cpu", 1, "fp32"))


def epochs(messages: list[Message | Unfit]) -> list[Epoch]:
    return [message.epoch for message in messages if isinstance(message, EpochDone)]


@pytest.mark.usefixtures("one_thread")
def test_a_worker_trains_all_folds_of_a_trial_and_counts_the_images_of_all(
    short: Config, trainer: Trainer, tmp_path: Path
) -> None:
    at_once = list(trainer.answer(Order(0, {}, short, 3, 0, tmp_path / "0"), Event()))
    assert [epoch.number for epoch in epochs(at_once)] == [1, 2, 3]
    reached = at_once[-1]
    assert isinstance(reached, TargetReached)
    assert (reached.epoch, reached.over) == (3, True)
    assert [sum(row) for row in reached.confusion] == [32, 32]

    folder = tmp_path / "1"
    first = list(trainer.answer(Order(1, {}, short, 1, 0, folder), Event()))
    assert isinstance(first[-1], TargetReached)
    assert (first[-1].epoch, first[-1].over) == (1, False)
    pause = Event()
    pause.set()
    second = list(trainer.answer(Order(1, {}, short, 3, 1, folder), pause))
    assert isinstance(second[-1], Paused)
    third = list(trainer.answer(Order(1, {}, short, 3, 2, folder), Event()))
    assert figures(epochs(first) + epochs(second) + epochs(third)) == figures(epochs(at_once))
    assert isinstance(third[-1], TargetReached)
    assert third[-1].confusion == reached.confusion
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "0" / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("known", [0, 1])
def test_a_trial_that_stopped_early_stays_over_when_it_is_submitted_again(
    short: Config, trainer: Trainer, tmp_path: Path, known: int
) -> None:
    values = {"train.learning_rate": 1e-9, "train.early_stopping": 1, "train.epochs": 9, "train.folds": None}
    order = Order(0, {}, short.with_values(values), 8, known, tmp_path / "0")
    messages = list(trainer.answer(order, Event()))
    reached = messages[-1]
    assert isinstance(reached, TargetReached)
    assert reached.over
    assert reached.epoch == epochs(messages)[-1].number < 8
    assert (tmp_path / "0" / "model.safetensors").exists()
    again = list(trainer.answer(order, Event()))
    assert epochs(again) == epochs(messages)
    assert again[-1] == replace(reached, peak_memory_bytes=again[-1].peak_memory_bytes)  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_stage_with_folds_writes_the_means_and_what_each_fold_says(
    project: Project, change: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    change("epochs: 6", "epochs: 3")
    change("folds: null", "folds: 3")
    change("threads: null", "threads: 1")
    train.train(project)
    record = json.loads(project.run.read_text())
    found = record["folds"]
    assert found["count"] == len(found["validation_accuracy"]) == 3
    assert found["mean"] == pytest.approx(statistics.fmean(found["validation_accuracy"]))
    assert found["sd"] == pytest.approx(statistics.stdev(found["validation_accuracy"]))
    rows = project.history.read_text().splitlines()
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    assert len(rows) == 4
    assert float(last["validation_accuracy"]) == pytest.approx(found["mean"])
    assert found["mean"] > 0.5
    assert record["data"]["training"] + record["data"]["validation"] == 1438
    out = capsys.readouterr().out
    assert f"3 folds: validation accuracy {found['mean']:.2%} ± {found['sd']:.2%} (sd)" in out
    assert not any(project.checkpoints.iterdir())
