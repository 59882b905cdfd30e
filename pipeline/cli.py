"""What every command line of the project shares: --help, one sentence for an error, the exit code, times in words."""

import argparse
import math
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from pipeline.errors import PipelineError
from pipeline.files import Project

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


def run_stage(stage: Callable[[Project], None], module_doc: str | None, argv: Sequence[str] | None = None) -> int:
    """Runs `stage` on the project of the working directory and returns the exit code: 0, 1 (an error), 130 (stopped).

    A stage takes no arguments, since params.yaml is its interface; `module_doc` is what --help shows.
    """
    argparse.ArgumentParser(
        prog=f"python -m pipeline.{stage.__name__}",
        description=module_doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)
    return guarded(lambda: stage(Project.here()))


def guarded(work: Callable[[], None]) -> int:
    """Runs `work`; an error that a user can act on is printed as one, everything else keeps its traceback."""
    # A cluster's scheduler and a closed terminal end a program so; both deserve the orderly stop of Ctrl-C. A signal
    # that is ignored stays ignored: nohup asks for that.
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)
    try:
        work()
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"\nstopped{f': {interrupt}' if str(interrupt) else ''}", file=sys.stderr)
        return INTERRUPTED
    return 0


def duration(seconds: float) -> str:
    """2 h 05 min, 3 min 20 s, 12 s, 0.42 s."""
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
    raise KeyboardInterrupt
