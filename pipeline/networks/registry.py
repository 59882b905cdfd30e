"""Builds the network of the section model, by the module that config.FAMILIES names for its family."""

import importlib
import json
from typing import cast

import torch

from pipeline.config import FAMILIES, Model, is_own
from pipeline.errors import ConfigError
from pipeline.networks.classifier import Classifier
from pipeline.networks.network import SIZE_KEYS, FamilyModule, Network
from pipeline.networks.resnet import ResNet
from pipeline.records import Meta


def build(model: Model, meta: Meta, seed: int, *, initial: bool = True) -> Classifier:
    """An untrained network for the images and classes of `meta`; equal seeds give equal weights.

    With `initial=False` weights of an earlier training are neither read nor fetched, for a network whose weights are
    loaded next. Raises ConfigError if the family can't take such images or model.weights is no file for it, and
    DownloadError.
    """
    module = "own" if is_own(model.family) else FAMILIES[model.family].module
    family = cast(FamilyModule, importlib.import_module(f"pipeline.networks.{module}"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = family.build(model, meta)
    _check_sides(network, model, meta)
    if initial:
        network.load_initial_weights(model.weights)
    description = {**meta.description, "model": json.loads(model.model_dump_json())}
    return Classifier(network, network.mean or meta.mean, network.std or meta.std, description)


def _check_sides(network: Network, model: Model, meta: Meta) -> None:
    """Raises ConfigError unless the network leaves at least one pixel of an image."""
    sides = meta.shape[1:] if network.image_size is None else (network.image_size,) * 2
    if network.takes(*sides):
        return
    least = network.least_side
    remedy = ""
    if network.smaller_by is not None:
        remedy = f"set {network.smaller_by}, or "
    elif min(sides) >= ResNet.least_side:
        remedy = f"set model.family to resnet, which needs {ResNet.least_side}, or "
    called = f"name {model.name}" if model.family == "torchvision" else f"family {model.family}"
    raise ConfigError(
        f"model.{called} halves images until {least} x {least} pixels are one, so they must have at least "
        f"as many; those of {meta.name} have {' x '.join(map(str, sides))}: {remedy}take larger images "
        "(data.image_size, of a folder).",
        keys=SIZE_KEYS,
    )
