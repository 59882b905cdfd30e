"""A server that speaks S3, on a free port, and what stands between it and who uses it when its network is bad."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from extras import needed

BUCKET = "team"
SECRET = "swordfish"
"""The secret key in the environment; it must be shown nowhere."""
# As long as the file `fault` is there, requests are answered as it says: an HTTP status, or seconds to wait before.
SERVER = """
import sys, time
from pathlib import Path
from moto import server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

fault = Path(sys.argv[1])
answer = DomainDispatcherApplication.__call__

def faulty(self, environ, start_response):
    word = fault.read_text() if fault.exists() else ""
    if word.endswith("s"):
        time.sleep(float(word[:-1]))
    elif word:
        start_response(f"{word} Fault", [("Content-Length", "0")])
        return [b""]
    return answer(self, environ, start_response)

DomainDispatcherApplication.__call__ = faulty
running = server.ThreadedMotoServer("127.0.0.1", int(sys.argv[2]), verbose=False)
running.start()
print(running.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass
class Objects:
    """The server. What it holds is in its memory: it is gone when it ends."""

    address: str
    fault: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a program uses the server."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @contextmanager
    def disturbed(self, how: str) -> Iterator[None]:
        """In the block all requests are answered with an HTTP status (503) or after seconds (2s)."""
        self.fault.write_text(how)
        try:
            yield
        finally:
            self.fault.unlink()


@contextmanager
def objects(folder: Path) -> Iterator[Objects]:
    """A server that runs and has the bucket; skips the test where moto or s3fs is not installed."""
    needed("moto")
    needed("s3fs")
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()  # a file system of an earlier test goes on asking that one's server
    fault = folder / "fault"
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(fault), "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"MOTO_S3_CUSTOM_ENDPOINTS": ""},
    ) as server:
        assert server.stdout
        address = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        requests.put(f"{address}/{BUCKET}", timeout=30).raise_for_status()
        yield Objects(address, fault)
        server.communicate("")  # the end of its input ends it
