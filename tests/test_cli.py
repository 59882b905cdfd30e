import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.errors import DataError, PipelineError
from pipeline.files import Project

WAITS = """
import time
from pipeline.cli import guarded

def work():
    print("ready", flush=True)
    time.sleep(float({seconds}))
    print("done", flush=True)

raise SystemExit(guarded(work))
"""


def outcome(number: signal.Signals, prefix: tuple[str, ...] = (), seconds: float = 30) -> tuple[int, str, str]:
    """Sends a signal to a waiting command. Returns its exit code and what it printed after that."""
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", WAITS.format(seconds=seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_an_error_for_the_user_is_printed_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise DataError("data/meta.json is missing: run `dvc repro`.")

    assert cli.guarded(work) == 1
    assert capsys.readouterr().err == "error: data/meta.json is missing: run `dvc repro`.\n"


def test_a_defect_keeps_its_traceback() -> None:
    def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.guarded(work)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_ends_a_command_in_order(number: signal.Signals) -> None:
    code, out, err = outcome(number)
    assert (code, out) == (130, "")
    assert err.strip() == "stopped"


def test_a_command_under_nohup_outlives_its_terminal() -> None:
    code, out, _ = outcome(signal.SIGHUP, prefix=("nohup",), seconds=1)
    assert (code, out) == (0, "done\n")


def test_a_stage_gets_the_project_of_the_working_directory_and_takes_no_arguments(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def stage(given: Project) -> None:
        seen.append(given)

    assert cli.run_stage(stage, "What it does.", []) == 0
    assert seen == [project]
    with pytest.raises(SystemExit) as caught:
        cli.run_stage(stage, "What it does.", ["--epochs", "3"])
    assert caught.value.code == 2
    assert "unrecognized arguments: --epochs 3" in capsys.readouterr().err


def test_every_error_for_the_user_is_in_the_tree_of_its_modules_docstring() -> None:
    from pipeline import errors

    def below(kind: type[PipelineError]) -> set[str]:
        return {kind.__name__}.union(
            *(below(child) for child in kind.__subclasses__() if child.__module__ == errors.__name__)
        )

    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in below(PipelineError))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.42 s"),
        (8.0, "8 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (float("inf"), "unknown"),
    ],
)
def test_a_duration_is_shown_in_fitting_units(seconds: float, text: str) -> None:
    assert cli.duration(seconds) == text


@pytest.mark.parametrize("code", ["print('x', flush=True)", "Console(force_terminal=True).print('x')"])
def test_an_output_that_is_gone_does_not_end_the_work(code: str) -> None:
    program = (
        "import os, sys\nfrom rich.console import Console\nfrom pipeline.cli import guarded\n"
        "def work():\n"
        "    sys.stdin.readline()\n"
        f"    {code}\n"
        "    print('y', file=sys.stderr)\n"
        "    open(sys.argv[1], 'w').close()\n"
        "raise SystemExit(guarded(work))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        proof = Path(folder, "proof")
        ours, theirs = os.openpty()
        command = [sys.executable, "-c", program, str(proof)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            os.close(ours)  # as when the window of a terminal is closed: each write is an OSError
            process.communicate(b"\n", timeout=60)
        assert process.returncode == 0
        assert proof.exists()


def test_the_terminals_end_is_heard_once() -> None:
    program = (
        "import time\nfrom pipeline.cli import guarded\n"
        "def work():\n"
        "    try:\n        print('ready', flush=True)\n        time.sleep(30)\n"
        "    finally:\n        time.sleep(1)\n        print('ended', flush=True)\n"
        "raise SystemExit(guarded(work))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
        assert process.communicate(timeout=60)[0] == "ended\n"
    assert process.returncode == 130
