"""The optimisers of `train.optimizer`, and which weights get which of their rules."""

import itertools
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn, optim

from pipeline.config import Train
from pipeline.training.orthogonal import Packed, by_shape

ADAM_SHARE = 0.1
"""Share of train.learning_rate for the weights that Muon leaves to AdamW. A step of Adam at rate 1 moves each weight by
about 1; an orthogonal step at rate 1 moves each weight of a kernel by much less."""
_ADAM_SECOND_BETA = 0.99
_ADAM_EPSILON = 1e-8


def build_optimizer(
    network: nn.Module, config: Train, *, fused: bool = False, bf16: bool = False, packed: bool = False
) -> optim.Optimizer:
    """The optimiser of `train.optimizer` for the weights of `network` that are trained.

    Matrices and kernels have weight decay. Norms and biases, which are vectors, have none (Goyal et al. 2017, section
    5.3). `network.head`, if there is one, holds the weights of the last layer, which `train.head_learning_rate` and
    Muon treat separately. With `bf16` Muon multiplies matrices in that precision, with `packed` all of them together.
    """
    head = {id(parameter) for parameter in getattr(network, "head", ())}
    apart = config.optimizer == "muon" or config.head_learning_rate is not None
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {
        (of_head, decayed): [] for of_head in (False, True) for decayed in (True, False)
    }
    for parameter in network.parameters():
        if parameter.requires_grad:
            members[apart and id(parameter) in head, _is_matrix(parameter)].append(parameter)
    groups: list[dict[str, Any]] = []
    for (of_head, decayed), parameters in members.items():
        group: dict[str, Any] = {"params": parameters, "lr": config.learning_rate}
        group["weight_decay"] = config.weight_decay if decayed else 0.0
        if config.optimizer == "muon":
            group["orthogonal"] = decayed and not of_head
            group["lr"] *= 1 if group["orthogonal"] else ADAM_SHARE
        if of_head and config.head_learning_rate is not None:
            group["lr"] = config.head_learning_rate
        if parameters:
            groups.append(group)
    if config.optimizer == "muon":
        precision = torch.bfloat16 if bf16 else torch.float32
        return Muon(groups, config.learning_rate, config.momentum, precision, packed=packed)
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return optim.SGD(groups, config.learning_rate, config.momentum, nesterov=nesterov, fused=fused)
    adam = optim.AdamW if config.optimizer == "adamw" else optim.Adam
    return adam(groups, config.learning_rate, betas=(config.momentum, 0.999), fused=fused)


def _is_matrix(parameter: Tensor) -> bool:
    """Whether it has several outputs with several inputs each. A scale of shape [channels, 1, 1] is a vector."""
    return parameter.ndim > 1 and len(parameter) > 1 and parameter[0].numel() > 1


class Muon(optim.Optimizer):
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) for some groups, AdamW for the others.

    In a group that is `orthogonal`, each weight moves by its Nesterov momentum with all singular values set to about 1,
    times sqrt(max(1, outputs / inputs)). The learning rate is then the spectral norm of a step, whatever the size of
    the gradient, and 0.02 to 0.2 suits most networks. A kernel counts as the matrix [outputs, inputs x height x width].
    All kernels are in such a group, that of the first convolution too, as in the authors' convolutional networks. The
    last layer and all vectors move by AdamW, as the authors advise. Weight decay is decoupled in both (Loshchilov &
    Hutter 2017).

    torch.optim.Muon takes matrices only, one by one, and multiplies in bf16 on any device. This one takes kernels, and
    makes many orthogonal together: those of one shape or, `packed`, all.

    All groups have the same momentum. Their rates may be tensors on the device.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        momentum: float,
        precision: torch.dtype = torch.float32,
        *,
        packed: bool = False,
    ) -> None:
        """`precision` is the type in which matrices are multiplied."""
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "orthogonal": False, "step": 0}
        super().__init__(groups, defaults)
        self._precision = precision
        self._packed: dict[tuple[int, ...], Packed] | None = {} if packed else None
        """Room for the moves of the weights with these ids."""
        self._place_counters()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            if "step" not in group:  # earlier versions counted the steps of each weight
                group["step"] = max(self.state[weight].get("step", 0) for weight in group["params"])
        self._place_counters()

    def _place_counters(self) -> None:
        """The groups' numbers of steps on the device, where a step is to take none from the CPU."""
        for group in self.param_groups:
            step = float(group["step"])
            device = group["params"][0].device
            group["step"] = int(step) if self._packed is None else torch.full((), step, device=device)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for moves_of, is_orthogonal in ((self._orthogonal, True), (self._adam, False)):
            groups = [group for group in self.param_groups if group["orthogonal"] == is_orthogonal]
            weights = [[weight for weight in group["params"] if weight.grad is not None] for group in groups]
            if not any(weights):
                continue
            # Of all groups together, which takes fewer operations.
            moves = iter(moves_of(list(itertools.chain(*weights)), groups[0]))
            for group, their in zip(groups, weights, strict=True):
                _move(their, list(itertools.islice(moves, len(their))), group["lr"], group["weight_decay"])
        return loss

    def _orthogonal(self, weights: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Gradients with Nesterov momentum, as in torch.optim.SGD, made orthogonal and scaled."""
        momentum = group["momentum"]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if self._packed is None:
            return by_shape(self._momenta(weights, gradients, momentum), self._precision)
        ids = tuple(map(id, weights))
        if ids not in self._packed:
            self._packed = {ids: Packed(weights)}
        packed = self._packed[ids]
        torch._foreach_copy_(packed.moves, self._momenta(weights, gradients, momentum))
        return packed.make_orthogonal(self._precision)

    def _momenta(self, weights: list[Tensor], gradients: list[Tensor], momentum: float) -> list[Tensor]:
        if not momentum:
            return gradients
        for weight, gradient in zip(weights, gradients, strict=True):
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(gradient)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        return list(torch._foreach_add(gradients, buffers, alpha=momentum))

    def _adam(self, weights: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Steps of Adam (Kingma & Ba 2014, algorithm 1), about 1 for each weight. `group` counts them."""
        momentum = group["momentum"]
        group["step"] += 1
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight, gradient in zip(weights, gradients, strict=True):
            if not self.state[weight]:
                self.state[weight] |= {"mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
        means = [self.state[weight]["mean"] for weight in weights]
        squares = [self.state[weight]["square"] for weight in weights]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        torch._foreach_mul_(squares, _ADAM_SECOND_BETA)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - _ADAM_SECOND_BETA)
        sizes = torch._foreach_sqrt(torch._foreach_div(squares, 1 - _ADAM_SECOND_BETA ** group["step"]))
        torch._foreach_add_(sizes, _ADAM_EPSILON)
        return list(torch._foreach_div(torch._foreach_div(means, 1 - momentum ** group["step"]), sizes))


def _move(weights: list[Tensor], moves: list[Tensor], rate: float | Tensor, decay: float) -> None:
    """Weights decayed and then moved, in place. It may change the moves."""
    if isinstance(rate, Tensor):
        if decay:
            torch._foreach_mul_(weights, torch.rsub(rate, 1, alpha=decay))
        torch._foreach_mul_(moves, rate)
        torch._foreach_sub_(weights, moves)
        return
    if decay:
        torch._foreach_mul_(weights, 1 - rate * decay)
    torch._foreach_add_(weights, moves, alpha=-rate)
