"""What a training step asks of a GPU, counted on a CPU that does what a GPU would do."""

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import REPOSITORY
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline import config, networks
from pipeline.batches.batches import Batch, OrderedBatches, TrainingBatches
from pipeline.batches.images import Images
from pipeline.batches.loaders import Resident
from pipeline.config import Augment, Config
from pipeline.records import Meta
from pipeline.training import loop
from pipeline.training.cross_validation import Training
from pipeline.training.device import Device
from pipeline.training.ema import Average
from pipeline.training.optimizers import build_optimizer
from pipeline.training.schedules import Schedule, learning_rate_factor

META = Meta("noise", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")
BATCH, TOGETHER = 2, 4
VIEWS = {"view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "slice", "select", "unsqueeze"}
VIEWS |= {"squeeze", "split", "unbind", "as_strided", "detach", "alias", "lift_fresh", "split_with_sizes"}
"""Operations that compute nothing."""
WAITS = {"_local_scalar_dense", "nonzero", "item", "equal", "is_nonzero", "masked_select", "unique", "_unique2"}
"""Operations whose result the CPU has to wait for."""


@dataclass(frozen=True)
class LikeGpu(Device):
    """A CPU that is told to do what suits a GPU."""

    @property
    def waits_for_launches(self) -> bool:
        return True


class Ops(TorchDispatchMode):
    """Counts what is dispatched, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def settings_of(recipe: str, **values: Any) -> Config:
    return config.load(REPOSITORY / recipe / "params.yaml", {"train.batch_size": BATCH, "train.epochs": 8} | values)


class Watched:
    """Training batches, and what had been dispatched when each was asked for."""

    def __init__(self, batches: TrainingBatches, ops: Ops) -> None:
        self.batches, self.ops = batches, ops
        self.marks: list[Counter[str]] = []

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def steps(self) -> int:
        return self.batches.steps

    def epoch(self, number: int) -> Iterator[Batch]:
        for batch in self.batches.epoch(number):
            self.marks.append(self.ops.counts.copy())
            yield batch


def counted(settings: Config, device: Device, together: int = TOGETHER) -> Counter[str]:
    """What so many steps dispatch which are augmented together: in the second epoch, which has whole images."""
    random = np.random.default_rng(0)
    count = 3 * together * BATCH
    images = Images(random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 10)
    loader = Resident(images, device.handle)
    loader.at_once_bytes = together * BATCH * images.pixels[0].nbytes
    batches = TrainingBatches(
        loader, np.arange(count), batch_size=BATCH, policy=settings.augment, fill=META.mean, seed=0
    )
    with Ops() as ops:
        watched = Watched(batches, ops)
        network = networks.build(settings.model, META, seed=0)
        few = OrderedBatches(loader, np.arange(BATCH), batch_size=BATCH)
        fit = loop.fit(network, watched, few, settings.train, device)
        next(fit)
        watched.marks.clear()
        next(fit)
    return watched.marks[2 * together] - watched.marks[together]


def launches(counts: Counter[str]) -> int:
    return sum(count for name, count in counts.items() if name not in VIEWS)


@pytest.fixture
def like_gpu(one_thread: None) -> Device:
    return LikeGpu(torch.device("cpu"), "fp32", 1)


@pytest.mark.parametrize(
    ("recipe", "values", "most"),
    [
        (".", {}, 160),
        ("examples/accurate", {}, 211),
        ("examples/resnet20", {}, 211),
        (".", {"augment.auto": "rand"}, 225),
        (".", {"augment.mixup": 0.2, "augment.cutmix": 1.0, "train.clip_norm": 1.0}, 225),
    ],
)
def test_a_step_launches_few_operations_and_waits_for_none(
    like_gpu: Device, recipe: str, values: dict[str, Any], most: int
) -> None:
    counts = counted(settings_of(recipe, **values), like_gpu)
    assert launches(counts) / TOGETHER <= most, counts
    assert not WAITS & set(counts)
    assert not counts["lift_fresh"], "a tensor was made of numbers of the CPU"


def test_a_step_of_muon_dispatches_fewer_than_60_operations_those_that_compute_nothing_included() -> None:
    settings = settings_of(".")
    network = networks.build(settings.model, META, seed=0).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(network, settings.train, packed=True)
    for _ in range(2):
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
        with Ops() as ops:
            optimizer.step()
    assert ops.counts.total() < 60


@pytest.mark.parametrize("values", [{}, {"augment.auto": "trivial", "augment.cutmix": 1.0}])
def test_what_suits_a_gpu_gives_about_the_numbers_of_a_cpu_and_the_same_to_the_bit_when_it_resumes(
    settings: Config,
    meta: Meta,
    images: Images,
    cpu: Device,
    like_gpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
) -> None:
    given = {"train.epochs": 3, "train.batch_size": 8, "train.optimizer": "muon", "train.ema": 0.9} | values
    settings = settings.with_values(given)
    of_cpu = list(Training.of(settings, meta, images, cpu, tmp_path / "cpu").fit())
    loader = Resident(images, cpu.handle)
    loader.at_once_bytes = 20 * images.pixels[0].nbytes
    whole = Training.of(settings, meta, images, like_gpu, tmp_path / "whole", loader)
    epochs = list(whole.fit())
    for epoch, other in zip(epochs, of_cpu, strict=True):
        assert epoch.training_loss == pytest.approx(other.training_loss, rel=1e-3)
    next(Training.of(settings, meta, images, like_gpu, tmp_path / "killed", loader).fit())
    resumed = Training.of(settings, meta, images, like_gpu, tmp_path / "killed", loader)
    assert [epoch.validation_loss for epoch in resumed.fit()] == [epoch.validation_loss for epoch in epochs[1:]]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
def test_rates_that_are_tensors_move_weights_as_numbers_do_and_a_checkpoint_of_either_serves_both(
    one_thread: None, optimizer: str
) -> None:
    values = {"train.optimizer": optimizer, "train.learning_rate": 0.02, "train.ema": 0.9, "model.width": 16}
    train = settings_of(".", **values).train

    def trained(ways: tuple[bool, ...]) -> dict[str, torch.Tensor]:
        """The averaged weights after so many epochs of 3 steps; True: an epoch's rates are tensors."""
        network, kept = (networks.build(settings_of(".", **values).model, META, seed=0) for _ in range(2))
        random = torch.Generator().manual_seed(0)
        state = None
        for epoch, tensors in enumerate(ways):
            made = build_optimizer(network, train, fused=True, packed=tensors)
            schedule = Schedule(made, train, 3 * len(ways), on=torch.device("cpu") if tensors else None)
            if state is not None:
                made.load_state_dict(copy.deepcopy(state))
            average = Average(kept, network)
            for step, now in enumerate(schedule.epoch(3 * epoch, 3), start=3 * epoch):
                assert now.learning_rate == 0.02 * learning_rate_factor(train, step, 3 * len(ways))
                for parameter in network.parameters():
                    gradient = torch.randn(parameter.shape, generator=random)
                    parameter.grad = gradient if parameter.requires_grad else None
                made.step()
                average.update(now.share)
            state = made.state_dict()
        return kept.state_dict()

    expected = trained((False, False))
    for ways in ((True, True), (False, True), (True, False)):
        for name, value in trained(ways).items():
            assert torch.allclose(value, expected[name], rtol=1e-4, atol=1e-5), (ways, name)


GPU = torch.device("cuda:1")


class PretendedGpu(FakeTensorMode):
    """Tensors can be sent to a second GPU, where shapes and devices are checked only. The CPU computes as ever."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.sent: list[str] = []
        """Names of operations that read a tensor of the CPU for the GPU, which may wait for that."""
        self.launched: set[str] = set()
        """Names of operations on the GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        if kwargs.get("device") != GPU and not any(one.device == GPU for one in given):
            if any(isinstance(one, FakeTensor) for one in given):  # on the way to the GPU
                return super().__torch_dispatch__(func, types, args, kwargs)
            return func(*args, **kwargs)
        self.launched.add(name)
        self.sent += [name for one in given if one.device.type == "cpu" and one.ndim]
        made = super().__torch_dispatch__(func, types, args, kwargs)
        for one in tree_leaves(made):
            assert not isinstance(one, torch.Tensor) or one.device == GPU, f"{name} waits for the GPU"
        return made


@pytest.fixture
def pretended() -> Iterator[PretendedGpu]:
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
        pytest.skip("PyTorch 2.9 asks the driver even for a tensor that only looks as if it were on a GPU")
    with PretendedGpu() as gpu:
        yield gpu


AUGMENTED = {"auto": "rand", "erasing": 0.5, "padding_mode": "reflect", "mixup": 0.2, "cutmix": 0.2}


@pytest.mark.parametrize(
    ("policy", "others"),
    [
        ("none", {}),
        ("none", {"auto": "trivial"}),
        ("flip", {}),
        ("flip", {"flip": "random", "mixup": 1.0}),
        ("crop_flip", {}),
        ("crop_flip_cutout", {}),
        ("crop_flip_cutout", AUGMENTED),
    ],
)
@pytest.mark.parametrize("small_epochs", [0, 1])
def test_batches_of_an_epoch_are_made_on_the_second_gpu_without_a_wait_a_transfer_or_a_matrix_product(
    pretended: PretendedGpu, policy: str, others: dict[str, Any], small_epochs: int
) -> None:
    random = np.random.default_rng(0)
    images = Images(random.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), np.arange(40) % 10)
    loader = Resident(images, GPU)
    loader.at_once_bytes = 16 * images.pixels[0].nbytes
    how = Augment.model_validate({"policy": policy} | others)
    batches = TrainingBatches(
        loader, np.arange(40), batch_size=8, policy=how, fill=(0.5,) * 3, seed=0, small_epochs=small_epochs
    )
    epoch = batches.epoch(1)
    made = [next(epoch)]
    pretended.sent.clear()  # what is sent before the first step
    made += epoch
    assert len(made) == 5
    for batch in made:
        tensors = [one for one in tree_leaves(tuple(batch)) if one is not None]
        assert {one.device for one in tensors} == {GPU}
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert not pretended.sent
    assert not {"mm", "bmm", "matmul", "addmm"} & pretended.launched


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_a_network_its_optimiser_and_its_average_stay_on_the_second_gpu(
    pretended: PretendedGpu, optimizer: str
) -> None:
    """Not seen so: backward, autocast, the fused SGD, and the fused Adam by rates that are tensors, which ask for the
    GPU itself."""
    settings = settings_of(".", **{"train.optimizer": optimizer})
    network, kept = (networks.build(settings.model, META, seed=0) for _ in range(2))
    for each in (network, kept):
        each.to(memory_format=torch.channels_last).to(GPU)
    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8).to(GPU)
    made = build_optimizer(network, settings.train, fused=True, bf16=True, packed=True)
    schedule = Schedule(made, settings.train, 2, on=GPU if optimizer == "muon" else None)
    average = Average(kept, network)
    for step, now in enumerate(schedule.epoch(0, 2)):
        assert network(images).device == GPU
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        pretended.sent.clear()
        made.step()
        average.update(now.share)
        assert step == 0 or not pretended.sent
        if optimizer == "muon":
            assert {group["lr"].device for group in made.param_groups} == {GPU}
    assert {tensor.device for state in made.state.values() for tensor in state.values() if torch.is_tensor(tensor)} == {
        GPU
    }
