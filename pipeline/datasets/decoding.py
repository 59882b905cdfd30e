"""A data set of image files, which are decoded on all cores while it is written."""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets import arrays, progress
from pipeline.datasets.class_names import readable
from pipeline.datasets.dataset import DataSet, Files, Part
from pipeline.datasets.images import ImageReader
from pipeline.datasets.listing import warn
from pipeline.datasets.wide import Scale
from pipeline.files import Project
from pipeline.machine import granted_cores


@dataclass(frozen=True)
class Decoder:
    """Decodes the images of a folder."""

    side: int
    """Of the results, in pixels."""
    top: Path
    """The folder that names of images start in."""
    source: str
    """Its name in messages."""
    project: Project
    pool: ThreadPoolExecutor
    scale: Scale
    stack: ExitStack

    @classmethod
    @contextmanager
    def open(cls, side: int, top: Path, source: str, project: Project) -> Iterator["Decoder"]:
        """A decoder for the block. At its end it warns of images whose values fill a small part of their range."""
        project.unreadable_images.unlink(missing_ok=True)
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(granted_cores()))
            decoder = cls(side, top, source, project, pool, Scale(), stack)
            try:
                yield decoder
            finally:  # a small range may also be the reason of an error, since it makes images equal
                for sentence in decoder.scale.warnings():
                    warn(f"{source}: {sentence}")

    def dataset(
        self,
        files: Files,
        name: str,
        *,
        archive_sha256: str | None,
        fingerprint: str | None = None,
        doing: str = "decoding",
    ) -> DataSet:
        """The data set `name` of these files. `doing` is the text of its progress bar."""

        def split_again(training: Sequence[bytes], test: Sequence[bytes]) -> DataSet:
            again = files.split_again(training, test)
            return self.dataset(
                again, name, archive_sha256=archive_sha256, fingerprint=fingerprint, doing="decoding again"
            )

        parts = self._parts(files, doing)
        return DataSet(
            name=name,
            classes=files.classes,
            shape=(3, self.side, self.side),
            training=parts[0],
            validation=parts[1] if files.validation else None,
            test=parts[-1],
            source=self.source,
            archive_sha256=archive_sha256,
            fingerprint=fingerprint,
            split_again=split_again if files.split else None,
        )

    def _parts(self, files: Files, doing: str) -> list[Part]:
        """The parts in the order in which they are to be iterated."""
        labelled = [files.training, *([files.validation] if files.validation else []), files.test]
        advance = self.stack.enter_context(progress.image_bar(doing, sum(len(paths) for paths, _ in labelled)))
        reader = ImageReader(self.side, self.pool, self._name_of, advance, self.project.unreadable_images, self.scale)
        parts = []
        for place, (paths, labels) in enumerate(labelled):
            earlier = [path for before, _ in labelled[:place] for path in before]
            later = [path for after, _ in labelled[place + 1 :] for path in after]
            names = [self._name(path) for path in paths]
            parts.append(Part(labels, reader.chunks(paths, earlier=earlier, later=later), names))
        return parts

    def _name(self, path: Path) -> str:
        return readable(path.relative_to(self.top).as_posix())

    def _name_of(self, path: Path) -> str:
        return f"{self.source}: {self._name(path)}"


@contextmanager
def unpacked_folder(project: Project) -> Iterator[Path]:
    """An empty folder for unpacked files, which is removed when the block ends."""
    with tempfile.TemporaryDirectory(prefix=arrays.UNPACKED, dir=project.data) as name:
        yield Path(name)
