import pytest

from pipeline.audit import recorded
from pipeline.errors import PipelineError

PARAMS = {
    "data.name": "digits",
    "data.url": "file:///gone/a.zip",
    "model.family": "resnet",
    "model.depth": "14",
    "train.seed": "3",
    "train.learning_rate": "1e-05",
    "train.folds": "null",
}
TAGS = dict.fromkeys(recorded.NEEDED, "x")


def test_values_are_read_as_params_yaml_would_have_them() -> None:
    values = recorded.values(PARAMS, TAGS).settings.values()
    assert values["train.learning_rate"] == 1e-05
    assert values["train.folds"] is None
    assert values["model.depth"] == 14
    assert values["data.url"] is None, "the images are those of this project"


@pytest.mark.parametrize("text", ["a: b", "[1]", "{", "- x"])
def test_a_text_that_yaml_reads_otherwise_stays_a_text(text: str) -> None:
    assert recorded.typed(text, "model.weights") == text


def test_what_an_older_version_did_not_record_is_said() -> None:
    lacking = recorded.values(PARAMS | {"train.magic": "2"}, {}).lacking
    assert "code.train, so the code that trained can't be compared" in lacking
    assert any(sentence.startswith("train.momentum; its default is taken") for sentence in lacking)
    assert "train.magic = 2 is a key that this version does not have" in lacking
    assert not any(sentence.startswith(("train.seed", "data.")) and "default" in sentence for sentence in lacking)


def test_a_run_that_is_no_training_is_refused() -> None:
    with pytest.raises(PipelineError, match="That run is no training"):
        recorded.values({"space.train.learning_rate": "{}"}, TAGS)
