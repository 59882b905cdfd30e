import itertools
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import networks
from pipeline.batches import splits
from pipeline.batches.batches import Batch, Mix
from pipeline.batches.images import Images
from pipeline.config import Config
from pipeline.errors import ConfigError, Diverged, OutOfMemory
from pipeline.machine import Machine
from pipeline.records import Epoch, Meta
from pipeline.training import ema, loop
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.device import Device
from pipeline.training.ema import Average
from pipeline.training.parts import Parts
from pipeline.training.schedules import learning_rate_factor

SHORT = {"train.epochs": 4, "train.batch_size": 16, "train.validation_share": 0.25, "augment.policy": "crop_flip"}


@pytest.fixture
def short(settings: Config) -> Config:
    return settings.with_values(SHORT)


def train(
    settings: Config, meta: Meta, images: Images, device: Device, path: Path | None = None, stop_after: int = 99
) -> tuple[list[Epoch], nn.Module]:
    """Trains from what `path` holds, at most `stop_after` epochs."""
    network, training_batches, validation = Parts.build(settings, meta, images, device)
    checkpoint = Checkpoint.load(path) if path else None
    epochs = loop.fit(network, training_batches, validation, settings.train, device, path=path, checkpoint=checkpoint)
    return list(itertools.islice(epochs, stop_after)), network


def figures(epochs: list[Epoch]) -> list[Epoch]:
    """Without the times, which differ."""
    return [replace(epoch, images_per_second=0.0, elapsed_s=0.0) for epoch in epochs]


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        *(("sgd", schedule) for schedule in ("one_cycle", "cosine", "wsd", "step", "constant")),
        *((optimizer, "one_cycle") for optimizer in ("adam", "adamw", "muon")),
    ],
)
def test_each_optimizer_and_schedule_learns(
    short: Config, meta: Meta, images: Images, cpu: Device, optimizer: str, schedule: str
) -> None:
    rate = 0.005 if optimizer.startswith("adam") else 0.05
    values = {"train.optimizer": optimizer, "train.schedule": schedule, "train.learning_rate": rate, "train.epochs": 12}
    epochs, _ = train(short.with_values(values), meta, images, cpu)
    assert [epoch.number for epoch in epochs] == list(range(1, 13))
    assert epochs[-1].training_accuracy > 0.9
    assert epochs[-1].training_loss < epochs[0].training_loss / 2
    assert epochs[-1].validation_accuracy > 0.8


def test_the_same_seed_gives_the_same_numbers_to_the_bit_and_another_seed_others(
    short: Config, meta: Meta, images: Images, cpu: Device
) -> None:
    first, network = train(short, meta, images, cpu)
    second, same = train(short, meta, images, cpu)
    other, different = train(short.with_values({"train.seed": 1}), meta, images, cpu)
    assert figures(first) == figures(second)
    assert equal(network, same)
    assert figures(first) != figures(other)
    assert not equal(network, different)


@pytest.mark.parametrize(
    "values",
    [
        {"train.optimizer": "sgd", "train.clip_norm": 0.5},
        {"train.optimizer": "adamw", "train.head_learning_rate": 0.01},
        {"train.optimizer": "muon", "train.schedule": "wsd"},
        {"train.ema": 0.9, "train.optimizer": "muon"},
        {"augment.mixup": 1.0, "augment.cutmix": 1.0, "model.dropout": 0.5},
    ],
    ids=lambda values: " ".join(map(str, values.values())),
)
def test_a_training_that_resumes_from_a_checkpoint_ends_with_the_same_numbers(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path, values: dict[str, str | float]
) -> None:
    settings = short.with_values(values)
    whole, network = train(settings, meta, images, cpu)
    path = tmp_path / "checkpoint.pt"
    parts = []
    for epochs_a_start in (1, 2, 1):
        epochs, resumed = train(settings, meta, images, cpu, path, stop_after=epochs_a_start)
        parts += epochs
    assert figures(parts) == figures(whole)
    assert equal(network, resumed)
    assert parts[-1].elapsed_s > parts[0].elapsed_s


