"""Files of trials in a store: whole or not at all, of one attempt, beside the training."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from objects import BUCKET, Objects, objects

from pipeline.files import atomic_write
from pipeline.search.engines import store as stores
from pipeline.search.engines.places import Scratch, StoredFolder, place
from pipeline.search.engines.store import Store, StoreError


@pytest.fixture(scope="module")
def _s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Objects]:
    with objects(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(_s3: Objects, monkeypatch: pytest.MonkeyPatch) -> Objects:
    for name, value in _s3.environment.items():
        monkeypatch.setenv(name, value)
    return _s3


@pytest.fixture(params=["memory", "file", pytest.param("s3", marks=[pytest.mark.cluster, pytest.mark.slow])])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return Store(f"s3://{BUCKET}/{tmp_path.name}")
    return Store(f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/store")


def checkpoint(folder: Path, content: bytes, name: str = "checkpoint.pt") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    with atomic_write(path) as aside:
        aside.write_bytes(content)
    return path


def test_an_attempt_resumes_from_what_the_one_before_has_stored_and_shuts_it_out(store: Store, tmp_path: Path) -> None:
    trial = store / "trials" / "0003"
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for folder in (first, second, third):
        folder.mkdir()
    trial.claim("first", first)
    assert not list(first.iterdir())
    files = {name: checkpoint(first, name.encode(), name) for name in ("checkpoint.pt", "checkpoint-2.pt")}
    assert trial.put("first", files)
    trial.claim("second", second)
    assert {path.name: path.read_bytes() for path in second.iterdir()} == {name: name.encode() for name in files}
    # The first one lives on behind a cut link, and was in the middle of an upload.
    checkpoint(first, b"of the first")
    assert not trial.put("first", files)
    (trial / "first" / "checkpoint.pt").write(b"of the first")
    trial.claim("third", third)
    assert (third / "checkpoint.pt").read_bytes() == b"checkpoint.pt", "the second one stored nothing yet"


def test_what_a_trial_has_is_weighed_and_deleted_and_its_model_stays(store: Store, tmp_path: Path) -> None:
    assert store.sizes() == {}
    for number in range(2):
        trial = store / f"{number:04}"
        trial.claim("only", tmp_path)
        trial.put("only", {"checkpoint.pt": checkpoint(tmp_path, b"1" * 100)})
    assert store.sizes() == {"0000": 100, "0001": 100}
    trial.put("only", {"model.safetensors": checkpoint(tmp_path, b"weights", "model.safetensors")})
    trial.clear()
    assert store.sizes() == {"0000": 100}
    assert trial.fetch("model.safetensors", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == b"weights"
    assert not trial.fetch("checkpoint.pt", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    store.delete()
    assert store.sizes() == {}
    assert (trial / "attempt").read() is None


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"file://{tmp_path}/store")
    store.claim("only", tmp_path)
    store.put("only", {"checkpoint.pt": checkpoint(tmp_path, b"first")})

    def cut_off(self: object, source: str, target: str, **options: object) -> None:
        Path(target).write_bytes(b"sec")
        raise OSError("the link is cut")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.put_file", cut_off)
    with pytest.raises(StoreError, match="the link is cut"):
        store.put("only", {"checkpoint.pt": checkpoint(tmp_path, b"second")})
    assert (store / "only" / "checkpoint.pt").read() == b"first"
    store.clear()
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.name != "attempt"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("bogus://bucket/x", "Protocol not known: bogus"),
        ("gs://bucket/x", "Please install gcsfs"),
        ("file:///dev/null/x", "Not a directory"),
        pytest.param(
            "s3://nobody/x", "bucket does not exist", marks=[pytest.mark.cluster, pytest.mark.slow], id="no bucket"
        ),
    ],
)
def test_a_store_that_can_not_be_used_is_a_sentence(url: str, reason: str, request: pytest.FixtureRequest) -> None:
    if url.startswith("s3:"):
        request.getfixturevalue("s3")
    with pytest.raises(StoreError, match=rf"tune\.checkpoints: {url} can't be used: .*{reason}.*\."):
        Store(url).check()


@pytest.mark.cluster
@pytest.mark.slow
def test_a_store_without_permission_is_a_sentence(s3: Objects) -> None:
    with s3.disturbed("403"), pytest.raises(StoreError, match=f"s3://{BUCKET}/x can't be used: "):
        Store(f"s3://{BUCKET}/x").check()


def settled(waiting: Iterator[None]) -> None:
    for _ in waiting:
        pass


def test_uploads_run_beside_the_training_and_only_the_newest_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"memory://{tmp_path.name}")
    sent: list[bytes] = []
    begun, end = threading.Event(), threading.Event()
    put = Store.put

    def slow(self: Store, attempt: str, files: dict[str, Path]) -> bool:
        begun.set()
        end.wait(30)
        sent.append(files["checkpoint.pt"].read_bytes())
        return put(self, attempt, files)

    monkeypatch.setattr(Store, "put", slow)
    folder = tmp_path / "own"
    folder.mkdir()
    with StoredFolder(folder, store, "only") as stored:
        settled(stored.arrive())
        checkpoint(folder, b"1")
        stored.saved()
        assert begun.wait(30)
        for number in range(2, 10):
            checkpoint(folder, str(number).encode())
            stored.saved()
        assert not sent, "nothing has waited for an upload"
        assert len(list(folder.glob("upload-*"))) == 2, "the one that is sent, and the newest"
        end.set()
        settled(stored.leave())
        assert sent == [b"1", b"9"]
        assert [path.name for path in folder.iterdir()] == ["checkpoint.pt"]
    assert (store / "only" / "checkpoint.pt").read() == b"9"


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500", "503", "1s"])
def test_a_store_with_a_fault_is_tried_again_and_told_once(
    s3: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(stores, "PAUSES", lambda state: 0.1)
    address = f"s3://{BUCKET}/{tmp_path.name}"
    with place(tmp_path, address, None, Scratch()) as stored:
        settled(stored.arrive())
        told = []
        with s3.disturbed(fault):
            deadline = time.monotonic() + 90
            for number in range(1000):
                checkpoint(stored.folder, str(number).encode())
                stored.saved()
                time.sleep(0.01)
                if why := stored.trouble():
                    told.append(why)
                if (told and number > 20) or fault == "1s" or time.monotonic() > deadline:
                    break
                time.sleep(0.2)
        settled(stored.leave())
        assert len(told) == (fault != "1s")
        assert all(address in why for why in told)
    (path,) = [path for path in Store(address)._files(Store(address)._path) if path.endswith("checkpoint.pt")]
    assert Store(f"s3://{path}").read() == str(number).encode()


def test_a_store_that_stays_away_ends_the_wait_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PATIENCE_S", 0.5)
    with place(tmp_path, "file:///dev/null/x", None, Scratch()) as stored:
        with pytest.raises(StoreError, match=r"file:///dev/null/x/attempt can't be used"):
            list(stored.arrive())
        assert "can't be used" in (stored.trouble() or "")


def test_what_a_killed_worker_has_left_is_deleted_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ExitStack() as stack:
        alive = stack.enter_context(Scratch().folder())
        (root,) = tmp_path.iterdir()
        left = root / "worker-left" / "trial"
        left.mkdir(parents=True)
        (root / "worker-left" / "lock").touch()
        with Scratch().folder() as folder:
            assert folder.exists()
            assert alive.exists()
            assert not left.exists()
        assert not folder.exists()
