"""The schedules of the learning rate, each as a factor for every step."""

import math

from pipeline.config import Train


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
