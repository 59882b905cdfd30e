"""The data set that params.yaml names, written as arrays: what the stage download does."""

from contextlib import AbstractContextManager, nullcontext, suppress

from pipeline.config import Data
from pipeline.datasets import arrays, decoded, disk, duplicates, near_duplicates
from pipeline.datasets.dataset import DataSet
from pipeline.errors import DataError
from pipeline.files import Project
from pipeline.records import Meta


def prepare(project: Project, data: Data) -> Meta:
    """Removes the data of an earlier run and writes the data set. Leaves no data if it raises an error.

    Images that were decoded outlive a kill and Ctrl-C, but not a DataError.
    """
    with disk.disk_errors("writing the data set", project.data):
        arrays.clear(project)
        project.data.mkdir(parents=True, exist_ok=True)
        try:
            with _open_dataset(data, project) as dataset:
                meta = arrays.write(project, dataset)
        except BaseException as error:
            if isinstance(error, DataError):
                decoded.discard(project)
            # meta.json is missing in any case. An error while cleaning up must not hide the first one.
            with suppress(OSError):
                arrays.clear(project)
            raise
        decoded.discard(project)
    if meta.duplicates:
        duplicates.warn(meta.duplicates, meta.counts)
    if meta.near_duplicates:
        near_duplicates.announce(meta.near_duplicates)
    return meta


def _open_dataset(data: Data, project: Project) -> AbstractContextManager[DataSet]:
    """The data set, readable inside the block. Only its own module is imported."""
    if data.name in ("cifar10", "cifar100"):
        from pipeline.datasets import cifar

        return nullcontext(cifar.read(data, project))
    if data.name == "digits":
        from pipeline.datasets import digits

        return nullcontext(digits.read(data))
    if data.source.torchvision:
        from pipeline.datasets import torchvision_sets

        return torchvision_sets.open_dataset(data, project)
    from pipeline.datasets import folder

    return folder.open_dataset(data, project)