def test_a_finished_training_has_nothing_left_to_do(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    _, network = train(short, meta, images, cpu, tmp_path / "checkpoint.pt")
    epochs, again = train(short, meta, images, cpu, tmp_path / "checkpoint.pt")
    assert epochs == []
    assert equal(network, again)


@pytest.mark.parametrize(("interval_s", "saved"), [(0.0, [1, 2, 3, 4]), (math.inf, [1, 1, 1, 4])])
def test_the_checkpoint_of_an_epoch_is_saved_before_the_epoch_is_reported_unless_the_last_one_is_young(
    short: Config,
    meta: Meta,
    images: Images,
    cpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interval_s: float,
    saved: list[int],
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", interval_s)
    path = tmp_path / "checkpoint.pt"
    parts = Parts.build(short, meta, images, cpu)
    found = []
    for _ in loop.fit(*parts, short.train, cpu, path=path):
        checkpoint = Checkpoint.load(path)
        assert checkpoint is not None
        found.append(checkpoint.epochs[-1].number)
    assert found == saved
    assert sorted(tmp_path.iterdir()) == [path, path.with_name("checkpoint.pt.before")]


def test_epochs_after_the_last_checkpoint_are_trained_again_with_the_same_numbers_and_a_caller_that_closes_loses_none(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", math.inf)
    settings = short.with_values({"train.ema": 0.9})
    whole, network = train(settings, meta, images, cpu)
    path, copied = tmp_path / "checkpoint.pt", tmp_path / "killed" / "checkpoint.pt"
    copied.parent.mkdir()
    fit = loop.fit(*Parts.build(settings, meta, images, cpu), settings.train, cpu, path=path)
    for _ in range(3):
        next(fit)
    shutil.copy(path, copied)  # what a kill leaves
    fit.close()
    for left, first in ((copied, 2), (path, 4)):
        epochs, resumed = train(settings, meta, images, cpu, left)
        assert figures(epochs) == figures(whole)[first - 1 :]
        assert equal(network, resumed)


def test_a_checkpoint_cut_in_half_gives_way_to_the_one_before(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL_S", 0.0)
    path = tmp_path / "checkpoint.pt"
    undisturbed, network = train(short, meta, images, cpu)
    train(short, meta, images, cpu, path, stop_after=3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    checkpoint = Checkpoint.load(path)
    assert checkpoint is not None
    assert len(checkpoint.epochs) == 2
    epochs, again = train(short, meta, images, cpu, path)
    assert figures(epochs) == figures(undisturbed)[2:]
    assert equal(network, again)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_or_foreign_checkpoint_counts_as_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "checkpoint.pt"
    if content is None:
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    assert Checkpoint.load(path) is None


def test_a_loss_that_is_not_finite_stops_with_the_epoch_the_rate_and_advice(
    short: Config, meta: Meta, images: Images, cpu: Device
) -> None:
    # Each step multiplies the weights by -99: they overflow, whatever the images.
    values = {"train.learning_rate": 100.0, "train.schedule": "constant", "train.weight_decay": 1.0}
    values |= {"train.epochs": 50, "train.warmup": 0.0}
    with pytest.raises(Diverged, match=r"in epoch \d+, learning rate 100\. Lower train\.learning_rate") as caught:
        train(short.with_values(values), meta, images, cpu)
    assert "train.warmup" in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        MemoryError(),
    ],
)
def test_too_little_memory_is_reported_with_advice(
    short: Config, meta: Meta, images: Images, cpu: Device, error: Exception
) -> None:
    class Hungry(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise error

    parts = Parts.build(short, meta, images, cpu)
    with pytest.raises(OutOfMemory, match=r"batches of 16 \(train\.batch_size\): halve it"):
        list(loop.fit(Hungry(), parts.training, parts.validation, short.train, cpu))


def test_an_error_that_has_to_do_with_something_else_keeps_its_name(
    short: Config, meta: Meta, images: Images, cpu: Device
) -> None:
    parts = Parts.build(short, meta, images, cpu)
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(loop.fit(wrong, parts.training, parts.validation, short.train, cpu))


def test_the_reported_learning_rate_is_that_of_the_last_step_of_the_epoch(
    short: Config, meta: Meta, images: Images, cpu: Device
) -> None:
    settings = short.with_values({"train.schedule": "cosine", "train.head_learning_rate": 0.7})
    epochs, _ = train(settings, meta, images, cpu)
    steps = 3  # 48 training images in batches of 16
    for epoch in epochs:
        factor = learning_rate_factor(settings.train, epoch.number * steps - 1, 4 * steps)
        assert epoch.learning_rate == pytest.approx(0.1 * factor)


def test_label_smoothing_raises_the_reported_training_loss(
    short: Config, meta: Meta, images: Images, cpu: Device
) -> None:
    settings = short.with_values({"train.epochs": 12, "train.label_smoothing": 0.4})
    epochs, _ = train(settings, meta, images, cpu)
    # 0.4 of the target spread over two classes: the cross entropy can't go under the entropy of (0.8, 0.2).
    assert epochs[-1].training_loss > 0.5004


def test_the_loss_of_mixed_images_is_that_of_both_labels_by_their_shares_and_all_of_it_is_smoothed() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.3]])
    own, other, share = torch.tensor([0, 1]), torch.tensor([2, 1]), torch.tensor([0.7, 0.2])
    batch = Batch(torch.zeros(2, 1, 1, 1), own, Mix(other, share))
    # The target of an image as a distribution, smoothed by 0.3 over the three classes.
    targets = torch.tensor([[0.7, 0.0, 0.3], [0.0, 1.0, 0.0]]) * 0.7 + 0.3 / 3
    expected = -(targets * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(loop.batch_loss(logits, batch, 0.3), expected)


def test_the_training_accuracy_counts_the_label_that_has_the_greater_share(
    short: Config, meta: Meta, images: Images, cpu: Device
) -> None:
    class Mixed:
        """16 images of class 0; class 1 is mixed into all of them, and is the greater part of 12."""

        steps = 1

        def __len__(self) -> int:
            return 16

        def epoch(self, number: int) -> Iterator[Batch]:
            share = torch.tensor([0.8] * 4 + [0.3] * 12)
            labels = torch.zeros(16, dtype=torch.int64)
            yield Batch(torch.zeros(16, 3, 8, 8, dtype=torch.uint8), labels, Mix(labels + 1, share))

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([0.0, 1.0]))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(len(images), 2)

    validation = Parts.build(short, meta, images, cpu).validation
    (epoch, *_) = loop.fit(One(), Mixed(), validation, short.train, cpu)
    assert epoch.training_accuracy == 12 / 16


def test_gradients_are_cut_down_to_the_norm_together(short: Config, meta: Meta, images: Images, cpu: Device) -> None:
    def first_move(settings: Config) -> float:
        """Length of the first step of SGD without momentum and decay, by its learning rate."""
        plain = {"train.momentum": 0.0, "train.weight_decay": 0.0, "train.epochs": 1, "train.batch_size": 48}
        plain |= {"train.schedule": "constant", "train.warmup": 0.0}
        settings = settings.with_values(plain)
        before = Parts.build(settings, meta, images, cpu).network
        _, after = train(settings, meta, images, cpu)
        moves = [(one - other).flatten() for one, other in zip(before.parameters(), after.parameters(), strict=True)]
        return torch.cat(moves).norm().item() / settings.train.learning_rate

    whole = first_move(short)
    assert first_move(short.with_values({"train.clip_norm": whole / 4})) == pytest.approx(whole / 4, rel=1e-3)
    assert first_move(short.with_values({"train.clip_norm": whole * 4})) == pytest.approx(whole, rel=1e-3)


def test_the_average_of_the_weights_is_the_one_that_a_hand_computes() -> None:
    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0]))
            self.frozen = nn.Parameter(torch.tensor([5.0]), requires_grad=False)
            self.register_buffer("statistics", torch.tensor([10.0]))
            self.register_buffer("count", torch.tensor(0))

    kept, moving = Tiny(), Tiny()
    average = Average(kept, moving)
    by_hand = {"weight": 1.0, "statistics": 10.0}
    for step, (weight, statistics) in enumerate([(2.0, 20.0), (4.0, 0.0), (8.0, 10.0), (0.0, 4.0)]):
        with torch.no_grad():
            moving.weight.fill_(weight)
            moving.statistics.fill_(statistics)  # type: ignore[operator]
            moving.count.fill_(step + 1)  # type: ignore[operator]
        average.update(ema.share(0.25, step))
        # The decay is 1/10, 2/11, then the requested 0.25: 3/12 is equal to it, and 4/13 is more.
        decay = [1 / 10, 2 / 11, 0.25, 0.25][step]
        by_hand["weight"] = decay * by_hand["weight"] + (1 - decay) * weight
        by_hand["statistics"] = decay * by_hand["statistics"] + (1 - decay) * statistics
        assert kept.weight.item() == pytest.approx(by_hand["weight"])
        assert kept.statistics.item() == pytest.approx(by_hand["statistics"])  # type: ignore[operator]
        assert kept.count.item() == step + 1  # type: ignore[operator]
        assert (kept.frozen.item(), moving.weight.item()) == (5.0, weight)


