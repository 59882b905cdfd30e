import pytest
import torch
from torch import nn

from pipeline import networks
from pipeline.config import Config
from pipeline.networks import Classifier
from pipeline.records import Meta
from pipeline.training.optimizers import ADAM_SHARE, Muon, build_optimizer
from pipeline.training.orthogonal import orthogonal


@pytest.fixture
def network(settings: Config, meta: Meta) -> Classifier:
    return networks.build(settings.model, meta, seed=0)


def singular_values(matrix: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svdvals(matrix.flatten(1))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
def test_weight_decay_is_for_kernels_and_matrices_alone(settings: Config, network: Classifier, optimizer: str) -> None:
    config = settings.with_values({"train.optimizer": optimizer}).train
    groups = build_optimizer(network, config).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    free = {names[id(p)] for group in groups if not group["weight_decay"] for p in group["params"]}
    assert {group["weight_decay"] for group in groups} == {config.weight_decay, 0.0}
    assert all("norm" in name or name.endswith("bias") for name in free)
    assert {name.rpartition(".")[2] for name in decayed} == {"weight"}
    assert decayed | free == set(names.values())
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_a_step_of_each_optimizer_uses_the_momentum_that_was_set(settings: Config) -> None:
    network = nn.Linear(2, 2)
    for optimizer, key in (("sgd", "momentum"), ("adam", "betas"), ("adamw", "betas"), ("muon", "momentum")):
        config = settings.with_values({"train.optimizer": optimizer, "train.momentum": 0.8}).train
        value = build_optimizer(network, config).param_groups[0][key]
        assert value == (0.8 if key == "momentum" else (0.8, 0.999))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
def test_the_last_layer_has_a_learning_rate_of_its_own(settings: Config, network: Classifier, optimizer: str) -> None:
    values = {"train.optimizer": optimizer, "train.learning_rate": 0.01, "train.head_learning_rate": 0.3}
    groups = build_optimizer(network, settings.with_values(values).train).param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    head = {id(parameter) for parameter in network.head}
    assert {rates[id(p)] for p in network.parameters() if id(p) in head} == {0.3}
    others = {rates[id(p)] for p in network.parameters() if id(p) not in head}
    assert others == ({0.01, 0.01 * ADAM_SHARE} if optimizer == "muon" else {0.01})


def test_frozen_weights_are_left_out(settings: Config, network: Classifier) -> None:
    head = {id(parameter) for parameter in network.head}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in head)
    groups = build_optimizer(network, settings.train).param_groups
    assert {id(parameter) for group in groups for parameter in group["params"]} == head


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 16, 144), (1, 80, 12), (4, 1, 9)])
def test_orthogonal_matrices_have_singular_values_near_one_and_the_same_singular_vectors(
    shape: tuple[int, int, int],
) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for matrix, made in zip(matrices, orthogonal(matrices, torch.float64), strict=True):
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        # A random square matrix has singular values close to 0, which five steps don't raise to about 1.
        brought = left.T @ made @ right.T
        assert torch.allclose(brought, brought.diag().diag(), atol=1e-9)
        large = values > 0.05 * values.max()
        assert ((brought.diag()[large] > 0.6) & (brought.diag()[large] < 1.25)).all()
        assert large.float().mean() > 0.85


def test_orthogonal_matrices_do_not_depend_on_the_scale_of_the_given_ones() -> None:
    matrix = torch.randn(1, 8, 20, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(orthogonal(1e-4 * matrix), orthogonal(1e4 * matrix), atol=1e-4)
    assert not orthogonal(torch.zeros(1, 4, 4)).any()


def test_muon_moves_a_kernel_by_an_orthogonal_matrix_and_the_rest_as_adamw_does(
    settings: Config, network: Classifier, meta: Meta
) -> None:
    values = {"train.optimizer": "muon", "train.learning_rate": 0.1, "train.weight_decay": 0.0}
    config = settings.with_values(values).train
    muon = build_optimizer(network, config)
    assert isinstance(muon, Muon)
    random = torch.Generator().manual_seed(0)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    twin = networks.build(settings.model, meta, seed=0)
    adam = torch.optim.AdamW(twin.parameters(), 0.1 * ADAM_SHARE, betas=(0.9, 0.99), weight_decay=0.0)
    for _ in range(2):
        for parameter, other in zip(network.parameters(), twin.parameters(), strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=random)
            other.grad = parameter.grad.clone()
        muon.step()
        adam.step()
    head = {id(parameter) for parameter in network.head}
    by_adam = dict(twin.named_parameters())
    for name, parameter in network.named_parameters():
        moved = before[name] - parameter.detach()
        if parameter.ndim == 4:
            # Two steps, each with a spectral norm of at most 1.2 times the learning rate.
            scale = max(1.0, parameter.shape[0] / parameter[0].numel()) ** 0.5
            assert 0.1 * scale < singular_values(moved).max() < 2 * 1.25 * 0.1 * scale
        else:
            assert id(parameter) in head or parameter.ndim == 1
            assert torch.allclose(parameter, by_adam[name], atol=1e-6)


def test_muons_decay_is_decoupled_and_shrinks_weights_whose_gradient_is_zero() -> None:
    weight, vector = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    groups = [
        {"params": [weight], "weight_decay": 0.5, "orthogonal": True},
        {"params": [vector], "weight_decay": 0.0},
    ]
    for parameter in (weight, vector):
        parameter.grad = torch.zeros_like(parameter)
    Muon(groups, lr=0.1, momentum=0.9).step()
    assert torch.allclose(weight, torch.full((4, 4), 0.95))
    assert torch.equal(vector, torch.ones(4))


def test_muon_makes_kernels_orthogonal_together_as_it_would_one_by_one() -> None:
    random = torch.Generator().manual_seed(0)
    kernels = [torch.randn(6, 4, 3, 3, generator=random) for _ in range(3)]
    gradients = [torch.randn(6, 4, 3, 3, generator=random) for _ in range(3)]

    def stepped(groups: list[list[int]]) -> list[torch.Tensor]:
        made = [nn.Parameter(kernel.clone()) for kernel in kernels]
        for parameter, gradient in zip(made, gradients, strict=True):
            parameter.grad = gradient.clone()
        Muon([{"params": [made[place] for place in group], "orthogonal": True} for group in groups], 0.1, 0.9).step()
        return [parameter.detach() for parameter in made]

    for one, other in zip(stepped([[0, 1, 2]]), stepped([[0], [1], [2]]), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert not torch.allclose(stepped([[0, 1, 2]])[0], kernels[0], atol=1e-2)


def test_a_kernel_in_another_memory_format_moves_the_same() -> None:
    random = torch.Generator().manual_seed(0)
    kernel, gradient = (torch.randn(24, 2, 3, 3, generator=random) for _ in range(2))
    moved = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        parameter = nn.Parameter(kernel.clone(memory_format=memory_format))
        parameter.grad = gradient.clone(memory_format=memory_format)
        Muon([{"params": [parameter], "orthogonal": True}], 0.1, 0.9).step()
        moved.append(parameter.detach())
    assert torch.allclose(*moved, atol=1e-6)
