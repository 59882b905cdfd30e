"""A folder of images in the ImageFolder layout, one directory per class: a directory, .zip, .tar or compressed tar.

listing.py says which of its files are images of which class and part. An unreadable image is an error.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.config import Data
from pipeline.datasets import archives, arrays, disk, progress
from pipeline.datasets import fingerprint as fingerprints
from pipeline.datasets.address import Address
from pipeline.datasets.dataset import DataSet, Part
from pipeline.datasets.fetch import Checksum, fetch
from pipeline.datasets.images import ImageReader
from pipeline.datasets.listing import Labelled, Listing, warn
from pipeline.datasets.wide import Scale
from pipeline.errors import DataError
from pipeline.files import Project
from pipeline.machine import granted_cores


@contextmanager
def open_dataset(data: Data, project: Project) -> Iterator[DataSet]:
    """The folder at data.url. Its images are decoded while the block iterates them. Raises DataError, DownloadError."""
    side = data.image_size
    assert data.url is not None and side is not None  # checked by config
    address = Address.parse(data.url)
    with ExitStack() as stack:
        if not address.remote and (top := address.path(project)).is_dir():
            if data.sha256:
                raise DataError(f"data.sha256 is for archives, and {top} is a directory. Set data.sha256 to null.")
            archive_sha256 = None
        else:
            expected = Checksum("sha256", data.sha256) if data.sha256 else None
            archive = fetch(address, project, expected, address.file_name)
            archive_sha256 = archive.sha256
            top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=arrays.UNPACKED, dir=project.data)))
            archives.unpack(archive, top)
        with disk.disk_errors("listing the images", top):
            fingerprint = fingerprints.fingerprint(address, project)
            listing = Listing(top, str(address))
            parts = listing.parts(data.test_share, data.test_seed)
        listing.warn_of_skipped_files()
        pool = stack.enter_context(ThreadPoolExecutor(granted_cores()))

        scale = Scale()
        project.unreadable_images.unlink(missing_ok=True)

        def dataset(training: Labelled, test: Labelled, doing: str) -> DataSet:
            bar = progress.image_bar(doing, len(training[0]) + len(test[0]))
            reader = ImageReader(
                side, pool, listing.name_of, stack.enter_context(bar), project.unreadable_images, scale
            )
            return DataSet(
                name="folder",
                classes=listing.classes,
                shape=(3, side, side),
                training=Part(training[1], reader.chunks(training[0], later=test[0]), listing.names(training)),
                test=Part(test[1], reader.chunks(test[0], earlier=training[0]), listing.names(test)),
                source=str(address),
                archive_sha256=archive_sha256,
                fingerprint=fingerprint,
                split_again=split_again if listing.is_split else None,
            )

        def split_again(training: Sequence[bytes], test: Sequence[bytes]) -> DataSet:
            return dataset(*listing.split_again(training, test), "decoding again")

        try:
            yield dataset(*parts, "decoding")
        finally:  # a small range may also be the reason of an error, since it makes images equal
            for sentence in scale.warnings():
                warn(f"{address}: {sentence}")
