"""pipeline.processes: children that ignore the signals meant for their parent, and end with it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
from places import REPOSITORY

from pipeline.processes import CAN_FORK, ChildProcess

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def echo(parent: Connection, greeting: str) -> None:
    """Answers what it receives, until its parent is gone."""
    parent.send(greeting)
    while True:
        try:
            parent.send(parent.recv())
        except EOFError:
            return


def leave(parent: Connection, code: int) -> None:
    sys.exit(code)


def blocked_signals(parent: Connection) -> None:
    parent.send(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def surroundings(parent: Connection) -> None:
    threads = len(list(Path("/proc/self/task").iterdir()))
    parent.send(("statistics" in sys.modules, threads, str(Path.cwd()), signal.pthread_sigmask(signal.SIG_BLOCK, [])))


@pytest.fixture(params=[False, True], ids=["spawned", "forked"])
def child(request: pytest.FixtureRequest) -> Iterator[ChildProcess]:
    child = ChildProcess("child", echo, "hello", fork=request.param)
    yield child
    child.kill()


def test_a_child_gets_its_arguments_and_talks_over_its_pipe(child: ChildProcess) -> None:
    assert child.connection.recv() == "hello"
    child.connection.send(17)
    assert child.connection.recv() == 17
    assert os.getpid() in [process.pid for process in psutil.Process(child.pid).parents()]


def test_signals_that_are_meant_for_the_parent_do_not_end_a_child_at_any_moment(child: ChildProcess) -> None:
    begun = time.monotonic()
    while not child.connection.poll():  # while it starts
        for number in SIGNALS:
            os.kill(child.pid, number)
        time.sleep(0.001)
        assert time.monotonic() - begun < 30
    assert child.connection.recv() == "hello"
    for number in SIGNALS:
        os.kill(child.pid, number)
    child.connection.send("still here")
    assert child.connection.recv() == "still here"


def test_the_first_child_of_a_process_is_as_safe_while_it_starts() -> None:
    """Starting it also starts multiprocessing's resource tracker, which unblocks signals."""
    code = (
        "import os, signal\n"
        "from pipeline.processes import ChildProcess\n"
        "from test_processes import echo\n"
        "if __name__ == '__main__':\n"
        "    child = ChildProcess('child', echo, 'hello')\n"
        "    os.kill(child.pid, signal.SIGTERM)\n"
        "    print(child.connection.recv())\n"
        "    child.kill()\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("hello\n", "")


def test_a_child_blocks_no_signal_for_its_own_children() -> None:
    child = ChildProcess("child", blocked_signals)
    assert child.connection.recv() == set()
    child.kill()


def test_the_parents_signals_work_after_a_start(child: ChildProcess) -> None:
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_how_a_child_ended_is_said_in_words(child: ChildProcess) -> None:
    other = ChildProcess("child", leave, 3)
    assert other.wait() == "ended with exit code 3"
    with pytest.raises(EOFError):
        other.connection.recv()
    other.kill()
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == "was ended by SIGKILL (was memory short?)"


def test_killing_a_child_ends_it_at_once(child: ChildProcess) -> None:
    process = psutil.Process(child.pid)
    other = ChildProcess("child", echo, "hello")
    pid = other.pid
    other.kill()
    assert not psutil.pid_exists(pid)
    assert process.is_running()


@pytest.mark.skipif(not CAN_FORK, reason="nothing can be forked here")
def test_forked_children_have_the_modules_of_the_server_no_threads_and_their_parents_folder(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from pipeline.processes import ChildProcess, prepare_forks\n"
        "from test_processes import surroundings\n"
        "if __name__ == '__main__':\n"
        "    prepare_forks(['numpy', 'statistics', 'not_there'])\n"
        f"    os.chdir({str(tmp_path)!r})\n"
        "    child = ChildProcess('child', surroundings, fork=True)\n"
        "    print(child.connection.recv(), os.environ.get('OPENBLAS_NUM_THREADS'))\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == (f"(True, 1, {str(tmp_path)!r}, set()) None\n", "")


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("end", ["raise SystemExit", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_child_ends_with_its_parent(end: str, fork: bool) -> None:
    code = (
        "import os, signal\n"
        "from pipeline.processes import ChildProcess\n"
        "from test_processes import echo\n"
        "if __name__ == '__main__':\n"
        f"    child = ChildProcess('child', echo, 'hello', fork={fork})\n"
        "    child.connection.recv()\n"
        "    print(child.pid, flush=True)\n"
        f"    {end}\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, timeout=60)
    pid, begun = int(done.stdout), time.monotonic()
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - begun < 20
        time.sleep(0.05)
