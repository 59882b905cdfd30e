import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import training
from pipeline.config import Config
from pipeline.data import Pictures
from pipeline.device import Device
from pipeline.epoch import Epoch
from pipeline.errors import Diverged, OutOfMemory
from pipeline.machine import Machine
from pipeline.meta import Meta
from pipeline.training import Checkpoint, Parts

SHORT = {"train.epochs": 4, "train.batch_size": 16, "train.validation_share": 0.25, "augment.policy": "crop_flip"}


@pytest.fixture
def short(settings: Config) -> Config:
    return settings.with_values(SHORT)


def train(
    settings: Config, meta: Meta, pictures: Pictures, device: Device, path: Path | None = None, stop_after: int = 99
) -> tuple[list[Epoch], nn.Module]:
    """Trains from what `path` holds, at most `stop_after` epochs."""
    network, training_batches, validation = Parts.of(settings, meta, pictures, device)
    checkpoint = Checkpoint.load(path) if path else None
    epochs = training.fit(
        network, training_batches, validation, settings.train, device, path=path, checkpoint=checkpoint
    )
    return list(itertools.islice(epochs, stop_after)), network


def figures(epochs: list[Epoch]) -> list[Epoch]:
    """Without the times, which differ."""
    return [replace(epoch, images_per_second=0.0, elapsed_s=0.0) for epoch in epochs]


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_each_optimizer_and_schedule_learns(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device, optimizer: str, schedule: str
) -> None:
    rate = 0.05 if optimizer == "sgd" else 0.005
    values = {"train.optimizer": optimizer, "train.schedule": schedule, "train.learning_rate": rate, "train.epochs": 12}
    epochs, _ = train(short.with_values(values), meta, pictures, cpu)
    assert [epoch.number for epoch in epochs] == list(range(1, 13))
    assert epochs[-1].training_accuracy > 0.9
    assert epochs[-1].training_loss < epochs[0].training_loss / 2
    assert epochs[-1].validation_accuracy > 0.8


def test_the_same_seed_gives_the_same_numbers_to_the_bit_and_another_seed_others(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device
) -> None:
    first, network = train(short, meta, pictures, cpu)
    second, same = train(short, meta, pictures, cpu)
    other, different = train(short.with_values({"train.seed": 1}), meta, pictures, cpu)
    assert figures(first) == figures(second)
    assert equal(network, same)
    assert figures(first) != figures(other)
    assert not equal(network, different)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_training_that_goes_on_from_a_checkpoint_ends_with_the_same_numbers(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device, tmp_path: Path, optimizer: str
) -> None:
    settings = short.with_values({"train.optimizer": optimizer})
    whole, network = train(settings, meta, pictures, cpu)
    path = tmp_path / "checkpoint.pt"
    parts = []
    for epochs_a_start in (1, 2, 1):
        epochs, resumed = train(settings, meta, pictures, cpu, path, stop_after=epochs_a_start)
        parts += epochs
    assert figures(parts) == figures(whole)
    assert equal(network, resumed)
    assert parts[-1].elapsed_s > parts[0].elapsed_s


def test_a_finished_training_has_nothing_left_to_do(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device, tmp_path: Path
) -> None:
    _, network = train(short, meta, pictures, cpu, tmp_path / "checkpoint.pt")
    epochs, again = train(short, meta, pictures, cpu, tmp_path / "checkpoint.pt")
    assert epochs == []
    assert equal(network, again)


