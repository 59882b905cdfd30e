"""Checkpoints of a study in a store."""

from pathlib import Path

import pytest

from pipeline import config
from pipeline.files import Project
from pipeline.search.engines.store import StoreError
from pipeline.search.studies import catalog
from pipeline.search.studies.checkpoints import store_of
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.resources import StudyResources
from pipeline.search.studies.spec import StudySpec


@pytest.mark.parametrize("by_set", [False, True])
def test_a_study_that_is_deleted_leaves_nothing_in_the_store_and_others_stay(tmp_path: Path, by_set: bool) -> None:
    project, address = Project(tmp_path, tmp_path), f"file://{tmp_path}/store"
    project.params.write_text(f"tune:\n  checkpoints: {'null' if by_set else address}\n")
    for name in ("first", "second"):
        with Ledger.open(project, name) as ledger:
            ledger.note(key=f"key-of-{name}", given=["train.epochs=3", f"tune.checkpoints={address}"] if by_set else [])
            store = store_of(address, ledger)
            assert store
            (store / "trials" / "0000" / "only" / "checkpoint.pt").write(b"checkpoint")
    catalog.delete(project, "first")
    left = sorted(path.relative_to(tmp_path / "store").parts[0] for path in (tmp_path / "store").rglob("*.pt"))
    assert left == ["second-key-of-second"]


def test_a_store_that_can_not_be_used_is_a_sentence_before_the_first_trial(project: Project) -> None:
    settings = config.load(project.params, {"tune.checkpoints": "file:///dev/null/x"})
    with Ledger.open(project, "main") as search:
        search.note(key="abc")
        with (
            pytest.raises(StoreError, match=r"tune\.checkpoints: file:///dev/null/x/main-abc can't be used: .*"),
            StudyResources(StudySpec.of(project, "main", settings), search),
        ):
            raise AssertionError
        assert not search.trials
