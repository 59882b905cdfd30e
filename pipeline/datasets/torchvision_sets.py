"""The published data sets that torchvision.datasets reads; config.SOURCES has an entry for each.

Their files are fetched, checked and unpacked like those of all data sets, then torchvision's class reads the folder.
Arrays keep the size of their images. Image files are resized like those of a folder.
"""

import gzip
import inspect
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.config import Data, Source
from pipeline.datasets import archives, disk
from pipeline.datasets.address import Address
from pipeline.datasets.dataset import DataSet, Files, Part, Split
from pipeline.datasets.decoding import Decoder, unpacked_folder
from pipeline.datasets.fetch import Archive, Checksum, fetch
from pipeline.files import Project


class _Read(NamedTuple):
    """A part as torchvision reads it."""

    images: list[Any]
    """Paths of image files, or arrays uint8 [H, W, C] of one shape."""
    labels: npt.NDArray[np.int64]
    classes: list[str]


@contextmanager
def open_dataset(data: Data, project: Project) -> Iterator[DataSet]:
    """The data set. Image files are decoded while the block iterates them. Raises DataError and DownloadError."""
    source = data.source
    address = Address.parse(data.url or source.address)
    fetched = _fetched(data, address, project)
    first = next(iter(fetched.values()))
    archive_sha256 = first.sha256 if len(fetched) == 1 else None
    with unpacked_folder(project) as top:
        folder = top / source.root
        with disk.disk_errors("unpacking the data set", top):
            folder.mkdir(parents=True, exist_ok=True)
            for name, archive in fetched.items():
                _unpack(name, archive, folder)
        parts = [_read(data, part, top, first) for part in source.parts or (None,)]
        if data.side is None:
            yield _of_arrays(data.name, parts, str(address), archive_sha256)
            return
        identity = " ".join(archive.sha256 for archive in fetched.values())
        with Decoder.open(data.side, top, str(address), project, identity) as decoder:
            yield decoder.dataset(_files(parts, data), data.name, archive_sha256=archive_sha256)


def _of_arrays(name: str, parts: Sequence[_Read], source: str, archive_sha256: str | None) -> DataSet:
    height, width, channels = parts[0].images[0].shape
    training, test = (Part(part.labels, [np.stack(part.images)]) for part in parts)
    shape = channels, height, width
    return DataSet(name, parts[0].classes, shape, training, test, source=source, archive_sha256=archive_sha256)


def _files(parts: Sequence[_Read], data: Data) -> Files:
    """The image files by part: torchvision's parts, or a test part that is split off from a single one."""
    labelled = [(part.images, part.labels) for part in parts]
    classes = parts[0].classes
    if len(labelled) == 1:
        return Files.splitting(classes, Split(*labelled[0], data.test_share, data.test_seed))
    return Files(classes, labelled[0], labelled[-1], labelled[1] if len(labelled) > 2 else None)


def _fetched(data: Data, address: Address, project: Project) -> dict[str, Archive]:
    """The files by their official names. Several are those of the folder at the address."""
    files = data.source.files
    if len(files) == 1:
        ((name, md5),) = files.items()
        expected = Checksum("sha256", data.sha256) if data.sha256 else Checksum("md5", md5)
        return {name: fetch(address, project, expected, name)}
    return {
        name: fetch(address.below(name), project, Checksum("md5", md5, replaceable=False), f"{data.name}/{name}")
        for name, md5 in files.items()
    }


def _unpack(name: str, archive: Archive, folder: Path) -> None:
    """Writes what the file `name` holds to the folder."""
    if name.endswith((".zip", ".tar.gz", ".tgz")):
        archives.unpack(archive, folder)
    elif name.endswith(".gz"):
        with (
            archives.archive_errors(archive),
            gzip.open(archive.path) as compressed,
            (folder / name.removesuffix(".gz")).open("wb") as file,
        ):
            shutil.copyfileobj(compressed, file, 1 << 20)
    else:
        shutil.copyfile(archive.path, folder / name)


def _read(data: Data, part: str | None, top: Path, archive: Archive) -> _Read:
    """A part of the data set, by torchvision's name for it. Raises DataError for files that torchvision can't read."""
    try:
        found = _opened(data.source, part, top)
        if hasattr(found, "_images"):  # OxfordIIITPet, which takes no loader
            samples = list(zip(found._images, found._labels, strict=True))
        else:
            samples = [found[place] for place in range(len(found))]
        labels = np.array([label for _, label in samples], dtype=np.int64)
        images = [image if data.source.resized else np.atleast_3d(np.asarray(image)) for image, _ in samples]
        classes = getattr(found, "classes", None) or [str(label) for label in range(int(labels.max()) + 1)]
        return _Read(images, labels, list(classes))
    except Exception as error:  # torchvision's readers raise nearly anything for files of another kind
        raise archive.unusable(f"is not what torchvision reads as {data.name} ({error})") from error


def _opened(source: Source, part: str | None, top: Path) -> Any:
    """The object of torchvision's class. Its own checksums are not compared, since `fetch` has."""
    from torchvision import datasets

    base = getattr(datasets, str(source.torchvision))
    kind = type(base.__name__, (base,), {"_check_integrity": lambda self: True})  # folders are named for the class
    takes = inspect.signature(base).parameters
    options: dict[str, Any] = {"loader": Path} if "loader" in takes else {}
    if part is not None:
        options |= {"split": part} if "split" in takes else {"train": part == "train"}
    return kind(top, **options)
