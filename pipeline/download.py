"""Stage download: fetches the data set that params.yaml names, verifies it and writes it as arrays.

    python -m pipeline.download            (or `dvc repro download`)
    python -m pipeline.download --check    compares the arrays with the digest in meta.json, and changes nothing

Section `data` of params.yaml is the interface of the stage. data/train and data/test get images.npy (uint8
[N, H, W, C]) and labels.npy (int64 [N]), which can be memory-mapped. Validation images of the data's own follow the
training images, and validation.npy (bool [N]) marks them. data/meta.json (classes, shape, mean and standard
deviation, counts, digest) is written last, so where it lies the data set is whole. What an earlier run left is removed
first. Archives stay in downloads/, where a person may also put one by hand.
"""

import argparse
import time
from collections.abc import Sequence

from pipeline import cli, config
from pipeline.errors import DataError
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


def check(project: Project) -> None:
    """Raises DataError if the arrays are missing or not those of meta.json."""
    from pipeline.datasets.verifying import differences
    from pipeline.records import load_meta

    started = time.perf_counter()
    meta = load_meta(project.meta)
    if found := differences(project, meta):
        raise DataError(
            "data/ is not what meta.json says:\n"
            + "".join(f"  {sentence}\n" for sentence in found)
            + "`dvc checkout --force download` restores it from DVC's cache, `dvc repro -f download` makes it again."
        )
    parts = {"train": "training"}
    images = ", ".join(f"{count:,} {parts.get(part, part)}" for part, count in meta.counts.items())
    print(f"identical: {meta.name}, {images} images, {meta.digest} ({cli.duration(time.perf_counter() - started)})")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.download", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare the arrays with the digest in meta.json")
    arguments = parser.parse_args(argv)
    work = check if arguments.check else download
    return cli.guarded(lambda: work(Project.here()))


if __name__ == "__main__":
    raise SystemExit(main())
