"""torchvision's classification networks, one by one: each trains a step on 32 and on 64 pixels, and is exported.

    python benchmarks/zoo.py                                 # hours on two cores; the largest are left out
    python benchmarks/zoo.py --names resnet18,swin_t
    python benchmarks/zoo.py --speed                         # images/s of the twelve most used, in minutes

Each network has random weights, 10 classes and a process of its own. Networks of more than --largest million weights
are only listed. --speed trains on noise by the project's own loop, as benchmarks/families.py does. The output is a
table in Markdown, for docs/networks.md; progress goes to stderr.
"""

import argparse
import multiprocessing
import sys
import time
from typing import Any

from families import measure
from rich.console import Console
from rich.progress import Progress

from pipeline import config
from pipeline.cli import guarded
from pipeline.errors import ConfigError

MOST_USED = (
    *("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "efficientnet_b0"),
    *("efficientnet_v2_s", "mobilenet_v2", "mobilenet_v3_small", "convnext_tiny", "vit_b_16", "swin_t"),
)
BATCH = 4
"""Images of the step on each size."""


def tried(name: str) -> list[str]:
    """The cells of a network's row."""
    import torch
    from torch.nn import functional as F

    from pipeline import networks
    from pipeline.records import Meta

    cells = [f"`{name}`"]
    model = config.Model(family="torchvision", name=name)
    if name == "maxvit_t":
        model = model.model_copy(update={"image_size": 56})
    for side in (32, 64):
        meta = Meta("noise", tuple("0123456789"), (3, side, side), (0.5,) * 3, (0.25,) * 3, {}, "", "")
        if name in ("inception_v3", "maxvit_t", "vit_h_14"):
            model = model.model_copy(update={"stem": "small"})
        network = networks.build(model, meta, seed=0, initial=False)
        if side == 32:
            cells.append(f"{networks.parameters(network) / 1e6:.1f} M")
        images = torch.randint(256, (BATCH, *meta.shape), dtype=torch.uint8)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        began = time.perf_counter()
        F.cross_entropy(network.train()(images), torch.arange(BATCH)).backward()
        optimizer.step()
        cells.append(f"{time.perf_counter() - began:.2f} s")
        if side == 32:
            torch.export.export(network.eval(), (images,), dynamic_shapes=[{0: torch.export.Dim.AUTO}])
    return [*cells, "yes"]


def speed(name: str) -> list[str]:
    found = measure({"model.family": "torchvision", "model.name": name}, 32, 2, None)
    return [
        f"`{name}`",
        f"{found['parameters'] / 1e6:.1f} M",
        f"{found['macs'] / 1e6:,.0f} M",
        f"{found['images_per_second']:,.0f}",
        f"{found['above_mb']:,} MB",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", default=None, help="default: all, or the most used with --speed")
    parser.add_argument("--largest", type=float, default=120, help="million weights (default: %(default)s)")
    parser.add_argument("--speed", action="store_true", help="measure images/s in place of what works")
    arguments = parser.parse_args()
    names = arguments.names.split(",") if arguments.names else list(MOST_USED if arguments.speed else config.ZOO)
    if strangers := [name for name in names if name not in config.ZOO]:
        raise ConfigError(f"--names: there is no {strangers[0]}.")
    headings = ["name", "parameters", "step on 32", "step on 64", "exported"]
    if arguments.speed:
        headings = ["name", "parameters", "MACs per image of 32 x 32", "images/s", "memory"]
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}", flush=True)
    work: Any = speed if arguments.speed else tried
    with Progress(
        console=Console(stderr=True), redirect_stdout=sys.stdout.isatty(), speed_estimate_period=3600
    ) as progress:
        for name in progress.track(names, description="networks"):
            weights = published_weights(name)
            if weights > arguments.largest * 1e6:
                print(f"| `{name}` | {weights / 1e6:.0f} M | not tried | not tried | not tried |", flush=True)
                continue
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(f"| {' | '.join(pool.apply(work, (name,)))} |", flush=True)


def published_weights(name: str) -> int:
    """The number of weights with 1,000 classes."""
    import torchvision

    return int(torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"])


if __name__ == "__main__":
    raise SystemExit(guarded(main))
