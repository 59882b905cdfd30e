"""Stage download: fetches the data set that params.yaml names, verifies it and writes it as arrays.

    python -m pipeline.download     (or `dvc repro download`)

It takes no arguments; section `data` of params.yaml is its interface. data/train and data/test get images.npy (uint8
[N, H, W, C]) and labels.npy (int64 [N]), which can be memory-mapped; data/meta.json (classes, shape, mean and standard
deviation, counts, digest) is written last, so where it lies the data set is whole. What a former run left is removed
first. Archives stay in downloads/, where a person may also put one by hand.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING

from pipeline import cli, config
from pipeline.files import Project

if TYPE_CHECKING:
    from pipeline.datasets.dataset import DataSet


def download(project: Project) -> None:
    """Writes the data set of params.yaml. Raises ConfigError, DataError or DownloadError, and then leaves no data."""
    from pipeline.datasets import arrays, disk

    started = time.perf_counter()
    data = config.load(project.params).data
    with disk.disk_errors("writing the data set", project.data):
        arrays.clear(project)
        project.data.mkdir(parents=True, exist_ok=True)
        try:
            with _opened(data, project) as dataset:
                meta = arrays.write(project, dataset)
        except BaseException:
            # meta.json is missing in any case, so a disk that fails here too must not hide the first error.
            with suppress(OSError):
                arrays.clear(project)
            raise
    shape = "x".join(map(str, meta["shape"]))
    counts = meta["counts"]
    print(
        f"{data.name}: {counts['train']:,} training and {counts['test']:,} test images of {len(meta['classes'])} "
        f"classes, {shape}, in {time.perf_counter() - started:.1f} s\n{meta['digest']}"
    )


def _opened(data: config.Data, project: Project) -> "AbstractContextManager[DataSet]":
    """The data set, which stays readable inside the block."""
    if data.name == "cifar10":
        from pipeline.datasets import cifar10

        return nullcontext(cifar10.read(data, project))
    if data.name == "digits":
        from pipeline.datasets import digits

        return nullcontext(digits.read(data))
    from pipeline.datasets import folder

    return folder.opened(data, project)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_stage(download, __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
