"""CIFAR-10's archive: the official form, and pickles that are not CIFAR's."""

import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.datasets import cifar as cifar_reader
from pipeline.datasets import pickles
from pipeline.download import download
from pipeline.errors import DataError, DownloadError
from pipeline.files import Project


@pytest.fixture
def run(make_project: Callable[..., Project], tmp_path: Path) -> Callable[[bytes], Project]:
    """`run(data)`: downloads CIFAR-10 from a local archive with these bytes. Checks that an error leaves no files."""

    def run(data: bytes) -> Project:
        path = tmp_path / "local.tar.gz"
        path.write_bytes(data)
        project = make_project(url=path.as_uri(), sha256=hashlib.sha256(data).hexdigest())
        try:
            download(project)
        except DataError:
            assert [path for path in project.data.rglob("*") if path.is_file()] == []
            raise
        return project

    return run


def written_by_python_2(content: dict[str, Any]) -> bytes:
    """A batch in the form of the official archive: byte strings with the opcodes that Python 2 used for all strings."""

    def string(value: str | bytes) -> bytes:
        value = value.encode() if isinstance(value, str) else value
        return b"T" + struct.pack("<i", len(value)) + value

    rows = content["data"]
    shape = b"(" + b"".join(b"M" + struct.pack("<H", size) for size in rows.shape) + b"t"
    dtype = b"cnumpy\ndtype\n(" + string("u1") + b"K\x00K\x01tR(K\x03" + string("|") + b"NNNJ\xff\xff\xff\xff" * 1
    dtype += b"J\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + string("b") + b"tR"
    array += b"(K\x01" + shape + dtype + b"I00\n" + string(rows.tobytes()) + b"tb"
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in content["labels"]) + b"e"
    return b"\x80\x02}(" + string("data") + array + string("labels") + labels + b"u."


def test_images_and_labels_are_those_of_the_archive(run, cifar):
    project = run(cifar.packed())
    batches = [cifar.contents[f"data_batch_{number}"] for number in range(1, 6)]
    for folder, parts in ((project.training_data, batches), (project.test_data, [cifar.contents["test_batch"]])):
        rows = np.concatenate([part["data"] for part in parts])
        images = np.load(folder / "images.npy", mmap_mode="r")
        assert images.shape == (len(rows), 32, 32, 3)
        assert np.array_equal(images[:, :, :, 2], rows[:, 2048:].reshape(-1, 32, 32))
        assert np.array_equal(images.transpose(0, 3, 1, 2).reshape(len(rows), 3072), rows)
        assert np.load(folder / "labels.npy").tolist() == [label for part in parts for label in part["labels"]]


def test_meta_names_classes_source_and_archive(run, cifar):
    data = cifar.packed()
    meta = json.loads(run(data).meta.read_text(encoding="utf-8"))
    assert meta["name"] == "cifar10"
    assert meta["classes"] == cifar.contents["batches.meta"]["label_names"]
    assert meta["shape"] == [3, 32, 32]
    assert meta["counts"] == {"train": 100, "test": 10}
    assert meta["source"].endswith("/local.tar.gz")
    assert meta["archive_sha256"] == hashlib.sha256(data).hexdigest()
    assert (len(meta["mean"]), len(meta["std"])) == (3, 3)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_archives_repacked_by_python_3_give_the_same_data(run, cifar, protocol):
    digest = json.loads(run(cifar.packed()).meta.read_text(encoding="utf-8"))["digest"]
    cifar.protocol = protocol
    assert json.loads(run(cifar.packed()).meta.read_text(encoding="utf-8"))["digest"] == digest


def test_batches_written_by_python_2_give_the_same_data(run, cifar):
    digest = json.loads(run(cifar.packed()).meta.read_text(encoding="utf-8"))["digest"]
    for name, content in cifar.contents.items():
        if "batch_" in name or name == "test_batch":
            cifar.contents[name] = written_by_python_2(content)
    assert json.loads(run(cifar.packed()).meta.read_text(encoding="utf-8"))["digest"] == digest


def test_an_array_in_column_order_is_read_correctly():
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    loaded = pickles.load(pickle.dumps({"data": np.asfortranarray(rows)}, 2))
    assert np.array_equal(pickles.uint8_array(loaded["data"], 4), rows)


