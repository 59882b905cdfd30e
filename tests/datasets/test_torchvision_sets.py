"""Published data sets: tiny files in the official formats, fetched, unpacked and read like the real ones."""

import gzip
import hashlib
import inspect
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from pipeline.config import SOURCES
from pipeline.download import download
from pipeline.errors import DataError
from pipeline.files import Project
from pipeline.records import load_meta

OF_TORCHVISION = [name for name, source in SOURCES.items() if source.torchvision]
RANDOM = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def picture(form: str = "jpeg", size: tuple[int, int] = (20, 14)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(size[1], size[0], 3)).save(file, form)
    return file.getvalue()


def tar(content: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def matlab(content: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    savemat(file, dict(content))
    return file.getvalue()


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes())


TRAINING, TEST = pixels(20, 28, 28), pixels(10, 28, 28)
MNIST = {
    "train-images-idx3-ubyte.gz": idx(TRAINING),
    "train-labels-idx1-ubyte.gz": idx(np.arange(20, dtype=np.uint8) % 10),
    "t10k-images-idx3-ubyte.gz": idx(TEST),
    "t10k-labels-idx1-ubyte.gz": idx(np.arange(10, dtype=np.uint8)),
}


def svhn(count: int) -> bytes:
    return matlab({"X": pixels(32, 32, 3, count), "y": np.arange(count)[:, None] % 10 + 1})


def stl10() -> bytes:
    parts = {"train_X.bin": pixels(20, 3, 96, 96), "test_X.bin": pixels(10, 3, 96, 96)}
    labels = {
        f"{part}_y.bin": np.arange(count, dtype=np.uint8) % 10 + 1 for part, count in (("train", 20), ("test", 10))
    }
    names = "\n".join(f"thing {number}" for number in range(10)) + "\n"
    content = {f"stl10_binary/{name}": array.tobytes() for name, array in (parts | labels).items()}
    return tar(content | {"stl10_binary/class_names.txt": names.encode()})


def flowers102() -> dict[str, bytes]:
    labels = np.repeat(np.arange(1, 103), 4)
    ids = np.arange(1, 409).reshape(102, 4)
    return {
        "102flowers.tgz": tar({f"jpg/image_{number:05}.jpg": picture() for number in ids.flat}),
        "imagelabels.mat": matlab({"labels": labels[None]}),
        "setid.mat": matlab({"trnid": ids[:, :2].reshape(1, -1), "valid": ids[:, 2][None], "tstid": ids[:, 3][None]}),
    }


def oxford_pets() -> dict[str, bytes]:
    names = {"trainval": ["Abyssinian_1", "Abyssinian_2", "beagle_1", "beagle_2"], "test": ["Abyssinian_3", "beagle_3"]}
    lists = {
        f"annotations/{part}.txt": "".join(f"{name} {1 + ('beagle' in name)} 1 1\n" for name in inside).encode()
        for part, inside in names.items()
    }
    images = {f"images/{name}.jpg": picture() for inside in names.values() for name in inside}
    return {"images.tar.gz": tar(images), "annotations.tar.gz": tar(lists)}


def eurosat() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("Forest", "River"):
            for number in range(5):
                archive.writestr(f"2750/{name}/{name}_{number}.jpg", picture(size=(64, 64)))
    return file.getvalue()


def food101() -> bytes:
    lists = {
        "train": {"pizza": ["pizza/1", "pizza/2"], "ramen": ["ramen/3", "ramen/4"]},
        "test": {"pizza": ["pizza/5"], "ramen": ["ramen/6"]},
    }
    content = {f"food-101/meta/{part}.json": json.dumps(inside).encode() for part, inside in lists.items()}
    images = [image for inside in lists.values() for same in inside.values() for image in same]
    return tar(content | {f"food-101/images/{image}.jpg": picture() for image in images})


def dtd() -> bytes:
    numbers = {"train": [1, 2], "val": [3], "test": [4]}
    content = {
        f"dtd/labels/{part}1.txt": "".join(
            f"{name}/{name}_{n}.jpg\n" for name in ("dotted", "woven") for n in inside
        ).encode()
        for part, inside in numbers.items()
    }
    return tar(
        content | {f"dtd/images/{name}/{name}_{n}.jpg": picture() for name in ("dotted", "woven") for n in range(1, 5)}
    )


FILES: Mapping[str, Callable[[], Mapping[str, bytes]]] = {
    "mnist": lambda: MNIST,
    "fashion_mnist": lambda: MNIST,
    "kmnist": lambda: MNIST,
    "svhn": lambda: {"train_32x32.mat": svhn(20), "test_32x32.mat": svhn(10)},
    "stl10": lambda: {"stl10_binary.tar.gz": stl10()},
    "flowers102": flowers102,
    "oxford_pets": oxford_pets,
    "eurosat": lambda: {"EuroSAT.zip": eurosat()},
    "food101": lambda: {"food-101.tar.gz": food101()},
    "dtd": lambda: {"dtd-r1.0.1.tar.gz": dtd()},
}


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Mapping[str, bytes]]:
    """`publish(name)`: tiny files of the data set by their official names. Their checksums become the official ones."""

    def publish(name: str) -> Mapping[str, bytes]:
        files = FILES[name]()
        checksums = {file: hashlib.md5(data).hexdigest() for file, data in files.items()}
        assert list(checksums) == list(SOURCES[name].files)
        monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], files=checksums))  # type: ignore[arg-type]
        return files

    return publish


