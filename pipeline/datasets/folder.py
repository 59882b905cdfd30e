"""A folder of images in the ImageFolder layout, one directory per class: a directory, .zip, .tar or compressed tar.

listing.py says which of its files are images of which class and part. An unreadable image is an error.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pipeline.config import Data
from pipeline.datasets import archives, disk
from pipeline.datasets import fingerprint as fingerprints
from pipeline.datasets.address import Address
from pipeline.datasets.dataset import DataSet
from pipeline.datasets.decoding import Decoder, unpacked_folder
from pipeline.datasets.fetch import Checksum, fetch
from pipeline.datasets.listing import Listing
from pipeline.errors import DataError
from pipeline.files import Project


@contextmanager
def open_dataset(data: Data, project: Project) -> Iterator[DataSet]:
    """The folder at data.url. Its images are decoded while the block iterates them. Raises DataError, DownloadError."""
    side = data.side
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
            top = stack.enter_context(unpacked_folder(project))
            archives.unpack(archive, top)
        with disk.disk_errors("listing the images", top):
            fingerprint = fingerprints.fingerprint(address, project)
            listing = Listing(top, str(address))
            files = listing.files(data.test_share, data.test_seed)
        listing.warn_of_skipped_files()
        decoder = stack.enter_context(Decoder.open(side, top, str(address), project, archive_sha256))
        yield decoder.dataset(files, "folder", archive_sha256=archive_sha256, fingerprint=fingerprint)
