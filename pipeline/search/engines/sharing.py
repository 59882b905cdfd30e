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
    moment. Who wants to be alone keeps it until all others have left, and so none can come in before.
    """

    path: Path | None
    """Of the files; None: it is not shared."""

    @contextmanager
    def turn(self, *, alone: bool = False, before_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """A context in the room, beside others or alone. `before_waiting` is called if it is not free at once."""
        if self.path is None or fcntl is None:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{self.path}.door").open("w") as door, Path(f"{self.path}.room").open("w") as room:
            _lock(door, fcntl.LOCK_EX, before_waiting)
            _lock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, before_waiting)
            if not alone:
                fcntl.flock(door, fcntl.LOCK_UN)
            yield


def _lock(file: IO[str], kind: int, before_waiting: Callable[[], None]) -> None:
    with suppress(BlockingIOError):
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return
    before_waiting()
    fcntl.flock(file, kind)
