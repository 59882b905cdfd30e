"""Weights to start from: of a file, or those that torchvision publishes."""

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from pipeline import config
from pipeline.errors import ConfigError, DownloadError

SILENCE_S = 60
"""Seconds without a byte after which a download is given up."""
_OWN = re.compile(r"^network\.(body\.)?")
"""The beginning of a network's weights in this project's files, which hold a whole Classifier."""
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.(\d\.\w+)$")
"""Names as torchvision's files of its DenseNets still have them: norm.1 is norm1 today."""


def read(file: str) -> dict[str, Tensor]:
    """The weights in `file` (model.weights), under torchvision's names. Raises ConfigError.

    The file is torchvision's, or the model.safetensors of a training of this project. Its path is relative to the
    project.
    """
    path = config.weights_file(file)
    try:
        if path.suffix == ".safetensors":
            weights = safetensors.torch.load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make its reader raise anything
        reason = f"{type(error).__name__}: {_first_line(error)}"  # the message alone may be a mere number
        raise ConfigError(
            f"model.weights: {path} can't be read as weights ({reason}): put a good copy in its place.",
            keys=config.WEIGHTS_KEYS,
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ConfigError(
            f"model.weights: {path} holds something else than a state_dict: save `network.state_dict()` alone.",
            keys=config.WEIGHTS_KEYS,
        )
    own = {_OWN.sub("", name): value for name, value in weights.items() if _OWN.match(name)}
    return _renamed(own or weights)


def fetch(address: str, name: str) -> dict[str, Tensor]:
    """torchvision's weights of the network `name`, from torch.hub's folder or from `address`. Raises DownloadError.

    The digits at the end of the file's name begin its SHA-256, which is compared.
    """
    file = address.rpartition("/")[2]
    remedy = "try again, or fetch that file by another way, put it somewhere and name it in model.weights"
    try:
        with _socket_timeout():
            weights: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(
                address, map_location="cpu", check_hash=True, weights_only=True
            )
    except (OSError, HTTPException) as error:
        raise DownloadError(
            f"The ImageNet weights of {name} could not be fetched from {address} ({_first_line(error)}): {remedy}."
        ) from error
    except Exception as error:  # a wrong checksum, or a damaged file, which can make its reader raise anything
        kept = Path(torch.hub.get_dir(), "checkpoints", file)
        raise DownloadError(
            f"What came from {address} is damaged ({_first_line(error)}): delete {kept} if it is there, then {remedy}."
        ) from error
    return _renamed(weights)


def misfit(body: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """The first reason why the weights `body` are not those `wanted`; None if they fit.

    The counts of batches of batch norms are ignored: older files lack them, and nothing here needs them.
    """
    expected, found = (
        {name: tuple(value.shape) for name, value in state.items() if not name.endswith(".num_batches_tracked")}
        for state in (wanted, body)
    )
    for name, shape in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != shape:
            return f"{name} has the shape {found[name]}, not {shape}"
    return next((f"{name} is no weight of that network" for name in found if name not in expected), None)


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in weights.items()}


@contextmanager
def _socket_timeout() -> Iterator[None]:
    """A server that sends nothing for SILENCE_S is an OSError; torch.hub itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
