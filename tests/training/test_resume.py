import shutil
from pathlib import Path

import pytest
from places import REPOSITORY

from pipeline import config, provenance
from pipeline.config import Config, Scalar
from pipeline.provenance import code_digest
from pipeline.records import Meta
from pipeline.training.resume import fingerprint


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the code, to be edited."""
    return shutil.copytree(REPOSITORY / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("*.pyc"))


def edit(source: Path) -> None:
    source.write_text(source.read_text() + "\nEDITED = True\n")


@pytest.mark.parametrize(
    ("edited", "counts"),
    [
        ("training/ema.py", True),
        ("networks/speed.py", True),
        ("config/families.py", True),
        ("batches/augment.py", True),
        ("train.py", True),
        ("tracking/outbox.py", False),
        ("reporting/page.py", False),
        ("cli.py", False),
    ],
)
def test_editing_what_decides_the_numbers_makes_another_training_and_editing_the_tracker_does_not(
    settings: Config, meta: Meta, package: Path, monkeypatch: pytest.MonkeyPatch, edited: str, counts: bool
) -> None:
    monkeypatch.setattr(provenance, "code_digest", lambda stage: code_digest(stage, package))
    before = fingerprint(settings, meta)
    edit(package / edited)
    assert (fingerprint(settings, meta) != before) == counts


def test_dvc_trains_again_after_the_same_edits() -> None:
    deps = config.read_yaml(REPOSITORY / "dvc.yaml")["stages"]["train"]["deps"]
    assert "pipeline/training" in deps
    assert not [name for name in deps if name.startswith(("pipeline/tracking", "pipeline/reporting"))]


def test_compiled_code_does_not_count(settings: Config, meta: Meta, package: Path) -> None:
    before = code_digest("train", package)
    (package / "training" / "__pycache__").mkdir(exist_ok=True)
    (package / "training" / "__pycache__" / "ema.cpython-311.pyc").write_bytes(b"compiled")
    assert code_digest("train", package) == before


@pytest.mark.parametrize(
    ("key", "value", "counts"),
    [
        ("model.width", 5, True),
        ("augment.erasing", 0.5, True),
        ("train.seed", 7, True),
        ("train.threads", 3, True),
        ("train.precision", "fp32", True),
        ("evaluate.batch_size", 7, False),
        ("data.test_seed", 7, False),
        ("tune.trials", 7, False),
    ],
)
def test_the_fingerprint_has_all_values_that_decide_the_numbers_of_a_training(
    settings: Config, meta: Meta, key: str, value: Scalar, counts: bool
) -> None:
    changed = settings.with_values({key: value})
    assert changed != settings
    assert (fingerprint(changed, meta) != fingerprint(settings, meta)) == counts


def test_the_fingerprint_covers_the_images_and_the_content_of_the_file_of_weights(
    settings: Config, meta: Meta, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pth"
    pretrained = settings.with_values({"model.family": "torchvision", "model.weights": str(weights)})
    found = []
    for content in ("one", "one", "another"):
        weights.write_text(content)
        found.append(fingerprint(pretrained, meta))
    assert found[0] == found[1] != found[2]
    others = Meta(**{**vars(meta), "digest": "sha256:1"})
    assert fingerprint(settings, others) != fingerprint(settings, meta)
