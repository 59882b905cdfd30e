"""What a served model costs: requests/s and latencies of `mlflow models serve`, beside the bare graph in this process.

    python benchmarks/serving.py
    python benchmarks/serving.py --seconds 10 --clients 8

The shipped network with random weights, for images of 32 x 32. One server with one worker, on loopback. The ways are
measured one after the other; a request holds one image.
"""

import argparse
import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from pipeline import networks
from pipeline.config import Model
from pipeline.datasets import outside
from pipeline.exporting import mlflow_model, program
from pipeline.exporting.environment import quiet
from pipeline.machine import granted_cores
from pipeline.records import Meta

META = Meta("cifar10", tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.25,) * 3, {}, "", "")


def photo(width: int, height: int) -> bytes:
    """A JPEG with the content of a photo, as far as its decoding goes: smooth, with some noise."""
    random = np.random.default_rng(0)
    smooth = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height))
    noisy = np.asarray(smooth) + random.normal(0, 6, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The address of the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = model.with_name("log")
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, cwd=model.parent)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            try:
                if requests.get(f"{address}/ping", timeout=5).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.2)
        yield f"{address}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def measured(work: Callable[[], object], seconds: float, clients: int = 1) -> tuple[float, float, float]:
    """Calls a second over all clients, and the median and 99th percentile of the milliseconds of a call."""

    def client(ends: float) -> list[float]:
        found = []
        while (began := time.perf_counter()) < ends:
            work()
            found.append(1000 * (time.perf_counter() - began))
        return found

    for _ in range(5):
        work()
    with ThreadPoolExecutor(clients) as threads:
        began = time.perf_counter()
        ends = began + seconds
        passes = [each for found in threads.map(client, [ends] * clients) for each in found]
        elapsed = time.perf_counter() - began
    p50, p99 = np.percentile(passes, [50, 99])
    return len(passes) / elapsed, float(p50), float(p99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each way")
    parser.add_argument("--clients", type=int, default=4, help="at once, of the last rows")
    arguments = parser.parse_args()
    quiet()
    import torch

    torch.set_num_threads(granted_cores())
    network = networks.build(Model(), META, seed=0).eval()
    small = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
    large = photo(640, 480)
    with tempfile.TemporaryDirectory() as name:
        model = Path(name, "model")
        mlflow_model.save(network, np.repeat(small, 2, axis=0), model)
        graph = program.load(model / "data" / "model.pt2").logits
        bodies = {
            "an array": json.dumps({"inputs": small.tolist()}),
            "a JPEG of 640 x 480": json.dumps({"inputs": [base64.b64encode(large).decode()]}),
        }
        rows = {
            "graph in this process, an array": measured(lambda: graph(small), arguments.seconds),
            "the same after decoding the JPEG": measured(
                lambda: graph(np.stack([outside.pixels(io.BytesIO(large), (3, 32, 32), None)])),
                arguments.seconds,
            ),
        }
        with served(model) as address, requests.Session() as session:
            session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=arguments.clients))

            def ask(body: str) -> None:
                answer = session.post(address, data=body, headers={"Content-Type": "application/json"}, timeout=60)
                answer.raise_for_status()

            for clients in (1, arguments.clients):
                for what, body in bodies.items():
                    row = f"served, {what}, {clients} client{'s' if clients > 1 else ''}"
                    rows[row] = measured(partial(ask, body), arguments.seconds, clients)
    print(f"{granted_cores()} cores; {Model().label}, {networks.parameters(network):,} weights")
    print(f"{'':44} requests/s  p50 ms  p99 ms")
    for row, (rate, p50, p99) in rows.items():
        print(f"{row:44} {rate:10,.0f}  {p50:6.2f}  {p99:6.2f}")


if __name__ == "__main__":
    main()
