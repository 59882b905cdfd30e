import copy

import pytest
import torch
from torch import nn

from pipeline.training import orthogonal
from pipeline.training.optimizers import Muon
from pipeline.training.orthogonal import Packed, by_shape

SHAPES = [(6, 4, 3, 3), (6, 4, 3, 3), (24, 2, 1, 1), (5, 7), (40, 3), (12, 12, 3, 3), (3, 1, 2, 2)]
FORMATS = [torch.contiguous_format, torch.channels_last]


def kernels(memory_format: torch.memory_format = torch.contiguous_format) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=random) for shape in SHAPES]
    return [k.clone(memory_format=memory_format) if k.ndim == 4 else k for k in made]


@pytest.mark.parametrize("worth", [0, 1e4, 1e5, 1e12])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_packed_kernels_become_orthogonal_as_those_of_one_shape_do(
    monkeypatch: pytest.MonkeyPatch, worth: float, memory_format: torch.memory_format
) -> None:
    monkeypatch.setattr(orthogonal, "_WORTH", worth)
    given = kernels(memory_format)
    packed = Packed(given)
    for scale in (1.0, 1e-3):  # a second time in the same room
        for move, kernel in zip(packed.moves, given, strict=True):
            assert move.stride() == kernel.stride() or memory_format is torch.channels_last
            move.copy_(scale * kernel)
        made = packed.make_orthogonal(torch.float32)
        for one, other in zip(made, by_shape(given, torch.float32), strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_kernels_that_do_not_fill_their_memory_or_lie_another_way_are_packed_too() -> None:
    random = torch.Generator().manual_seed(0)
    given = [torch.randn(9, 12, generator=random)[:, ::2], torch.randn(7, 5, generator=random).T, *kernels()[:1]]
    packed = Packed(given)
    for move, kernel in zip(packed.moves, given, strict=True):
        move.copy_(kernel)
    for one, other in zip(packed.make_orthogonal(torch.float32), by_shape(given, torch.float32), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_small_matrices_are_padded_and_where_that_costs_too_much_they_are_not() -> None:
    shipped = [(48, 216), (48, 432), (96, 432), (96, 864), (192, 864), (192, 1728)]
    (together,) = orthogonal._buckets(shipped)
    assert (together.rows, together.columns, len(together.members)) == (192, 1728, 6)
    large = [(64, 576)] * 4 + [(512, 4608)] * 4
    assert [(bucket.rows, len(bucket.members)) for bucket in orthogonal._buckets(large)] == [(512, 4), (64, 4)]
    assert [bucket.members for bucket in orthogonal._buckets([(10, 100), (20, 50)])] == [[1], [0]]


@pytest.mark.parametrize("memory_format", FORMATS)
def test_packed_or_not_muon_moves_weights_alike_and_goes_on_from_the_other_s_state(
    memory_format: torch.memory_format,
) -> None:
    def optimizer(packed: bool) -> tuple[list[nn.Parameter], Muon]:
        weights = [nn.Parameter(kernel) for kernel in kernels(memory_format)]
        return weights, Muon([{"params": weights, "orthogonal": True, "weight_decay": 0.1}], 0.1, 0.9, packed=packed)

    def step(weights: list[nn.Parameter], muon: Muon, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        for number, weight in enumerate(weights):
            # The third has no gradient in the second step.
            left_out = seed == 1 and number == 2
            weight.grad = (
                None if left_out else torch.empty_like(weight).copy_(torch.randn(SHAPES[number], generator=random))
            )
        muon.step()

    (weights, packed), (others, plain) = optimizer(True), optimizer(False)
    for seed in range(3):
        step(weights, packed, seed)
        step(others, plain, seed)
    resumed, muon = optimizer(True)
    for weight, other in zip(resumed, others, strict=True):
        weight.data.copy_(other)
    muon.load_state_dict(copy.deepcopy(plain.state_dict()))
    for seed in range(3, 5):
        for moved, by in ((weights, packed), (others, plain), (resumed, muon)):
            step(moved, by, seed)
    for one, other, third in zip(weights, others, resumed, strict=True):
        torch.testing.assert_close(one, other, atol=5e-5, rtol=1e-3)
        torch.testing.assert_close(one, third, atol=5e-5, rtol=1e-3)
