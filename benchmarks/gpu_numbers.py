"""Phases of gpu.py: whether a GPU computes what the CPU does, and how fast."""

import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gpu_phases import NOISE, ROOT, Phase, noise, recipe

from pipeline import networks
from pipeline.batches import augment
from pipeline.batches.batches import Batch, OrderedBatches, TrainingBatches
from pipeline.batches.images import Images
from pipeline.config import Augment, Config
from pipeline.training import loop
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.device import Device, Precision

FAMILIES: dict[str, dict[str, Any]] = {
    "shipped": {},
    "resnet20": {"model.family": "resnet", "model.depth": 20, "model.width": 16},
    "resnet18": {"model.family": "torchvision", "model.name": "resnet18"},
    "vgg11": {"model.family": "vgg11", "model.width": 64},
}


def training_batches(images: Images, settings: Config, device: Device) -> TrainingBatches:
    return TrainingBatches(
        device.loader(images),
        np.arange(len(images.labels)),
        batch_size=settings.train.batch_size,
        policy=settings.augment,
        fill=NOISE.mean,
        seed=0,
    )


def right(phase: Phase) -> None:
    cpu, there = phase.cpu, phase.chosen("fp32")
    _augmentations(phase, there)
    _optimisers(phase, cpu, there)
    _waits(phase, there)
    _logits(phase, there)
    if phase.is_cuda:
        tests = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            "tests/training",
            "tests/batches",
            "-p",
            "no:cacheprovider",
        ]
        done = subprocess.run(tests, cwd=ROOT, capture_output=True, text=True)
        phase.expect("pytest -m gpu", done.returncode == 0, (done.stdout.splitlines() or [done.stderr])[-1])


def _augmentations(phase: Phase, there: Device) -> None:
    images = torch.from_numpy(noise(256).pixels)
    away: dict[str, float] = {}
    for name, values in {
        "crop_flip_cutout": {"policy": "crop_flip_cutout", "padding_mode": "reflect"},
        "trivial": {"auto": "trivial"},
        "rand": {"auto": "rand"},
        "erasing": {"erasing": 1.0},
        "mixup": {"mixup": 1.0},
        "cutmix": {"cutmix": 1.0},
    }.items():
        how = Augment.model_validate(values)
        random = torch.Generator().manual_seed(0)
        draws = augment.draw(how, len(images), (32, 32), random)
        (mixing,) = augment.draw_mixings(how, 1, len(images), (32, 32), random, torch.device("cpu"))
        made = []
        for at in (torch.device("cpu"), there.handle):
            changed = augment.apply(images.to(at), draws.to(at, len(images)), augment.colour_of((0.5,) * 3, at))
            if mixing:
                box = None if mixing.box is None else mixing.box.to(at)
                changed = augment.mix(changed, augment.Mixing(mixing.share.to(at), box))
            made.append(changed.cpu())
        away[name] = round((made[0] != made[1]).float().mean().item(), 5)
    phase.expect("share of other bytes", max(away.values()) < 0.01, away)
    # A CPU resizes bytes, other devices floats, whose rounding differs by one.
    pixels = images.permute(0, 3, 1, 2)
    small = [augment.resized(pixels.to(at), 0.75).cpu().int() for at in (torch.device("cpu"), there.handle)]
    largest = int((small[0] - small[1]).abs().max())
    phase.expect("resized: largest difference, of 255", largest <= 1, largest)


def _logits(phase: Phase, there: Device) -> None:
    """Of untrained networks: the largest difference from the CPU, relative to the largest logit."""
    backends: Any = torch.backends  # it has no types for all of these
    images = torch.from_numpy(noise(64).pixels).permute(0, 3, 1, 2)
    plain = {"model.family": "plain", "model.depth": 20, "model.width": 16}
    for name, values in (FAMILIES | {"plain20": plain}).items():
        network = networks.build(recipe("shipped", **values).model, NOISE, seed=0)
        network.prepare(images)
        network.eval()
        with torch.inference_mode():
            expected = network(images)
            loop.place(network, there)
            away = {}
            kinds: dict[str, Precision] = {"ieee": "fp32", "tf32": "fp32", "bf16": "bf16"}
            for precision, kind in kinds.items():
                if phase.is_cuda:
                    backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
                    backends.cudnn.conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
                with replace(there, precision=kind).autocast():
                    made = network(images.to(there.handle)).float().cpu()
                away[precision] = float(f"{((made - expected).abs().max() / expected.abs().max()).item():.2g}")
        phase.expect(f"logits of {name}", away["ieee"] < 1e-3 and away["bf16"] < 0.1, away)
    there.prepare()


