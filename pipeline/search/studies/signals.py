"""Ctrl-C and SIGTERM while a study runs."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from pipeline.search.studies.display import StudyDisplay
from pipeline.search.studies.owner import Owner


@contextmanager
def stopping(owner: Owner, display: StudyDisplay) -> Iterator[None]:
    """In the block Ctrl-C lets the current epochs end. A second Ctrl-C, or SIGTERM, does not wait for them.

    A third one raises KeyboardInterrupt. A signal that is ignored stays ignored. SIGHUP is ignored after the first one,
    since the kernel and the shell each send it when a terminal is gone.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):
            signal.signal(number, signal.SIG_IGN)
        if owner.halting:
            raise KeyboardInterrupt
        if owner.stopping or number != signal.SIGINT:
            owner.halt()
        else:
            display.note = "Stopping after the epochs that are being trained; Ctrl-C again stops at once."
            owner.stop()

    with ExitStack() as stack:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                stack.callback(_restore, number, signal.signal(number, stop))
        yield


def _restore(number: int, handler: Any) -> None:
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, handler)
