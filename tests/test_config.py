import json
import re
from pathlib import Path

import pytest
from places import REPOSITORY

from pipeline import config
from pipeline.errors import ConfigError

SHIPPED = REPOSITORY / "params.yaml"


def write(folder: Path, *changes: tuple[str, str]) -> Path:
    """The shipped file with some text replaced."""
    text = SHIPPED.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def errors(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", ["params.yaml", "examples/digits/params.yaml"])
def test_the_shipped_files_are_sound_and_every_value_has_a_comment(path: str) -> None:
    names = config.load(REPOSITORY / path).values()
    lines = [line for line in (REPOSITORY / path).read_text().splitlines() if re.match(r"  \w+:", line)]
    assert len(lines) == len(names)
    assert all(re.search(r" # .", line) for line in lines)


def test_values_have_dotted_names_in_the_order_of_the_file() -> None:
    values = config.load(SHIPPED).values()
    assert list(values)[:2] == ["data.name", "data.url"]
    assert values["train.learning_rate"] == 0.2


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("epochs: 20", "epochs: 0", "train.epochs must be at least 1, got 0"),
        ("epochs: 20", "epochs: 2.5", "train.epochs must be a whole number, got 2.5"),
        ("epochs: 20", "epochs: true", "train.epochs must be a whole number, got true"),
        ("learning_rate: 0.2", "learning_rate: '0.2'", 'train.learning_rate must be a number, got "0.2"'),
        ("learning_rate: 0.2", "learning_rate: .nan", "train.learning_rate must be a finite number, got NaN"),
        ("momentum: 0.9", "momentum: 1", "train.momentum must be under 1.0, got 1"),
        ("optimizer: sgd", "optimizer: sdg", 'train.optimizer must be sgd, adam or adamw, got "sdg"'),
        ("depth: 20", "depth: 21", "model.depth must be 6n+2 for a resnet (nearest: 20 and 26), got 21"),
        ("device: auto", "device: gpu", 'train.device must match ^(auto|cpu|mps|cuda(:\\d+)?)$, got "gpu"'),
        ("epochs: 20", "epoch: 20", "train.epoch is not a key; did you mean train.epochs?"),
        ("width: 16 ", "epochs: 16 ", "model.epochs is not a key; did you mean train.epochs?"),
        ("evaluate:", "evaluation:", "evaluation is not a key; did you mean evaluate?"),
        ("name: cifar10", "name: folder", "data.url must name a directory or an archive when data.name is folder"),
        ("image_size: null", "image_size: 64", "data.image_size must be null unless data.name is folder"),
    ],
)
def test_a_bad_value_gets_a_sentence_with_its_name_value_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert any(sentence in line for line in errors(write(tmp_path, (old, new))))


def test_all_errors_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    lines = errors(write(tmp_path, ("epochs: 20", "epochs: 0"), ("width: 16", "width: 0"), ("seed: 0", "sed: 0")))
    assert lines[0].startswith("4 things are wrong in ")
    assert len(lines) == 5


def test_a_missing_key_is_an_error_since_a_hidden_default_could_change_a_result(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(re.sub(r"  momentum:.*\n", "", path.read_text()))
    assert errors(path)[1].strip() == "train.momentum is missing"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train: {epochs: 1\n", "is not valid YAML"),
        ("train: {epochs: 1, epochs: 2}\n", 'found duplicate key "epochs"'),
        ("- 1\n", "must hold the sections data, model"),
        ("", "must hold the sections data, model"),
    ],
)
def test_a_file_that_is_no_params_file_is_told_as_such(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        config.load(path)


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run this in the folder of a project"):
        config.load(tmp_path / "params.yaml")


def test_overrides_are_checked_like_the_file() -> None:
    assert config.load(SHIPPED, {"train.epochs": 3}).train.epochs == 3
    with pytest.raises(ConfigError, match=r"train\.epochs must be at least 1, got 0"):
        config.load(SHIPPED, {"train.epochs": 0})
    with pytest.raises(ConfigError, match=re.escape("train.epoch is not a key; did you mean train.epochs?")):
        config.load(SHIPPED, {"train.epoch": 3})


def test_values_can_be_replaced_in_a_copy_and_nowhere_else() -> None:
    shipped = config.load(SHIPPED)
    assert shipped.with_values({"model.depth": 32}).model.depth == 32
    assert shipped.model.depth == 20
    with pytest.raises(ValueError, match="frozen"):
        shipped.model.depth = 32  # type: ignore[misc]


def test_the_schema_in_the_repository_is_the_one_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main(["--schema"]) == 0
    assert capsys.readouterr().out == (REPOSITORY / "params.schema.json").read_text()


def test_the_schema_describes_every_key() -> None:
    content = json.loads(config.schema())
    for section in content["$defs"].values():
        assert all(key["description"] for key in section["properties"].values())


def test_the_command_checks_the_file_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ("epochs: 20", "epochs: 0"))
    monkeypatch.chdir(tmp_path)
    assert config.main([]) == 1
    assert "train.epochs must be at least 1, got 0" in capsys.readouterr().err
