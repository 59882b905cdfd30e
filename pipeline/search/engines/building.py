"""Which engine a study gets: `tune.engine`."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import config
from pipeline.config import Config
from pipeline.files import Project
from pipeline.machine import Machine, Placement, granted_cores, placements
from pipeline.search.engines import local
from pipeline.search.engines.base import Engine
from pipeline.search.engines.local import LocalEngine
from pipeline.search.engines.store import Store
from pipeline.search.engines.trainer import Hardware
from pipeline.search.engines.worker import WorkerSpec

if TYPE_CHECKING:
    from pipeline.search.engines.ray import RayEngine


def prepare(settings: Config) -> None:
    """Begins to load what the workers will need, where that helps. Returns at once."""
    if settings.tune.engine == "local":
        local.prepare()


def build(settings: Config, project: Project, folder: Path, store: Store | None = None) -> Engine:
    """The engine, with its workers; `folder` is the study's, and `store` has the files of its trials.

    Raises PipelineError, DataError, ConfigError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return (
        _ray(settings, project, folder, store) if settings.tune.engine == "ray" else _local(settings, project, folder)
    )


def _local(settings: Config, project: Project, folder: Path) -> Engine:
    train, tune = settings.train, settings.tune
    specs = [
        WorkerSpec(
            meta=project.meta,
            training_data=project.training_data,
            hardware=Hardware(
                placement.device,
                placement.threads,
                train.precision,
                placement.memory_share,
                placement.visible,
                _room(folder, placement),
            ),
            log=folder / f"worker-{number}.log",
            code=config.code_digests(settings),
        )
        for number, placement in enumerate(
            placements(Machine.glance(), train.device, train.threads, tune.workers, tune.workers_per_gpu), 1
        )
    ]
    for spec in specs:
        spec.log.write_bytes(b"")
    return LocalEngine(specs)


def _room(folder: Path, placement: Placement) -> Path | None:
    """What names a GPU among the workers that share it; None where one has it for itself."""
    name = (placement.visible or placement.device).replace("/", "-").replace(":", "-")
    return folder / name if placement.memory_share < 1 else None


def _ray(settings: Config, project: Project, folder: Path, store: Store | None) -> "RayEngine":
    from pipeline.batches.images import load_images
    from pipeline.records import load_meta
    from pipeline.search.engines.ray import RayEngine, RaySpec

    train, tune = settings.train, settings.tune
    threads = train.threads or 1
    gpus = 0.0 if train.device == "cpu" else tune.resources.get("gpu", 0.0)
    resources = {name: amount for name, amount in tune.resources.items() if name not in ("cpu", "gpu")}
    resources |= {"CPU": tune.resources.get("cpu", float(threads))} | ({"GPU": gpus} if gpus else {})
    meta = load_meta(project.meta)
    own_code = None
    if families := list(config.code_digests(settings)):
        own_code = folder / "code"
        for family in families:
            config.copy_code(family, own_code)
    device = train.device if train.device != "auto" or gpus else "cpu"
    spec = RaySpec(
        meta=meta,
        images=load_images(project.training_data, meta),
        hardware=Hardware(device, threads, train.precision, min(1.0, gpus) if gpus else 1.0),
        resources=resources,
        folder=folder.resolve(),
        store=str(store) if store else None,
        code=config.code_digests(settings),
        own_code=own_code,
        most=tune.workers,
    )
    return RayEngine(spec, tune.address, granted_cores())
