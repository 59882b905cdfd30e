import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipeline import config
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.search.studies.identity import check, identity
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.spec import StudySpec


def test_other_data_under_the_same_name_is_another_study(project: Project) -> None:
    settings = config.load(project.params)
    with Ledger.open(project, "main") as ledger:
        check(StudySpec.of(project, "main", settings), ledger, "")
        check(StudySpec.of(project, "main", settings), ledger, "")
        meta = json.loads(project.meta.read_text())
        project.meta.write_text(json.dumps(meta | {"digest": "sha256:other"}))
        with pytest.raises(PipelineError, match=r"data digest: it was sha256:[0-9a-f]+, it is sha256:other"):
            check(StudySpec.of(project, "main", settings), ledger, "")


def test_other_weights_to_begin_with_under_the_same_name_are_another_study(project: Project, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    values = {"model.family": "torchvision", "model.weights": str(weights)}
    settings = config.load(project.params).with_values(values)
    with Ledger.open(project, "main") as ledger:
        for content in ("one", "one", "another"):
            weights.write_text(content)
            spec = StudySpec.of(project, "main", settings)
            with (
                pytest.raises(PipelineError, match=r"content model.weights: it was [0-9a-f]+, it is [0-9a-f]+")
                if content == "another"
                else nullcontext()
            ):
                check(spec, ledger, "")


def test_a_removed_key_matters_only_if_its_recorded_value_had_an_effect(project: Project) -> None:
    spec = StudySpec.of(project, "main", config.load(project.params))
    values = identity(spec)["values"]
    with Ledger.open(project, "main") as ledger:
        check(spec, ledger, "")
        ledger.note(values=values | {"train.hard_share": 1.0, "model.halving": "late"})
        check(spec, ledger, "")
        ledger.note(values=values | {"train.hard_share": 0.5})
        with pytest.raises(PipelineError, match=r"values train\.hard_share: it was 0\.5, it is nothing\nset it back"):
            check(spec, ledger, "set it back")


def test_a_study_that_was_begun_with_a_full_file_resumes_with_a_short_one(project: Project) -> None:
    short = config.load(project.params)
    config.fill(project.params)
    assert len(config.read_yaml(project.params)["train"]) == len(config.Train.model_fields)
    with Ledger.open(project, "main") as ledger:
        check(StudySpec.of(project, "main", config.load(project.params)), ledger, "")
        check(StudySpec.of(project, "main", short), ledger, "")


def test_a_new_key_matters_only_if_its_value_is_not_the_default(project: Project) -> None:
    settings = config.load(project.params)
    spec, other = (
        StudySpec.of(project, "main", settings.with_values({"model.name": name})) for name in ("resnet18", "swin_t")
    )
    values = identity(spec)["values"]
    with Ledger.open(project, "main") as ledger:
        check(spec, ledger, "")
        ledger.note(values={key: value for key, value in values.items() if key != "model.name"})
        check(spec, ledger, "")
        with pytest.raises(PipelineError, match=r"values model\.name: it was resnet18, it is swin_t"):
            check(other, ledger, "")


def test_a_study_may_resume_on_another_machine(project: Project) -> None:
    settings = config.load(project.params)
    with Ledger.open(project, "main") as ledger:
        check(StudySpec.of(project, "main", settings), ledger, "")
        elsewhere = settings.with_values({"train.device": "cpu", "train.threads": 3})
        check(StudySpec.of(project, "main", elsewhere), ledger, "")