def _optimisers(phase: Phase, cpu: Device, there: Device) -> None:
    """20 steps by the device, of them 10 from a checkpoint of the CPU, and on the CPU alone."""
    images = noise(64 * 10)
    few = images._replace(pixels=images.pixels[:64], labels=images.labels[:64])
    for name, rate in (("sgd", 0.01), ("adam", 0.001), ("adamw", 0.001), ("muon", 0.01)):
        values = {"train.optimizer": name, "train.learning_rate": rate, "train.epochs": 2, "train.batch_size": 64}
        settings = recipe("shipped", **values | {"model.width": 16, "augment.small_side": 1.0})
        losses: list[float] = []
        for devices in ((cpu, cpu), (there, there), (cpu, there), (there, cpu)):
            path = phase.into.with_name(f"{name}-{len(losses)}.pt")
            for device in devices:
                network = networks.build(settings.model, NOISE, seed=0)
                network.prepare(torch.from_numpy(few.pixels).permute(0, 3, 1, 2))
                batches = training_batches(images, settings, device)
                check = OrderedBatches(device.loader(few), np.arange(64), batch_size=64)
                fit = loop.fit(
                    network, batches, check, settings.train, device, path=path, checkpoint=Checkpoint.load(path)
                )
                last = next(fit)
            losses.append(last.training_loss)
        away = {
            how: float(f"{abs(loss / losses[0] - 1):.2g}")
            for how, loss in zip(("device", "cpu, then device", "device, then cpu"), losses[1:], strict=True)
        }
        phase.expect(f"20 steps of {name}", max(away.values()) < 0.02, away)


def _waits(phase: Phase, there: Device) -> None:
    """How often the CPU waits for the GPU in the steps of an epoch; 0 on a CPU."""
    for name, values in (("shipped", {}), ("rand", {"augment.auto": "rand"}), ("mixup", {"augment.mixup": 0.2})):
        settings = recipe("shipped", **{"train.batch_size": 64, "train.epochs": 3} | values)
        watched = _Watched(training_batches(noise(64 * 8), settings, there), phase.is_cuda)
        network = networks.build(settings.model, NOISE, seed=0)
        few = OrderedBatches(there.loader(noise(64)), np.arange(64), batch_size=64)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            list(loop.fit(network, watched, few, settings.train, there))
        waits = [str(one.message) for one in caught if "synchroniz" in str(one.message)]
        phase.expect(f"waits in 12 steps, {name}", not waits, len(waits))


@dataclass
class _Watched:
    """Batches that let PyTorch warn of each wait between the second and the last of an epoch."""

    batches: TrainingBatches
    is_cuda: bool

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def steps(self) -> int:
        return self.batches.steps

    def epoch(self, number: int) -> Iterator[Batch]:
        for step, batch in enumerate(self.batches.epoch(number)):
            if self.is_cuda and number > 1:
                torch.cuda.set_sync_debug_mode("warn" if 0 < step < self.steps - 1 else "default")
            yield batch


def speed(phase: Phase) -> None:
    device = phase.chosen()
    phase.note("device", f"{device.name}, {device.precision}, PyTorch {torch.__version__}")
    sizes = (32,) if phase.quick else (128, 500, 1000, 2000)
    steps = 2 if phase.quick else 40
    for name in list(FAMILIES)[: 2 if phase.quick else None]:
        for size in sizes:
            settings = recipe("shipped", **FAMILIES[name] | {"train.batch_size": size, "augment.small_side": 1.0})
            phase.note(f"{name}, batch {size}", _speed(settings, noise(steps * size), device, phase.is_cuda))


def _speed(settings: Config, images: Images, device: Device, is_cuda: bool) -> dict[str, float]:
    device.prepare()
    network = networks.build(settings.model, NOISE, seed=0)
    few = OrderedBatches(device.loader(images), np.arange(10), batch_size=10)
    fit = loop.fit(network, training_batches(images, settings, device), few, settings.train, device)
    next(fit)  # the warm-up
    speeds = [next(fit).images_per_second for _ in range(2)]
    found: dict[str, float] = {
        "images/s": round(statistics.median(speeds)),
        "MB": round(device.peak_memory_bytes() / 1e6),
    }
    if is_cuda:
        steps = len(images.labels) // settings.train.batch_size
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            began = time.perf_counter()
            next(fit)
            took_us = 1e6 * (time.perf_counter() - began)
        kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]  # type: ignore[attr-defined]
        busy_us = sum(event.device_time_total for event in kernels)
        # Under the profiler, with the validation of an epoch: a lower bound on the share.
        found |= {"kernels a step": round(len(kernels) / steps), "busy": round(busy_us / took_us, 2)}
    return found