def test_the_checkpoint_of_an_epoch_is_there_before_the_epoch_is_told(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    parts = Parts.of(short, meta, pictures, cpu)
    for epoch in training.fit(*parts, short.train, cpu, path=path):
        checkpoint = Checkpoint.load(path)
        assert checkpoint is not None
        assert checkpoint.epochs[-1] == epoch
    assert sorted(tmp_path.iterdir()) == [path, path.with_name("checkpoint.pt.before")]


def test_a_checkpoint_cut_in_half_gives_way_to_the_one_before(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    undisturbed, network = train(short, meta, pictures, cpu)
    train(short, meta, pictures, cpu, path, stop_after=3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    checkpoint = Checkpoint.load(path)
    assert checkpoint is not None
    assert len(checkpoint.epochs) == 2
    epochs, again = train(short, meta, pictures, cpu, path)
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
    short: Config, meta: Meta, pictures: Pictures, cpu: Device
) -> None:
    # Each step multiplies the weights by -99: they overflow, whatever the pictures.
    values = {"train.learning_rate": 100.0, "train.schedule": "constant", "train.weight_decay": 1.0, "train.epochs": 50}
    with pytest.raises(Diverged, match=r"in epoch \d+, learning rate 100\. Lower train\.learning_rate") as caught:
        train(short.with_values(values), meta, pictures, cpu)
    assert "train.warmup" in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        MemoryError(),
    ],
)
def test_too_little_memory_is_told_with_advice(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device, error: Exception
) -> None:
    class Hungry(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise error

    parts = Parts.of(short, meta, pictures, cpu)
    with pytest.raises(OutOfMemory, match=r"train\.batch_size of 16: halve it"):
        list(training.fit(Hungry(), parts.training, parts.validation, short.train, cpu))


def test_an_error_that_has_to_do_with_something_else_keeps_its_name(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device
) -> None:
    parts = Parts.of(short, meta, pictures, cpu)
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(training.fit(wrong, parts.training, parts.validation, short.train, cpu))


def test_weight_decay_is_for_kernels_and_matrices_alone(short: Config, meta: Meta, pictures: Pictures) -> None:
    network = Parts.of(short, meta, pictures, Device.choose("cpu", "fp32", 1, Machine(1))).network
    decayed, free = training.build_optimizer(network, short.train).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (short.train.weight_decay, 0.0)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert all("norm" in names[id(parameter)] or names[id(parameter)].endswith("bias") for parameter in free["params"])
    assert {names[id(parameter)].rpartition(".")[2] for parameter in decayed["params"]} == {"weight"}
    assert len(decayed["params"]) + len(free["params"]) == len(names)


def test_a_step_of_each_optimizer_uses_the_momentum_that_was_set(short: Config, meta: Meta, pictures: Pictures) -> None:
    network = nn.Linear(2, 2)
    for optimizer, key in (("sgd", "momentum"), ("adam", "betas"), ("adamw", "betas")):
        config = short.with_values({"train.optimizer": optimizer, "train.momentum": 0.8}).train
        value = training.build_optimizer(network, config).param_groups[0][key]
        assert value == (0.8 if key == "momentum" else (0.8, 0.999))


def test_schedules_have_their_shapes() -> None:
    def factors(schedule: str) -> list[float]:
        return [training.learning_rate_factor(schedule, 0.25, step / 100) for step in range(101)]

    assert set(factors("constant")) == {1.0}
    cosine = factors("cosine")
    assert (cosine[0], round(cosine[50], 9), round(cosine[100], 9)) == (1.0, 0.5, 0.0)
    cycle = factors("one_cycle")
    assert (round(cycle[0], 9), cycle[25], round(cycle[100], 9)) == (0.04, 1.0, 0.0)
    assert cycle[:26] == sorted(cycle[:26])
    assert cycle[25:] == sorted(cycle[25:], reverse=True)


def test_the_learning_rate_told_is_that_of_the_epochs_last_step(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device
) -> None:
    epochs, _ = train(short.with_values({"train.schedule": "cosine"}), meta, pictures, cpu)
    steps = 3  # 48 training pictures in batches of 16
    for epoch in epochs:
        done = (epoch.number * steps - 1) / (4 * steps)
        assert epoch.learning_rate == pytest.approx(0.1 * training.learning_rate_factor("cosine", 0.25, done))


def test_label_smoothing_raises_the_training_loss_told_and_not_the_validation_loss(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device
) -> None:
    settings = short.with_values({"train.epochs": 12, "train.label_smoothing": 0.4})
    epochs, _ = train(settings, meta, pictures, cpu)
    # 0.4 of the target spread over two classes: the cross entropy can't go under the entropy of (0.8, 0.2).
    assert epochs[-1].training_loss > 0.5004


def test_inference_covers_every_picture_in_order_and_leaves_the_network_as_it_was(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device
) -> None:
    network, _, validation = Parts.of(short, meta, pictures, cpu)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    logits, labels = training.infer(network, validation, cpu)
    assert logits.shape == (16, 2)
    assert np.array_equal(labels.numpy(), np.concatenate([batch.labels for batch in validation.epoch()]))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


@pytest.mark.skipif(not Machine.probe().cpu_bf16, reason="this processor has no native bf16")
def test_bf16_on_a_processor_that_has_it_learns_too_and_repeats_bit_for_bit(
    short: Config, meta: Meta, pictures: Pictures
) -> None:
    device = Device.choose("cpu", "bf16", 1, Machine.probe())
    settings = short.with_values({"train.epochs": 8})
    first, network = train(settings, meta, pictures, device)
    second, same = train(settings, meta, pictures, device)
    assert first[-1].training_accuracy > 0.85
    assert figures(first) == figures(second)
    assert equal(network, same)


@pytest.mark.gpu
def test_a_gpu_learns_and_goes_on_from_a_checkpoint_of_the_cpu(
    short: Config, meta: Meta, pictures: Pictures, cpu: Device, tmp_path: Path
) -> None:
    train(short, meta, pictures, cpu, tmp_path / "checkpoint.pt", stop_after=2)
    gpu = Device.choose("cuda", "auto", 1, Machine.probe())
    gpu.prepare()
    epochs, network = train(short, meta, pictures, gpu, tmp_path / "checkpoint.pt")
    assert [epoch.number for epoch in epochs] == [3, 4]
    assert next(network.parameters()).is_cuda
