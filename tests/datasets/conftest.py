"""A project in a temporary folder, small archives and images, and a server on loopback that can misbehave."""

import io
import json
import os
import pickle
import re
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from places import REPOSITORY
from tenacity import wait_none

from pipeline import config
from pipeline.datasets.address import Address
from pipeline.datasets.fetch import Archive, Checksum, fetch
from pipeline.download import download
from pipeline.errors import DataError
from pipeline.files import Project

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

MakeProject = Callable[..., Project]


@pytest.fixture
def make_project(tmp_path: Path) -> MakeProject:
    """`make_project(name="digits")`: a project whose params.yaml has these values in section `data`."""

    def make(**data: Any) -> Project:
        content = config.read_yaml(REPOSITORY / "params.yaml")
        content["data"] |= data
        root = tmp_path / "project"
        root.mkdir(exist_ok=True)
        (root / "params.yaml").write_text(json.dumps(content), encoding="utf-8")
        return Project(root, root)

    return make


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path)


@pytest.fixture
def get(project: Project) -> Callable[..., Archive]:
    """`get(url, checksum)`: fetches it as a.zip."""

    def get(url: str, expected: Checksum | None = None) -> Archive:
        return fetch(Address.parse(url), project, expected, "a.zip")

    return get


@pytest.fixture
def dead_url() -> str:
    """An address on loopback where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/a.zip"


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """`contents(folder)`: the bytes of all files below it, by path."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries happen at once."""
    from pipeline.datasets import transfer

    monkeypatch.setattr(transfer, "BACK_OFF", wait_none())


@dataclass
class Answer:
    """How the server answers one request. By default it behaves correctly."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None
    """The connection is closed after this many bytes of the body."""
    stall_after: int | None = None
    """After this many bytes of the body nothing is sent until the server ends."""
    ignore_if_range: bool = False
    most_of_range: int | None = None
    """Of a range only this many bytes are sent, and Content-Range says so."""


class Server:
    """Serves `files`, with ranges. The first requests use up `answers`, one each."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etag: str | None = '"one"'
        self.ranges = True
        self.announce_length = True
        self.content_encoding: str | None = None
        self.answers: list[Answer] = []
        self.requests: list[dict[str, str]] = []
        """The headers of each request, its path under the key "path"."""
        self.ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, name: str, user: str = "") -> str:
        return f"http://{user}{self.host}/{name}"

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append({"path": handler.path, **dict(handler.headers)})
        answer = self.answers.pop(0) if self.answers else Answer()
        body = self.files.get(handler.path.partition("?")[0].lstrip("/"))
        status = answer.status if body is not None or answer.status != 200 else 404
        headers = dict(answer.headers)
        if status != 200 or body is None:
            body = b"sorry"
        else:
            if self.etag:
                headers["ETag"] = self.etag
            if self.content_encoding:
                headers["Content-Encoding"] = self.content_encoding
            asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")) if self.ranges else None
            same = answer.ignore_if_range or handler.headers.get("If-Range", self.etag) == self.etag
            if asked and same:
                start, size = int(asked[1]), len(body)
                status = 206 if start < size else 416
                headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}" if start < size else f"bytes */{size}"
                body = body[start:]
                if answer.most_of_range is not None:
                    body = body[: answer.most_of_range]
                    headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{size}"
        handler.send_response(status)
        if self.announce_length:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if answer.stall_after is not None:
            handler.wfile.write(body[: answer.stall_after])
            handler.wfile.flush()
            self.ended.wait(60)
        else:
            handler.wfile.write(body[: answer.drop_after])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


def batch(count: int, seed: int) -> dict[Any, Any]:
    """A CIFAR batch of `count` random images, in the form that Python 3 writes."""
    rows = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"batch_label": "a batch", "labels": [index % 10 for index in range(count)], "data": rows, "filenames": []}


@dataclass
class Cifar:
    """A small CIFAR-10: five batches of 20 images and a test batch of 10."""

    contents: dict[str, Any] = field(
        default_factory=lambda: {
            **{f"data_batch_{number}": batch(20, number) for number in range(1, 6)},
            "test_batch": batch(10, 6),
            "batches.meta": {"label_names": CLASSES, "num_cases_per_batch": 20, "num_vis": 3072},
            "readme.html": b"<html>",
        }
    )
    protocol: int = 2
    folder: str = "cifar-10-batches-py"

    def packed(self, extra: Callable[[tarfile.TarFile], None] = lambda tar: None) -> bytes:
        """The archive as .tar.gz. A value that is bytes becomes a file with these bytes."""
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
            for name, content in self.contents.items():
                data = content if isinstance(content, bytes) else pickle.dumps(content, self.protocol)
                entry = tarfile.TarInfo(f"{self.folder}/{name}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
            extra(tar)
        return file.getvalue()


@pytest.fixture
def cifar() -> Cifar:
    return Cifar()


def image(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """Random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def make_images() -> Callable[[Path, dict[str, int]], Path]:
    """`make_images(folder, {"cat": 5, "dog": 4})`: as many PNG images below the folder, one directory per class."""

    def make(folder: Path, classes: dict[str, int]) -> Path:
        for name, count in classes.items():
            (folder / name).mkdir(parents=True)
            for index in range(count):
                image(sum(os.fsencode(name)) * 1000 + index).save(folder / name / f"{index:03}.png")
        return folder

    return make


@pytest.fixture
def run(make_project: Callable[..., Project], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`run()`: downloads from `tmp_path / "images"` and returns meta.json. Checks that an error leaves no files."""

    def run(**data: Any) -> dict[str, Any]:
        settings = {"url": str(tmp_path / "images"), "image_size": 8, "test_share": 0.4}
        project = make_project(name="folder", **{**settings, **data})
        try:
            download(project)
        except DataError:
            assert [path for path in project.data.rglob("*") if path.is_file()] == []
            raise
        assert not list(project.data.glob(".*"))
        meta: dict[str, Any] = json.loads(project.meta.read_text(encoding="utf-8"))
        return meta

    return run
