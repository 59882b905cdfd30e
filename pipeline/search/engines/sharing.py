"""Workers that share a GPU: side by side as long as memory suffices, and one of them alone where it did not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: nobody waits for anybody
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Room:
    """A GPU, or another thing that several processes use at a time.

    Two files are locked, by the kernel, which unlocks what a killed process had. Who comes in holds `door` for that
    moment. Who wants to be alone keeps it until all others have left, and so none can come in before. Who leaves finds
    it locked then, and clears up first.
    """

    path: Path | None
    """Of the files; None: it is not shared."""

    @contextmanager
    def turn(self, *, alone: bool = False, clear: Callable[[], None] = lambda: None) -> Iterator[None]:
        """A context in the room, beside others or alone. `clear` is called before waiting, and for one who waits."""
        if self.path is None or fcntl is None:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{self.path}.door").open("w") as door, Path(f"{self.path}.room").open("w") as room:
            for file, kind in ((door, fcntl.LOCK_EX), (room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)):
                if not _lock_if_free(file, kind):
                    clear()
                    fcntl.flock(file, kind)
            if not alone:
                fcntl.flock(door, fcntl.LOCK_UN)
            yield
            if not alone and not _lock_if_free(door, fcntl.LOCK_EX):
                clear()


def _lock_if_free(file: IO[str], kind: int) -> bool:
    """Whether it was free, and is locked by this process then."""
    with suppress(BlockingIOError):
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    return False