def mirror(folder: Path, files: Mapping[str, bytes]) -> str:
    """Files in a folder, as a value of data.url: the file if it is one, else the folder."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return (folder / next(iter(files)) if len(files) == 1 else folder).as_uri()


@pytest.mark.parametrize(
    ("name", "shape", "counts", "some_classes"),
    [
        ("mnist", (1, 28, 28), {"train": 20, "test": 10}, {"0 - zero", "9 - nine"}),
        ("fashion_mnist", (1, 28, 28), {"train": 20, "test": 10}, {"Ankle boot"}),
        ("kmnist", (1, 28, 28), {"train": 20, "test": 10}, {"ki"}),
        ("svhn", (3, 32, 32), {"train": 20, "test": 10}, {"0", "9"}),
        ("stl10", (3, 96, 96), {"train": 20, "test": 10}, {"thing 3"}),
        ("flowers102", (3, 16, 16), {"train": 204, "validation": 102, "test": 102}, {"snapdragon"}),
        ("oxford_pets", (3, 16, 16), {"train": 4, "test": 2}, {"Abyssinian", "Beagle"}),
        ("eurosat", (3, 64, 64), {"train": 8, "test": 2}, {"Forest", "River"}),
        ("food101", (3, 16, 16), {"train": 4, "test": 2}, {"pizza", "ramen"}),
        ("dtd", (3, 16, 16), {"train": 4, "validation": 2, "test": 2}, {"dotted", "woven"}),
    ],
)
def test_a_data_set_becomes_arrays_of_its_parts(
    make_project: Callable[..., Project],
    publish: Callable[[str], Mapping[str, bytes]],
    tmp_path: Path,
    name: str,
    shape: tuple[int, int, int],
    counts: dict[str, int],
    some_classes: set[str],
) -> None:
    url = mirror(tmp_path / "mirror", publish(name))
    side = 16 if SOURCES[name].resized and not SOURCES[name].side else None
    project = make_project(name=name, url=url, image_size=side)
    download(project)
    meta = load_meta(project.meta)
    assert (meta.name, meta.shape, meta.counts, meta.source) == (name, shape, counts, url)
    assert some_classes <= set(meta.classes)
    assert all(sum(meta.per_class[part]) == count for part, count in counts.items())
    assert not list(project.data.glob(".*"))


def test_images_and_labels_are_those_of_the_files(
    make_project: Callable[..., Project], publish: Callable[[str], Mapping[str, bytes]], tmp_path: Path
) -> None:
    project = make_project(name="mnist", url=mirror(tmp_path / "mirror", publish("mnist")))
    download(project)
    assert np.array_equal(np.load(project.training_data / "images.npy"), TRAINING[..., None])
    assert np.array_equal(np.load(project.test_data / "images.npy"), TEST[..., None])
    assert np.load(project.training_data / "labels.npy").tolist() == [*range(10), *range(10)]


def test_several_files_come_from_the_folder_at_the_url_and_are_kept(
    make_project: Callable[..., Project], publish: Callable[[str], Mapping[str, bytes]], server: Any, answer: Any
) -> None:
    files = publish("svhn")
    server.files = {f"mirror/{name}": data for name, data in files.items()}
    server.answers = [answer(drop_after=10_000)]  # resumed by the second request
    project = make_project(name="svhn", url=f"{server.url('mirror')}/?key=1")
    download(project)
    download(project)
    assert [request["path"] for request in server.requests] == [
        f"/mirror/{name}?key=1" for name in ("train_32x32.mat", "train_32x32.mat", "test_32x32.mat")
    ]
    assert (project.downloads / "svhn" / "test_32x32.mat").read_bytes() == files["test_32x32.mat"]


def test_a_file_with_another_checksum_is_refused_and_no_way_around_is_offered(
    make_project: Callable[..., Project], publish: Callable[[str], Mapping[str, bytes]], tmp_path: Path
) -> None:
    files = dict(publish("mnist"))
    files["t10k-labels-idx1-ubyte.gz"] += b"\0"
    project = make_project(name="mnist", url=mirror(tmp_path / "mirror", files))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz has the wrong checksum: expected MD5") as error:
        download(project)
    assert "data.sha256" not in str(error.value)
    assert [path for path in project.data.rglob("*") if path.is_file()] == []


def test_an_archive_of_another_kind_is_refused_by_name(make_project: Callable[..., Project], tmp_path: Path) -> None:
    data = tar({"readme.txt": b"no images"})
    url = mirror(tmp_path / "mirror", {"mine.tar.gz": data})
    project = make_project(name="dtd", url=url, sha256=hashlib.sha256(data).hexdigest(), image_size=16)
    with pytest.raises(DataError, match=r"mine\.tar\.gz is not what torchvision reads as dtd \(Dataset not found"):
        download(project)
    assert [path for path in project.data.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["cifar10", "cifar100", *OF_TORCHVISION])
def test_addresses_and_checksums_are_those_of_torchvision(name: str) -> None:
    source = SOURCES[name]
    module = inspect.getmodule(getattr(datasets, source.torchvision or name.upper()))
    assert module is not None
    text = inspect.getsource(module)
    assert all(checksum in text for checksum in source.files.values())
    assert source.address.removesuffix("/") in text or all(part in text for part in source.address.split("/")[-2:])
