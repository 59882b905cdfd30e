"""What all commands share: --help, errors as one sentence, exit codes, durations as text."""

import argparse
import math
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from types import FrameType
from typing import IO, Any, cast

from pipeline.errors import PipelineError
from pipeline.files import Project

INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def run_stage(stage: Callable[[Project], None], module_doc: str | None, argv: Sequence[str] | None = None) -> int:
    """Runs `stage` on the project of the working directory. Returns the exit code: 0, 1 (an error) or 130 (stopped).

    A stage takes no arguments, since params.yaml is its interface. --help shows `module_doc`.
    """
    argparse.ArgumentParser(
        prog=f"python -m pipeline.{stage.__name__}",
        description=module_doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)
    return guarded(lambda: stage(Project.here()))


def guarded(work: Callable[[], None]) -> int:
    """Runs `work` and returns the exit code: 0, 1 (an error that a user can act on) or 130 (stopped).

    The text of a PipelineError is printed. Any other exception keeps its traceback.
    """
    # A cluster scheduler sends SIGTERM, and a closed terminal sends SIGHUP. Both stop the work as Ctrl-C does. A signal
    # that is ignored stays ignored, which is what nohup asks for.
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)
    with redirect_stdout(_Output.over(sys.stdout)), redirect_stderr(_Output.over(sys.stderr)):
        try:
            work()
        except PipelineError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt as interrupt:
            print(f"\nstopped{f': {interrupt}' if str(interrupt) else ''}", file=sys.stderr)
            return INTERRUPTED
    return 0


class _Output:
    """A stream of text that drops what can't be written: a terminal that is gone must not end the work as an error."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    @classmethod
    def over(cls, stream: IO[str]) -> IO[str]:
        return cast(IO[str], cls(stream))

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def duration(seconds: float) -> str:
    """A duration as text: "2 h 05 min", "3 min 20 s", "12 s", "0.42 s"."""
    if math.isinf(seconds):
        return "unknown"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _interrupt(number: int, frame: FrameType | None) -> None:
    if number == getattr(signal, "SIGHUP", None):
        # The kernel and the shell each send it. A second one would interrupt what the first one has to bring to an end.
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
