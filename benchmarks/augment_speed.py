"""Speed of augmentation: our whole batches with one draw per image, and torchvision's transforms image by image.

    python benchmarks/augment_speed.py
    python benchmarks/augment_speed.py --batch-size 512 --side 64 --json

Each policy of section `augment` changes batches of noise. Input and output are uint8, and its random draws are
included. torchvision's transforms (v2) of the same names and settings change the same images one after the other, and
the results are stacked. Its MixUp and CutMix take a batch of floats and draw one share for all its images. The two take
turns on one thread, after one turn that does not count. Printed are the median microseconds of CPU time per image,
which depend little on other processes, and the median of the ratios of the turns.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from pipeline import config
from pipeline.batches import augment
from pipeline.config import Augment

PARAMS = Path(__file__).parent.parent / "params.yaml"
FILL = (0.49, 0.48, 0.45)
PLAIN = {"augment.policy": "none", "augment.auto": "none"} | dict.fromkeys(
    ("augment.erasing", "augment.mixup", "augment.cutmix"), 0.0
)
POLICIES: dict[str, dict[str, str | float]] = {
    "crop_flip": {"augment.policy": "crop_flip"},
    "trivial": {"augment.auto": "trivial"},
    "rand": {"augment.auto": "rand", "augment.operations": 2, "augment.magnitude": 9},
    "erasing": {"augment.erasing": 1.0},
    "mixup": {"augment.mixup": 1.0},
    "cutmix": {"augment.cutmix": 1.0},
}


def ours(policy: Augment, images: Tensor) -> Callable[[], Tensor]:
    """Changes `images`, uint8 [B, H, W, C], into uint8 [B, C, H, W], each time by other draws."""
    random = torch.Generator().manual_seed(0)

    def change() -> Tensor:
        draws = augment.draw(policy, len(images), images.shape[1:3], random)
        changed = augment.apply(images, draws, augment.colour_of(FILL, images.device))
        mixing = augment.draw_mixing(policy, len(images), images.shape[1:3], random)
        return augment.mix(changed, mixing) if mixing else changed

    return change


def torchvision(name: str, policy: Augment, images: Tensor) -> Callable[[], Tensor]:
    """Likewise; what mixes returns float32."""
    side = images.shape[1]
    singles = list(images.permute(0, 3, 1, 2).contiguous())
    labels = torch.arange(len(images)) % 10
    fill = [round(255 * value) for value in FILL]
    mixing = {"mixup": v2.MixUp(alpha=1.0, num_classes=10), "cutmix": v2.CutMix(alpha=1.0, num_classes=10)}
    if name in mixing:
        batch = torch.stack(singles).float() / 255
        return lambda: mixing[name](batch, labels)[0]
    transform = {
        "crop_flip": v2.Compose(
            [v2.RandomCrop(side, padding=round(policy.padding * side), fill=fill), v2.RandomHorizontalFlip()]
        ),
        "trivial": v2.TrivialAugmentWide(fill=fill),
        "rand": v2.RandAugment(policy.operations, policy.magnitude, fill=fill),
        "erasing": v2.RandomErasing(p=1.0, value=fill),
    }[name]
    return lambda: torch.stack([transform(single) for single in singles])


def timed(change: Callable[[], Tensor], images: int) -> float:
    """Microseconds of CPU time an image."""
    began = time.thread_time()
    change()
    return (time.thread_time() - began) / images * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128, help="images (default: %(default)s)")
    parser.add_argument("--side", type=int, default=32, help="pixels of an image's side (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=50, help="turns that count (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.randint(256, (arguments.batch_size, arguments.side, arguments.side, 3), dtype=torch.uint8)
    result: dict[str, dict[str, float]] = {}
    for name, values in POLICIES.items():
        policy = config.load(PARAMS, PLAIN | values).augment
        both = ours(policy, images), torchvision(name, policy, images)
        turns = [[timed(change, len(images)) for change in both] for _ in range(arguments.turns + 1)][1:]
        result[name] = {
            "ours_us": round(statistics.median(turn[0] for turn in turns), 2),
            "torchvision_us": round(statistics.median(turn[1] for turn in turns), 2),
            "ratio": round(statistics.median(turn[1] / turn[0] for turn in turns), 2),
        }
    if arguments.json:
        print(json.dumps(result))
        return
    print(
        f"CPU microseconds an image of {arguments.side} x {arguments.side}, batch {arguments.batch_size}, "
        f"one thread, {arguments.turns} turns"
    )
    print(f"  {'':<10} {'ours':>8} {'torchvision':>12} {'times as fast':>14}")
    for name, row in result.items():
        print(f"  {name:<10} {row['ours_us']:>8,.1f} {row['torchvision_us']:>12,.1f} {row['ratio']:>14.1f}")


if __name__ == "__main__":
    main()
