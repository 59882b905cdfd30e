"""What a logged model answers, in this process and served by MLflow, where it must not need this project."""

import base64
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import requests
import torch
from PIL import Image

from pipeline import networks
from pipeline.config import Config
from pipeline.datasets import images, outside
from pipeline.exporting import mlflow_model
from pipeline.networks import Classifier
from pipeline.records import Meta

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning", "ignore:.*Any type hint is inferred:UserWarning"),
]


@pytest.fixture(scope="module")
def network() -> Classifier:
    from places import REPOSITORY

    from pipeline import config

    settings: Config = config.load(REPOSITORY / "examples" / "digits" / "params.yaml")
    meta = Meta("flowers", ("été", "冬"), (3, 8, 8), (0.5,) * 3, (0.25,) * 3, {}, "sha256:0", "", highest_float=1)
    network = networks.build(settings.model, meta, seed=0)
    torch.manual_seed(0)
    network(torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8))
    return network.eval()


@pytest.fixture(scope="module")
def model(network: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an MLflow model."""
    folder = tmp_path_factory.mktemp("model") / "model"
    mlflow_model.save(network, np.zeros((2, 3, 8, 8), np.uint8), folder)
    return folder


def picture(mode: str, form: str, size: tuple[int, int] = (30, 20)) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(values[..., 0] / np.float32(255)) if mode == "F" else Image.fromarray(values).convert(mode)
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims to have side x side pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


PICTURES = [
    picture(mode, form)
    for mode, form in (
        *(("RGB", form) for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")),
        *(("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("CMYK", "JPEG"), ("F", "TIFF")),
    )
] + [picture("RGB", "PNG", (8, 8)), picture("RGB", "JPEG", (700, 500))]

REFUSED: list[tuple[Any, str]] = [
    ([text(PICTURES[0][:80])], "image 0 can't be read: "),
    ([text(b"")], "image 0 can't be read: it is empty."),
    ([text(b"plain text")], "image 0 can't be read: it is not an image of a known format."),
    ([text(bomb(50_000))], "image 0 can't be read: it has more than 89,478,485 pixels"),
    ([text(PICTURES[0]), "/etc/passwd"], "image 1 is not base64 (paths, addresses and data: URLs are not read)."),
    (["file:///etc/passwd"], "image 0 is not base64"),
    (["http://localhost/a.png"], "image 0 is not base64"),
    ([text(PICTURES[0]), 5], "image 1 is no base64 text"),
    (["A" * (30 << 20)], "image 0 has more than 20 MiB."),
    (["AAAA"] * 257, "257 images are too many for one request: 256 are allowed."),
    (text(PICTURES[0]), '"inputs" must be a list of images'),
    ([], '"inputs" must be a list of images'),
    ({"image": "a"}, '"inputs" must be a list of images'),
    (None, '"inputs" must be a list of images'),
    (np.zeros((1, 1, 8, 8), int).tolist(), "images as numbers must be [N, 3, 8, 8], got [1, 1, 8, 8]"),
    (np.zeros((3, 8, 8), int).tolist(), "images as numbers must be [N, 3, 8, 8], got [3, 8, 8]"),
    (np.full((1, 3, 8, 8), 256).tolist(), "images as numbers must be whole numbers from 0 to 255"),
    (np.full((1, 3, 8, 8), -1).tolist(), "images as numbers must be whole numbers from 0 to 255"),
    (np.full((1, 3, 8, 8), 0.5).tolist(), "images as numbers must be whole numbers from 0 to 255"),
    (np.full((1, 3, 8, 8), True).tolist(), "images as numbers must be whole numbers from 0 to 255"),
    (np.full((1, 3, 8, 8), None).tolist(), "images as numbers must be whole numbers from 0 to 255"),
    ([[[[10**400] * 8] * 8] * 3], "images as numbers must be whole numbers from 0 to 255"),
    ([[[["a" * 100_000, *["b"] * 7]] * 8] * 3], "images as numbers must be whole numbers from 0 to 255"),
    ([[[[1] * 8] * 8] * 3, [[[1] * 8] * 8] * 2], "images as numbers must be whole numbers from 0 to 255"),
    ([[[[1] * 8] * 7 + [5]] * 3], "images as numbers must be whole numbers from 0 to 255"),
    ([10**400], "images as numbers must be [N, 3, 8, 8], got [1]"),
    ([[1, 2], [3]], "images as numbers must be [N, 3, 8, 8], got [2, 2]"),
    ([[[[[]]]]], "images as numbers must be [N, 3, 8, 8], got [1, 1, 1, 1]"),
]


def test_files_are_decoded_as_download_decodes_them_and_arrays_are_taken_as_they_are(
    network: Classifier, model: Path
) -> None:
    function = mlflow.pyfunc.load_model(str(model))
    with images.strict_warnings():
        pixels = [outside.pixels(io.BytesIO(content), (3, 8, 8), 1) for content in PICTURES]
    array = np.stack([one for one in pixels if not isinstance(one, str)])
    assert len(array) == len(PICTURES)
    with torch.no_grad():
        expected = network(torch.from_numpy(array)).double().softmax(1).numpy()
    for given in ([text(content) for content in PICTURES], array, array.tolist()):
        found = function.predict(given)
        for answer, row in zip(found, expected, strict=True):
            assert list(answer["probabilities"]) == ["été", "冬"]
            np.testing.assert_allclose(list(answer["probabilities"].values()), row, rtol=1e-5, atol=1e-6)
            assert (
                answer["probability"]
                == answer["probabilities"][answer["label"]]
                == max(answer["probabilities"].values())
            )
    many = np.repeat(array[:1], 100, axis=0)
    assert len(function.predict(many)) == 100
    assert network.description == function.metadata.metadata


@pytest.mark.parametrize(("given", "sentence"), REFUSED)
def test_a_wrong_request_is_refused_by_a_sentence(model: Path, given: Any, sentence: str) -> None:
    with pytest.raises(mlflow.MlflowException) as refused:
        _function(model).predict(given)
    assert refused.value.get_http_status_code() == 400
    assert sentence in refused.value.message


_loaded: dict[Path, Any] = {}


def _function(model: Path) -> Any:
    if model not in _loaded:
        _loaded[model] = mlflow.pyfunc.load_model(str(model))
    return _loaded[model]


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[str]:
    """The address of `mlflow models serve`, in a folder without the project."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    with (model.parent / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            cwd=model.parent,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, (model.parent / "log").read_text()
            try:
                if requests.get(f"{address}/ping", timeout=5).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_served_model_answers_like_the_network_and_stays_up_after_wrong_requests(
    network: Classifier, server: str, model: Path
) -> None:
    def ask(body: bytes | str, kind: str = "application/json") -> requests.Response:
        return requests.post(f"{server}/invocations", data=body, headers={"Content-Type": kind}, timeout=60)

    for given, sentence in REFUSED:
        answer = ask(json.dumps({"inputs": given}))
        assert answer.status_code == 400, given
        assert sentence in answer.json()["message"]
        assert len(answer.text) < 500, "the request is not repeated"
    for body in (
        b"no json",
        b"\xff",
        b"[1]",
        b'{"dataframe_split": {"columns": ["a"], "data": [[1]]}}',
        b'{"prompt": "a"}',
    ):
        assert ask(body).status_code == 400
    assert ask("a,b\n1,2\n", "text/csv").status_code == 400
    assert ask(PICTURES[0], "image/png").status_code == 415

    found = ask(json.dumps({"inputs": [text(content) for content in PICTURES]})).json()["predictions"]
    assert found == _function(model).predict([text(content) for content in PICTURES])
    assert ask((model / "serving_input_example.json").read_bytes()).ok


def test_the_code_of_a_model_does_not_need_this_project(model: Path) -> None:
    script = (
        "import sys, mlflow\n"
        "class No:\n"
        "    @staticmethod\n"
        "    def find_spec(name, *_):\n"
        "        assert name.partition('.')[0] != 'pipeline'\n"
        "sys.meta_path.insert(0, No)\n"
        f"print(mlflow.pyfunc.load_model({str(model)!r}).predict([{text(PICTURES[0])!r}])[0]['label'])\n"
    )
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=model.parent, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() in ("été", "冬"), done.stderr
