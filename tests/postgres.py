"""A PostgreSQL server of a test: an unprivileged user, a free port, in a folder of its own."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Server:
    """The server, which can be stopped and started."""

    programs: Path
    folder: Path
    port: int
    password: str | None = None
    """Which the server asks for; None: it asks for none."""
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://pipeline@127.0.0.1:{self.port}/postgres"

    def database(self, name: str) -> str:
        """The address of a new database."""
        environment = os.environ | ({"PGPASSWORD": self.password} if self.password else {})
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "pipeline"]
        subprocess.run([self.programs / "createdb", *options, name], check=True, env=environment)
        return self.url.replace("/postgres", f"/{name}")

    def start(self) -> None:
        options = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        options += ["-c", f"unix_socket_directories={self.folder}"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                _unprivileged([self.programs / "postgres", "-D", self.folder / "data", *options]),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 30
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, as when a machine is switched off."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGQUIT)
            self.process.wait(timeout=30)
            self.process = None


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def postgres(password: str | None = None) -> Iterator[Server]:
    """A server that runs, with a password or without; skips the test where PostgreSQL is not installed."""
    found = shutil.which("initdb") or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None
    )
    if found is None:
        if os.environ.get("PIPELINE_ALL_TESTS"):
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = Server(Path(found).resolve().parent, folder, free_port(), password)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        initdb = [found, "-D", folder / "data", "-U", "pipeline", "-E", "UTF8", "--no-sync"]
        if password:
            note = folder / "password"
            note.write_text(password)
            if os.geteuid() == 0:
                shutil.chown(note, "nobody")
            initdb += ["--auth=scram-sha-256", f"--pwfile={note}"]
        else:
            initdb += ["--auth=trust"]
        subprocess.run(_unprivileged(initdb), check=True, capture_output=True)
        (folder / "password").unlink(missing_ok=True)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(command: list[str | Path]) -> list[str]:
    """PostgreSQL refuses root."""
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *words]
    return words
