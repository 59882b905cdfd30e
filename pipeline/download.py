"""Stage download: fetches the data set that params.yaml names, verifies it and writes it as arrays.

    python -m pipeline.download     (or `dvc repro download`)

It takes no arguments; section `data` of params.yaml is its interface. data/train and data/test get images.npy (uint8
[N, H, W, C]) and labels.npy (int64 [N]), which can be memory-mapped. Validation images of the data's own follow the
training images, and validation.npy (bool [N]) marks them. data/meta.json (classes, shape, mean and standard
deviation, counts, digest) is written last, so where it lies the data set is whole. What an earlier run left is removed
first. Archives stay in downloads/, where a person may also put one by hand.
"""

import time
from collections.abc import Sequence

from pipeline import cli, config
from pipeline.files import Project


def download(project: Project) -> None:
    """Writes the data set of params.yaml. Raises ConfigError, DataError or DownloadError, and then leaves no data."""
    from pipeline.datasets.prepare import prepare

    started = time.perf_counter()
    data = config.load(project.params).data
    meta = prepare(project, data)
    shape = "x".join(map(str, meta.shape))
    validation = f", {meta.counts['validation']:,} validation" if "validation" in meta.counts else ""
    print(
        f"{data.name}: {meta.counts['train']:,} training{validation} and {meta.counts['test']:,} test images of "
        f"{len(meta.classes)} classes, {shape}, in {time.perf_counter() - started:.1f} s\n{meta.digest}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_stage(download, __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