def test_the_averaged_network_is_validated_and_kept_and_the_optimiser_moves_its_own(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    plain, raw = train(short, meta, images, cpu)
    settings = short.with_values({"train.ema": 0.95})
    path = tmp_path / "checkpoint.pt"
    epochs, kept = train(settings, meta, images, cpu, path)
    # Averaging does not change the training.
    assert [epoch.training_loss for epoch in epochs] == [epoch.training_loss for epoch in plain]
    assert [epoch.validation_loss for epoch in epochs] != [epoch.validation_loss for epoch in plain]
    assert not equal(kept, raw)
    validation = Parts.build(settings, meta, images, cpu).validation
    logits, labels = loop.infer(kept, validation, cpu)
    assert nn.functional.cross_entropy(logits, labels).item() == epochs[-1].validation_loss
    checkpoint = Checkpoint.load(path)
    assert checkpoint is not None
    assert checkpoint.moving is not None
    assert all(torch.equal(value, raw.state_dict()[name]) for name, value in checkpoint.moving.items())
    assert all(torch.equal(value, kept.state_dict()[name]) for name, value in checkpoint.model.items())


def test_the_averaged_network_is_there_whenever_the_caller_stops(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    settings = short.with_values({"train.ema": 0.95})
    path = tmp_path / "checkpoint.pt"
    parts = Parts.build(settings, meta, images, cpu)
    for epoch in loop.fit(*parts, settings.train, cpu, path=path):
        logits, labels = loop.infer(parts.network, parts.validation, cpu)
        assert nn.functional.cross_entropy(logits, labels).item() == epoch.validation_loss


def history(*accuracies: float) -> list[Epoch]:
    return [
        Epoch(number, 0.1, 1.0, 0.5, 1.0, accuracy, 1.0, 1.0 * number) for number, accuracy in enumerate(accuracies, 1)
    ]


def test_a_training_is_over_after_so_many_epochs_without_a_better_accuracy(short: Config) -> None:
    train = short.with_values({"train.epochs": 9, "train.early_stopping": 2}).train
    assert not loop.over([], train)
    assert not loop.over(history(0.5), train)
    assert not loop.over(history(0.5, 0.4), train)
    assert loop.over(history(0.5, 0.4, 0.3), train)
    assert loop.over(history(0.5, 0.5, 0.5), train), "as good is not better"
    assert not loop.over(history(0.5, 0.4, 0.6, 0.1), train)
    assert loop.over(history(0.5, 0.4, 0.6, 0.1, 0.59), train)


def test_without_early_stopping_a_training_is_over_only_at_its_last_epoch(short: Config) -> None:
    assert not loop.over(history(0.5, 0.4, 0.3), short.train)
    assert loop.over(history(0.5, 0.4, 0.3, 0.2), short.train)


def test_early_stopping_ends_a_training_where_a_resumed_one_ends_too(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    # At so small a rate the accuracy stands still from the first epoch on.
    values = {"train.early_stopping": 2, "train.learning_rate": 1e-9, "train.epochs": 9}
    settings = short.with_values(values)
    whole, network = train(settings, meta, images, cpu)
    assert len(whole) < 9
    path = tmp_path / "checkpoint.pt"
    first, _ = train(settings, meta, images, cpu, path, stop_after=2)
    then, resumed = train(settings, meta, images, cpu, path)
    assert figures(first + then) == figures(whole)
    assert equal(network, resumed)
    assert train(settings, meta, images, cpu, path)[0] == []


def test_dropout_leaves_the_random_numbers_of_the_process_alone(
    short: Config, meta: Meta, images: Images, cpu: Device
) -> None:
    settings = short.with_values({"model.dropout": 0.5, "train.epochs": 1})
    torch.manual_seed(7)
    first, network = train(settings, meta, images, cpu)
    drawn = torch.rand(1)
    second, same = train(settings, meta, images, cpu)
    assert figures(first) == figures(second)
    assert equal(network, same)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn)
    assert figures(first) != figures(train(settings.with_values({"model.dropout": 0.0}), meta, images, cpu)[0])


def test_inference_covers_every_image_in_order_and_leaves_the_network_as_it_was(
    short: Config, meta: Meta, images: Images, cpu: Device
) -> None:
    network, _, validation = Parts.build(short, meta, images, cpu)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    logits, labels = loop.infer(network, validation, cpu)
    assert logits.shape == (16, 2)
    assert np.array_equal(labels.numpy(), np.concatenate([batch.labels for batch in validation.epoch()]))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


@pytest.mark.skipif(not Machine.probe().cpu_bf16, reason="this processor has no native bf16")
def test_bf16_on_a_processor_that_has_it_learns_too_and_repeats_bit_for_bit(
    short: Config, meta: Meta, images: Images
) -> None:
    device = Device.choose("cpu", "bf16", 1, Machine.probe())
    settings = short.with_values({"train.epochs": 8})
    first, network = train(settings, meta, images, device)
    second, same = train(settings, meta, images, device)
    assert first[-1].training_accuracy > 0.85
    assert figures(first) == figures(second)
    assert equal(network, same)


@pytest.mark.gpu
def test_a_gpu_learns_and_resumes_from_a_checkpoint_of_the_cpu(
    short: Config, meta: Meta, images: Images, cpu: Device, tmp_path: Path
) -> None:
    train(short, meta, images, cpu, tmp_path / "checkpoint.pt", stop_after=2)
    gpu = Device.choose("cuda", "auto", 1, Machine.probe())
    gpu.prepare()
    epochs, network = train(short, meta, images, gpu, tmp_path / "checkpoint.pt")
    assert [epoch.number for epoch in epochs] == [3, 4]
    assert next(network.parameters()).is_cuda


def test_a_network_is_prepared_by_images_of_its_training_part(settings: Config, cpu: Device, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8), np.arange(40) % 2
    meta = Meta("noise", ("a", "b"), (3, 16, 16), (0.5,) * 3, (0.25,) * 3, {}, "", "")
    speed = settings.with_values({"model.family": "speed", "model.width": 4})
    kernels = []
    for other in (False, True):
        held_out = images.copy()
        if other:
            _, validation = splits.split(labels, speed.train.validation_share, speed.train.validation_seed)
            held_out[validation] = 255
        parts = Parts.build(speed, meta, Images(held_out, labels), cpu)
        kernels.append(parts.network.network.patches.weight)
    assert torch.equal(*kernels)
    untouched = networks.build(speed.model, meta, speed.train.seed).network.patches.weight
    assert not torch.equal(kernels[0], untouched)


def test_the_first_epochs_have_small_images_and_the_others_whole_ones(
    short: Config, meta: Meta, images: Images, cpu: Device
) -> None:
    settings = short.with_values({"augment.small_side": 0.5, "augment.small_until": 0.5, "augment.mixup": 1.0})
    batches = Parts.build(settings, meta, images, cpu).training
    sides = [next(batches.epoch(number)).images.shape[2:] for number in range(1, 5)]
    assert sides == [(4, 4), (4, 4), (8, 8), (8, 8)]
    epochs, _ = train(settings, meta, images, cpu)
    assert len(epochs) == 4


def test_images_that_get_too_small_for_the_network_are_reported(
    short: Config, meta: Meta, images: Images, cpu: Device
) -> None:
    settings = short.with_values({"augment.small_side": 0.375})
    with pytest.raises(
        ConfigError, match=r"small_side is 0\.375, .* 3 pixels a side, but model\.family resnet needs 4"
    ):
        Parts.build(settings, meta, images, cpu)
