"""A network of the user's: what the function that model.family names returns, once it has passed a dry run."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline import config
from pipeline.config import Model
from pipeline.errors import ConfigError, PipelineError
from pipeline.networks.network import Network
from pipeline.records import Meta


def build(model: Model, meta: Meta) -> "OwnNetwork":
    """A family `mypackage.nets:build`.

    Raises ConfigError if there is no such function, or it returns no network for such images and classes. An exception
    inside the function keeps its traceback and gets a note with the file.
    """
    function = _function(model.family)
    with _named(model.family):
        body = function(model, meta, **config.with_defaults(model.family, model.extra))
    if not isinstance(body, nn.Module):
        raise _fault(model.family, f"it returned {_called(body)}, not a torch.nn.Module: return the network")
    channels, height, width = meta.shape
    network = OwnNetwork(body, len(meta.classes), channels, (height, width))
    with _named(model.family):
        logits = network.dry_run(height, width)
    expected = (2, len(meta.classes))
    if not isinstance(logits, Tensor) or logits.shape != expected:
        raise _fault(
            model.family,
            f"for 2 images of {channels} x {height} x {width} its network gave {_called(logits)}, not logits of the "
            f"shape {expected}: one number per image and class of {meta.name}",
        )
    return network


class OwnNetwork(Network):
    """Any module that takes normalised images [N, C, H, W] and returns logits [N, classes].

    Its last layer, for train.head_learning_rate and muon, is the last linear layer or convolution that it registers, if
    that has an output per class. Calibration leaves it alone: the logits are divided behind it.
    """

    divisor: Tensor

    def __init__(self, body: nn.Module, classes: int, channels: int, sides: tuple[int, int]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("divisor", torch.ones(()))
        self._classes = classes
        self._channels = channels
        self._sides = sides

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [N, C, H, W] -> logits [N, classes]."""
        logits: Tensor = self.body(images) / self.divisor
        return logits

    @property
    def last_layer(self) -> list[nn.Parameter]:
        layers = [layer for layer in self.body.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        ends = bool(layers) and len(layers[-1].weight) == self._classes
        return list(layers[-1].parameters()) if ends else []

    @torch.no_grad()
    def divide_logits(self, divisor: float) -> None:
        self.divisor.mul_(divisor)

    def dry_run(self, height: int, width: int) -> Tensor:
        """What the network returns for two images without content. Raises what it raises for images of such a size."""
        mode = self.body.training
        with torch.inference_mode():
            logits: Tensor = self.body.eval()(torch.zeros(2, self._channels, height, width))
        self.body.train(mode)
        return logits

    def takes(self, height: int, width: int) -> bool:
        if (height, width) == self._sides:
            return True  # by the dry run of `build`
        try:
            return self.dry_run(height, width).shape == (2, self._classes)
        except RuntimeError:
            return False

    @cached_property
    def least_side(self) -> int:  # type: ignore[override]
        """Pixels, to a side, of the smallest square images that the network takes."""
        whole = min(self._sides)
        return next((side for side in range(1, whole) if self.takes(side, side)), whole)


def _function(family: str) -> Callable[..., object]:
    """Imports the function. Its module is looked for in the project first."""
    module, _, name = family.partition(":")
    file = config.source_file(family)
    config.extra_keys(family)  # raises the sentence for a function that is missing
    root = str(config.code_root(family))
    if root not in sys.path:
        sys.path.insert(0, root)
    with _named(family):
        found = importlib.import_module(module)
    if found.__file__ is None or Path(found.__file__).resolve() != file.resolve():
        raise _fault(family, f"the module {module} is {found.__file__} here: give the file another name")
    function: Callable[..., object] = getattr(found, name)
    return function


@contextmanager
def _named(family: str) -> Iterator[None]:
    """A context whose exceptions get a note that names the user's file."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        error.add_note(f"This came out of {config.source_file(family)}, which model.family names: {family}")
        raise


def _fault(family: str, reason: str) -> ConfigError:
    return ConfigError(f"model.family {family}: {config.source_file(family)}: {reason}.", keys=["model.family"])


def _called(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of the shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
