"""Brings the images of batches to a device. Both ways give the same batches, to the bit.

Resident images were copied to the device once, as uint8, and batches are cut from them there. Where they don't fit
they are streamed: a thread gathers the next batches from the memory map while the device computes. A CPU has no memory
of its own, so there images are always streamed: nothing but a few batches is ever copied, processes share the rest, and
the arrays may be larger than the memory.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.batches.images import Images
from pipeline.batches.mapped import release

RESIDENT_SHARE = 0.5
"""Of the free memory of a device, what images may take: the rest is for the network and its feature maps."""
AHEAD = 2
"""Batches that are gathered before they are asked for."""
_AT_ONCE_BYTES = 1 << 25
"""Of images that are cut out and augmented at once on a GPU, as many batches as fit: to be told of the operations on a
batch of small images takes it longer than to do them. Augmenting needs up to ten times as much memory meanwhile."""
_COPIED_BYTES = 1 << 26
"""Of a piece of the images, on its way to the device."""
_HELD_BYTES = 1 << 27
"""Of the memory map, after which they are released."""
_AROUND_BYTES = 1 << 16
"""What Linux maps around an image that is in its cache."""


class Loader(Protocol):
    """Brings the images of batches to a device."""

    @property
    def images(self) -> Images: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def at_once_bytes(self) -> int:
        """Up to how many bytes of images should be loaded at once, if that is more than a batch."""
        ...

    def load(self, positions: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the images at `positions` (int64 [N], on the CPU), in that order; the last may be smaller.

        Each has images uint8 [B, H, W, C] and labels int64 [B], on the device.
        """
        ...


def choose(images: Images, device: torch.device, free_bytes: int) -> Loader:
    """The loader for a device with so much free memory of its own, which is 0 on a CPU."""
    return (Resident if fits(images.pixels.nbytes, free_bytes) else Streamed)(images, device)


def fits(array_bytes: int, free_bytes: int, share: float = RESIDENT_SHARE) -> bool:
    """Whether an array takes no more than a share of the free memory of a device."""
    return array_bytes <= share * free_bytes


class Resident:
    """Images that are on the device."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self.images, self.device = images, device
        self.at_once_bytes = 0 if device.type == "cpu" else _AT_ONCE_BYTES
        self._labels = torch.from_numpy(images.labels).to(device)
        # In pieces, so that the CPU's memory never holds all of them.
        self._pixels = torch.empty(images.pixels.shape, dtype=torch.uint8, device=device)
        count = max(1, _COPIED_BYTES // images.pixels[:1].nbytes)
        for start in range(0, len(images.pixels), count):
            piece = np.array(images.pixels[start : start + count])
            self._pixels[start : start + count] = torch.from_numpy(piece)
            release(images.pixels)

    def load(self, positions: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.split(positions.to(self.device), batch_size):
            yield self._pixels.index_select(0, rows), self._labels[rows]


class Streamed:
    """Images that are gathered by a thread, while the device computes with those before.

    On CUDA the thread copies them to the device too, from pinned memory and in a stream of its own. PyTorch's cache of
    pinned memory gives a buffer to the next batch only when its copy has ended. No test without a GPU can show that
    copies overlap with the computation.
    """

    def __init__(self, images: Images, device: torch.device) -> None:
        self.images, self.device = images, device
        self.at_once_bytes = 0  # batches are gathered while others are computed with
        self._labels = torch.from_numpy(images.labels)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._held_bytes = 0

    def load(self, positions: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        labels = torch.split(self._labels[positions].to(self.device), batch_size)
        parts = iter(torch.split(positions, batch_size))
        thread = ThreadPoolExecutor(1, "images")
        coming: deque[Future[Tensor]] = deque()
        try:
            for those in labels:
                while len(coming) <= AHEAD and (rows := next(parts, None)) is not None:
                    coming.append(thread.submit(self._fetch, rows.numpy(), self._buffer(len(rows))))
                yield self._received(coming.popleft().result()), those
        finally:
            thread.shutdown(cancel_futures=True)

    def _buffer(self, count: int) -> Tensor:
        # A batch has one of its own: it may be used for long. Allocated by the main thread, whose memory is kept.
        shape = (count, *self.images.pixels.shape[1:])
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._stream is not None)

    def _fetch(self, positions: npt.NDArray[np.int64], buffer: Tensor) -> Tensor:
        """In the thread."""
        self.images.gather(positions, out=buffer.numpy())
        self._held_bytes += buffer.nbytes + len(positions) * _AROUND_BYTES
        if self._held_bytes > _HELD_BYTES:
            release(self.images.pixels)
            self._held_bytes = 0
        if self._stream is None:
            return buffer
        with torch.cuda.stream(self._stream):
            there = buffer.to(self.device, non_blocking=True)
        self._stream.synchronize()
        return there

    def _received(self, images: Tensor) -> Tensor:
        """In the main thread, which alone may use devices other than CUDA."""
        if self._stream is not None:
            # The memory came from the thread's stream, which must not have it back before this one has used it.
            images.record_stream(torch.cuda.current_stream(self.device))
        return images.to(self.device)
