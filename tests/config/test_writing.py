"""Keys that a file lacks are written into it; test_config.py has those that it names."""

from pathlib import Path

import pytest
from places import REPOSITORY

from pipeline import config
from pipeline.config import Config, Scalar
from pipeline.config.__main__ import main
from pipeline.config.reference import keys
from pipeline.errors import ConfigError

SHORT = """# A short file

data:
  name: digits  # ships with scikit-learn
# of train
train:
    # three passes
    epochs: 3  # enough

# of the space
space:
  train.ema: [0.9, 0.95]
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "params.yaml"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_keys_that_a_file_lacks_are_added_where_the_schema_has_them_and_nothing_else_changes(
    path: Path, end: str
) -> None:
    path.write_bytes(SHORT.replace("\n", end).encode())
    config.write_values(
        path, {"train.epochs": 5, "train.ema": 0.9, "train.seed": 7, "model.width": 64, "data.test_seed": 1}
    )
    assert path.read_bytes().decode().split(end) == [
        "# A short file",
        "",
        "data:",
        "  name: digits  # ships with scikit-learn",
        "  test_seed: 1             # 0 to 2147483647: seed of that split",
        "",
        "model:",
        f"  width: 64                # {keys()['model.width'].comment}",
        "# of train",
        "train:",
        f"    seed: 7                # {keys()['train.seed'].comment}",
        "    # three passes",
        "    epochs: 5  # enough",
        f"    # {keys()['train.ema'].comment.removesuffix(' average')}",
        "    # average",
        "    ema: 0.9",
        *SHORT.split("\n")[8:],
    ]


EPOCHS, RETRIES = (keys()[name].comment for name in ("train.epochs", "tune.retries"))


@pytest.mark.parametrize(
    ("text", "values", "changed"),
    [
        ("train: {epochs: 3} # x\n", {"train.ema": 0.9}, "train: {epochs: 3, ema: 0.9} # x\n"),
        ("train: {}\n", {"train.ema": 0.9, "train.seed": 1}, "train: {seed: 1, ema: 0.9}\n"),
        ("train:", {"train.epochs": 3}, f"train:\n  epochs: 3                # {EPOCHS}"),
        ("train:\n  epochs:\n", {"train.epochs": 3}, "train:\n  epochs: 3\n"),
        (
            "train:\n  seed:\n  threads: 2\n",
            {"train.seed": 3, "train.epochs": 4},
            f"train:\n  seed: 3\n  epochs: 4                # {EPOCHS}\n  threads: 2\n",
        ),
        (
            "tune:\n  first:\n  - {model.width: 64}\n  # last\n",
            {"tune.retries": 3},
            f"tune:\n  first:\n  - {{model.width: 64}}\n  retries: 3               # {RETRIES}\n  # last\n",
        ),
    ],
)
def test_a_key_is_added_to_a_section_of_any_shape(
    path: Path, text: str, values: dict[str, Scalar], changed: str
) -> None:
    path.write_text(text)
    config.write_values(path, values)
    assert path.read_text() == changed


@pytest.mark.parametrize("text", ["{}\n", "train: null\n", "augment: &a {}\ntrain: *a\n"])
def test_a_file_that_a_program_can_t_add_to_is_left_to_a_person(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"at train\.seed: change it by hand"):
        config.write_values(path, {"train.seed": 3})
    assert path.read_text() == text
    assert [file.name for file in path.parent.iterdir()] == ["params.yaml"]


def test_filled_sections_have_all_keys_in_the_order_of_the_schema_and_mean_the_same(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(SHORT)
    before = config.load(path)
    assert main(["--fill", "train"]) == 0
    assert f"wrote {len(config.Train.model_fields) - 1} keys into params.yaml" in capsys.readouterr().out
    content = config.read_yaml(path)
    assert list(content["train"]) == list(config.Train.model_fields)
    assert list(content["data"]) == ["name"]
    assert main(["--fill"]) == 0
    assert {section: list(keys) for section, keys in config.read_yaml(path).items() if section != "space"} == {
        section: list(keys) for section, keys in Config().model_dump(exclude={"space", "study"}).items()
    }
    assert config.load(path) == before
    assert all(line in path.read_text().splitlines() for line in SHORT.splitlines())
    assert max(map(len, path.read_text().splitlines())) <= 120
    assert config.fill(path) == []
    assert main(["--fill", "trian"]) == 1
    assert "name one of data, model, augment, train, evaluate, report, tune" in capsys.readouterr().err


def test_a_value_is_set_from_the_command_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(SHORT)
    assert main(["--set", "train.ema=0.95", "--set", "train.epochs=9"]) == 0
    assert (config.load(path).train.ema, config.load(path).train.epochs) == (0.95, 9)
    text = path.read_text().replace("epochs: 9", "epochs: 0").replace("ema: 0.95", "ema: 0.7")
    path.write_text(text)  # 0 is wrong; 0.7 is outside the space, where a single training may be
    assert main(["--set", "train.epochs=8"]) == 0
    before = path.read_text()
    for wrong, sentence in {
        "train.em=0.95": "did you mean train.ema?",
        "train.ema": "--set takes NAME=VALUE",
        "train.ema=0.5": "train.ema is 0.5, outside space.train.ema",
        "space.train.ema=[0.5]": "space.train.ema is written by hand",
    }.items():
        assert main(["--set", wrong]) == 1
        assert sentence in capsys.readouterr().err
    assert path.read_text() == before


def test_the_shipped_file_keeps_its_lines_when_it_is_filled(path: Path) -> None:
    text = (REPOSITORY / "params.yaml").read_text()
    path.write_text(text)
    config.fill(path)
    lines = iter(path.read_text().splitlines())
    assert all(line in lines for line in text.splitlines())
