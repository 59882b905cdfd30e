"""What changes from step to step: the learning rates, by a schedule, and the share of each step in the average."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, optim

from pipeline.config import Train
from pipeline.training import ema


class Step(NamedTuple):
    """What a step needs beside its batch."""

    learning_rate: float
    """Of the first group of the optimiser."""
    share: float | Tensor
    """Of the step's weights in their average."""


class Schedule:
    """Sets the learning rates of an optimiser's groups before each step.

    `on` a device they are tensors there, and so is the share. All those of an epoch are sent before its first step, so
    that no step takes a number from the CPU: it neither waits, nor would it differ from others as a CUDA graph.
    """

    def __init__(
        self, optimizer: optim.Optimizer, config: Train, steps: int, *, on: torch.device | None = None
    ) -> None:
        """For an optimiser whose groups have the rates of a factor of 1, and a training of `steps` steps. None: the
        numbers are Python's."""
        self._optimizer, self._config, self._steps = optimizer, config, steps
        self._rates: list[float] = [group["lr"] for group in optimizer.param_groups]
        self._present = None if on is None else torch.zeros(len(self._rates) + 1, device=on)

    def epoch(self, first: int, count: int) -> Iterator[Step]:
        """For each of `count` steps, of which the first has the number `first` (from 0), sets the rates and yields."""
        rows = [self._numbers(step) for step in range(first, first + count)]
        if self._present is None:
            for row in rows:
                self._set(row)
                yield Step(row[0], row[-1])
            return
        sent = torch.tensor(rows).to(self._present.device)
        *rates, share = self._present.unbind()
        self._set(rates)
        for row, there in zip(rows, sent.unbind(), strict=True):
            self._present.copy_(there)
            yield Step(row[0], share)

    def _numbers(self, step: int) -> list[float]:
        """The rates of step number `step`, and last the share."""
        factor = learning_rate_factor(self._config, step, self._steps)
        return [*(rate * factor for rate in self._rates), ema.share(self._config.ema or 0.0, step)]

    def _set(self, rates: list[float] | list[Tensor]) -> None:
        # In this order: the state that an optimiser loads has other groups, with the rates of its last step.
        for group, rate in zip(self._optimizer.param_groups, rates, strict=False):
            group["lr"] = rate


def learning_rate_factor(config: Train, step: int, steps: int) -> float:
    """The factor, 0..1, of the learning rate at step number `step` (from 0) of `steps`.

    one_cycle rises from 1/25 along a cosine for the share `warmup` and then falls along a cosine to 0 (Smith & Topin
    2017, in the form of fast.ai). The others rise linearly for that share. Their first step has more than 0, since a
    step with a rate of 0 would be wasted. Then

    - cosine falls from 1 to 0 over the rest (Loshchilov & Hutter 2016, equation 5, one cycle)
    - wsd stays at 1 and falls linearly to 0 over the share `cooldown` at the end (Hu et al. 2024, section 4)
    - step is multiplied by `step_factor` at a half and at three quarters of all steps (He et al. 2015, section 4.2)
    - constant stays at 1
    """
    warm = config.warmup * steps
    if config.schedule == "one_cycle":
        return 1 - 0.96 * _cosine(step / warm) if step < warm else _cosine((step - warm) / (steps - warm))
    # With a warm-up of less than one step, the first step has the full rate.
    rise = min(1.0, (step + 1) / max(warm, 1.0))
    if config.schedule == "cosine":
        return rise * _cosine(max(0.0, step - warm) / (steps - warm))
    if config.schedule == "wsd":
        return rise * min(1.0, (steps - step) / (config.cooldown * steps))
    if config.schedule == "step":
        return rise * config.step_factor ** ((step >= steps / 2) + (step >= steps * 3 / 4))
    return rise


def _cosine(done: float) -> float:
    """From 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * done)) / 2