class Asks:
    """An object whose pickle calls `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_a_pickle_that_asks_for_a_command_is_refused_and_nothing_is_executed(run, cifar, tmp_path):
    mark = tmp_path / "executed"
    cifar.contents["data_batch_3"]["extra"] = Asks(os.system, f"touch {mark}")
    data = cifar.packed()
    pickle.loads(pickle.dumps(Asks(os.system, f"touch {mark}")))
    assert mark.exists()  # an ordinary unpickler executes it
    mark.unlink()
    with pytest.raises(DataError, match=r"data_batch_3 asks for posix\.system, which was not executed"):
        run(data)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (eval, ("1",), "__builtin__.eval"),
        (getattr, (1, "real"), "__builtin__.getattr"),
        (np.load, ("x",), "numpy.load"),
        (np.frombuffer, (b"x",), "numpy.*frombuffer"),
    ],
)
def test_every_other_name_is_refused(run, cifar, function, arguments, name):
    cifar.contents["batches.meta"]["extra"] = Asks(function, *arguments)
    with pytest.raises(DataError, match=f"batches.meta asks for {name}, which was not executed"):
        run(cifar.packed())


def rows_of(*shape: int, dtype: Any = np.uint8) -> Any:
    return np.zeros(shape, dtype=dtype)


GOOD = rows_of(20, 3072)
LABELS = [0] * 20


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"data": rows_of(20, 3072, dtype=object), "labels": LABELS}, "holds no uint8 array of N x 3072 values"),
        ({"data": rows_of(20, 3072, dtype=np.float32), "labels": LABELS}, "holds no uint8 array"),
        ({"data": rows_of(20, 3072, dtype=np.int8), "labels": LABELS}, "holds no uint8 array"),
        ({"data": rows_of(20, 3071), "labels": LABELS}, "holds no uint8 array"),
        (pickle.dumps({"data": rows_of(0, 3072), "labels": []}, 4), "holds no uint8 array"),
        ({"data": rows_of(20, 3, 32, 32), "labels": LABELS}, "holds no uint8 array"),
        ({"data": b"images", "labels": LABELS}, "holds no uint8 array"),
        ({"labels": LABELS}, "holds no uint8 array"),
        ({"data": GOOD, "labels": [0] * 19}, "holds 20 images and 19 labels"),
        ({"data": GOOD, "labels": [*[0] * 19, 10]}, "holds labels that are not whole numbers from 0 to 9"),
        ({"data": GOOD, "labels": [*[0] * 19, -1]}, "holds labels that are not whole numbers from 0 to 9"),
        ({"data": GOOD, "labels": [*[0] * 19, True]}, "holds labels that are not whole numbers from 0 to 9"),
        ({"data": GOOD}, "holds labels that are not whole numbers from 0 to 9"),
        ([GOOD, LABELS], "holds no dictionary"),
        ({3: GOOD}, "holds int where a text should be"),
        (b"", r"is not a valid pickle \(EOFError"),
        (pickle.dumps({"data": GOOD, "labels": LABELS}, 2)[:-9], "is not a valid pickle"),
        (b"\x80\x02cnumpy\nndarray\n(K\x01tb.", "is not a valid pickle"),  # sets the state of a class
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nX\x01\x00\x00\x00xR.", "is not a valid pickle"),
        (b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00xX\x05\x00\x00\x00utf-7tR.", "asks for an encoding"),
        (b"\x80\x02Pname\n.", "is not a valid pickle"),  # asks for a persistent object
    ],
)
def test_a_batch_that_holds_anything_but_images_and_labels_is_refused(run, cifar, content, words):
    cifar.contents["data_batch_2"] = content
    with pytest.raises(DataError, match=f"is not CIFAR-10's: cifar-10-batches-py/data_batch_2 {words}"):
        run(cifar.packed())


@pytest.mark.parametrize("shape", [b"K\x0bM\x00\x0c", b"K\nM\x01\x0c"])
def test_an_array_whose_bytes_do_not_fill_its_shape_is_refused(run, cifar, shape):
    data = pickle.dumps(cifar.contents["test_batch"], 4)
    right = b"K\nM\x00\x0c"  # 10 and 3072
    assert data.count(right) == 1
    cifar.contents["test_batch"] = data.replace(right, shape)
    with pytest.raises(DataError, match="holds no uint8 array"):
        run(cifar.packed())


@pytest.mark.parametrize("names", [None, "airplane", ["a"] * 9, ["a"] * 10, [1] * 10])
def test_class_names_that_are_not_ten_different_texts_are_refused(run, cifar, names):
    cifar.contents["batches.meta"]["label_names"] = names
    with pytest.raises(DataError, match=r"batches\.meta holds"):
        run(cifar.packed())


def test_missing_files_are_all_named(run, cifar):
    del cifar.contents["data_batch_4"], cifar.contents["batches.meta"]
    with pytest.raises(DataError, match=r"batches\.meta, data_batch_4 can't be found in it"):
        run(cifar.packed())


def test_batches_of_different_length_are_refused(run, cifar):
    cifar.contents["data_batch_4"] = {"data": rows_of(19, 3072), "labels": [0] * 19}
    with pytest.raises(DataError, match="its training batches differ in length"):
        run(cifar.packed())


def test_a_file_that_occurs_twice_is_refused(run, cifar):
    data = cifar.packed(lambda tar: tar.addfile(tarfile.TarInfo("other/test_batch"), io.BytesIO()))
    with pytest.raises(DataError, match="other/test_batch is not a plain file, occurs twice"):
        run(data)


def test_a_file_larger_than_any_of_cifar10_is_not_read(run, cifar, monkeypatch):
    monkeypatch.setattr(cifar_reader, "_LARGEST_FILE_BYTES", 1000)
    with pytest.raises(DataError, match=r"data_batch_1 .* is too large"):
        run(cifar.packed())


def test_an_entry_that_points_outside_is_refused(run, cifar):
    data = cifar.packed(lambda tar: tar.addfile(tarfile.TarInfo("../evil"), io.BytesIO()))
    with pytest.raises(DataError, match=r"points outside of the archive, '\.\./evil'"):
        run(data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_archive_is_refused(run, cifar, share):
    data = cifar.packed()
    with pytest.raises(DataError, match=r"local\.tar\.gz is truncated or damaged"):
        run(data[: int(share * len(data))])


# From a server, by name.


def test_a_mirror_must_have_the_official_file_unless_another_checksum_is_given(make_project, cifar, server, contents):
    server.files["mirror.tar.gz"] = data = cifar.packed()
    project = make_project(url=server.url("mirror.tar.gz"))
    with pytest.raises(DataError, match="expected MD5 c58f30108f718f92721af3b95e74349a, found") as error:
        download(project)
    assert contents(project.data) == {}
    found = hashlib.sha256(data).hexdigest()
    assert found in str(error.value)
    make_project(url=server.url("mirror.tar.gz"), sha256=found)
    download(project)
    assert json.loads(project.meta.read_text(encoding="utf-8"))["counts"] == {"train": 100, "test": 10}


def test_an_archive_put_in_downloads_by_hand_is_used(make_project, cifar, dead_end):
    data = cifar.packed()
    project = make_project(url=dead_end, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(DownloadError) as error:
        download(project)
    assert str(project.downloads / "cifar-10-python.tar.gz") in str(error.value)
    (project.downloads / "cifar-10-python.tar.gz").write_bytes(data)
    download(project)
    assert project.meta.is_file()


@pytest.fixture
def dead_end(server) -> str:
    """An address where nothing answers, since the server is closed."""
    server.close()
    return server.url("cifar.tar.gz")


def test_a_second_run_does_not_download_again_and_gives_the_same_bytes(make_project, cifar, server, contents):
    server.files["c.tar.gz"] = data = cifar.packed()
    project = make_project(url=server.url("c.tar.gz", user="mary:s3cret@"), sha256=hashlib.sha256(data).hexdigest())
    download(project)
    first = contents(project.data)
    download(project)
    assert contents(project.data) == first
    assert len(server.requests) == 1
    assert json.loads(first["meta.json"])["source"] == server.url("c.tar.gz")
