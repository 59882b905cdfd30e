"""`make cluster-demo`: a search on simulated nodes, with all servers, of which one node is lost."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from extras import needed
from places import REPOSITORY

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("demo")]


@pytest.fixture
def folder() -> Iterator[Path]:
    """For all that the demo writes. Its path is short, as Ray puts sockets there."""
    for name in ("ray", "psycopg", "moto", "s3fs"):
        needed(name)
    if not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        pytest.skip("PostgreSQL is not installed")
    made = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def begun(folder: Path, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "deploy/demo.py", "--trials", "4", "--wait"],
            cwd=REPOSITORY,
            env=os.environ | {"TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def left(folder: Path) -> list[str]:
    """Files and processes of the demo."""
    found = [str(path) for path in folder.iterdir()]
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(folder) in line:
            found.append(line)
    return found


def test_make_adds_what_the_cluster_needs_to_an_environment_that_is_there(tmp_path: Path) -> None:
    (tmp_path / ".installed").touch()
    command = ["make", "--dry-run", "cluster-demo", f"VENV={tmp_path}", "EXTRAS=dev"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.index("--editable '.[dev,cluster]'") < done.stdout.index("deploy/demo.py")


def test_a_search_on_all_servers_loses_nothing_with_a_node_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    demo = begun(folder, log)
    assert demo.wait(580) == 0, log.read_text()
    said = log.read_text()
    assert "a node is lost without warning" in said
    assert "nothing was lost: 4 trials" in said
    assert left(folder) == []


def test_ctrl_c_ends_all_servers(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    demo = begun(folder, log)
    deadline = time.monotonic() + 300
    while "PostgreSQL " not in log.read_text():
        assert demo.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert left(folder)
    demo.send_signal(signal.SIGINT)
    assert demo.wait(120) == 130, log.read_text()
    assert left(folder) == []
