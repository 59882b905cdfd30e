"""Where a network makes images smaller, and how it keeps the size of small ones.

Networks for photographs of 224 pixels make a quarter of each side in their first layers, and a 32nd by the last. Of an
image of 32 pixels that leaves one.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


class Trace(NamedTuple):
    """What happens to the size of an image of `side` pixels."""

    side: int
    strided: dict[str, int]
    """Layers with a stride by name, each with the side of its input."""
    factor: int
    """How many pixels of a side the last layers make one of."""


def trace(body: nn.Module, side: int) -> Trace:
    """Passes an image without content through `body`, which takes images [N, 3, H, W]."""
    strided: dict[str, int] = {}
    sides = [side]

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before = inputs[0].shape[-1]
        sides.append(before if isinstance(layer, nn.AdaptiveAvgPool2d) else output.shape[-1])
        if _stride(layer) > 1:
            strided[name] = before

    hooks = [
        layer.register_forward_hook(lambda *passed, name=name: note(name, *passed))
        for name, layer in body.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.AdaptiveAvgPool2d, *_POOLS))
    ]
    dry_run(body, side, side)
    for hook in hooks:
        hook.remove()
    # A side of one is that of a mean over all pixels, as in squeeze-and-excitation.
    return Trace(side, strided, side // min(each for each in sides if each > 1))


def dry_run(body: nn.Module, height: int, width: int) -> None:
    """Passes an image without content. Raises what the network raises for images of such a size."""
    mode = body.training
    with torch.inference_mode():
        body.eval()(torch.zeros(1, 3, height, width))
    body.train(mode)


def keep_size(body: nn.Module, found: Trace) -> bool:
    """Takes the strides away that leave the first quarter of each side, as `trace` found them. Whether there are any.

    Kernels of more than 3 x 3 become 3 x 3, as they are in networks for small images (He et al. 2015, section 4.2);
    pools go. A network whose first stride is a pool's, a VGG, stays as it is.
    """
    first = next(iter(found.strided), None)
    if first is None or not isinstance(body.get_submodule(first), nn.Conv2d):
        return False
    for name, before in found.strided.items():
        if before <= found.side // 4:
            continue
        layer = body.get_submodule(name)
        if isinstance(layer, _POOLS):
            body.set_submodule(name, nn.Identity())
        elif isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 3 and layer.groups == 1:
            smaller = nn.Conv2d(
                layer.in_channels, layer.out_channels, kernel_size=3, padding=1, bias=layer.bias is not None
            )
            nn.init.kaiming_normal_(smaller.weight, mode="fan_out")
            body.set_submodule(name, smaller)
        elif isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
    return True


def _stride(layer: nn.Module) -> int:
    """Of a convolution or a pool; 1 for other layers."""
    stride = getattr(layer, "stride", 1)
    return max(stride) if isinstance(stride, tuple) else int(stride)
