"""A network of the user's, in a file of a project."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import REPOSITORY

from pipeline import config, networks
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.records import Meta
from pipeline.training.calibration import divide_logits

META = Meta("noise", ("a", "b", "c"), (1, 8, 8), (0.5,), (0.25,), {}, "", "")
EXAMPLE = re.search(r"```python\n(.*?)```", (REPOSITORY / "docs" / "networks.md").read_text(encoding="utf-8"), re.S)
assert EXAMPLE


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of docs/networks.md, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    path = tmp_path / "nets.py"
    path.write_text(EXAMPLE[1])
    (tmp_path / "params.yaml").write_text('model: {family: "nets:build", extra: {channels: 4}}\n')
    return path


def loaded(**values: config.Scalar) -> Config:
    return config.load(Path("params.yaml"), {f"model.extra.{key}": value for key, value in values.items()})


@pytest.mark.usefixtures("code")
def test_the_documented_network_has_its_own_keys_and_a_last_layer_and_can_be_calibrated() -> None:
    settings = loaded(pool=1)
    assert settings.values()["model.extra.channels"] == 4
    assert settings.model.in_use() == {"family": "nets:build", "extra.channels": 4, "extra.pool": 1}
    assert settings.model.label == "nets:build"
    assert len({settings.model, loaded(pool=1).model, loaded().model}) == 2, "equal networks are one key of a cache"
    first, other, another = (networks.build(settings.model, META, seed) for seed in (1, 1, 2))
    assert [tuple(weight.shape) for weight in first.head] == [(3, 4), (3,)]
    assert torch.equal(first.head[0], other.head[0])
    assert not torch.equal(first.head[0], another.head[0])
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        before = first.eval()(images)
        divide_logits(first, 3.0)
        torch.testing.assert_close(first(images), before / 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def build(model, meta): return [1]", r"nets\.py: it returned a list, not a torch.nn.Module: return the"),
        (
            "from torch import nn\ndef build(model, meta): return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))",
            r"for 2 images of 1 x 8 x 8 its network gave a tensor of the shape \(2, 5\), not logits of .* \(2, 3\)",
        ),
    ],
)
def test_what_is_no_network_for_the_data_is_one_sentence(code: Path, text: str, sentence: str) -> None:
    code.write_text(text)
    Path("params.yaml").write_text('model: {family: "nets:build"}\n')
    with pytest.raises(ConfigError, match=f"model.family nets:build: .*{sentence}"):
        networks.build(loaded().model, META, 0)


def test_an_exception_inside_keeps_its_traceback_and_names_the_file(code: Path) -> None:
    code.write_text("def build(model, meta):\n    return 1 / 0\n")
    Path("params.yaml").write_text('model: {family: "nets:build"}\n')
    with pytest.raises(ZeroDivisionError) as caught:
        networks.build(loaded().model, META, 0)
    assert caught.value.__notes__ == [f"This came out of {code}, which model.family names: nets:build"]
    assert caught.traceback[-1].path == code


def test_a_file_with_the_name_of_another_module_is_reported(code: Path) -> None:
    code.rename("json.py")
    Path("params.yaml").write_text('model: {family: "json:build"}\n')
    with pytest.raises(ConfigError, match=r"json\.py: the module json is .* here: give the file another"):
        networks.build(loaded().model, META, 0)


@pytest.mark.slow
def test_the_documented_network_is_trained_evaluated_searched_and_its_code_is_part_of_all_that(project: Path) -> None:
    root = Path.cwd()
    (root / "nets.py").write_text(EXAMPLE[1])
    (root / "params.yaml").write_text(
        'data: {name: digits}\nmodel: {family: "nets:build", extra: {channels: 8}}\n'
        "augment: {policy: none, small_side: 1.0}\n"
        "train: {epochs: 2, batch_size: 64, device: cpu, threads: 1}\n"
        "space: {model.extra.channels: [4, 8], train.learning_rate: {low: 0.05, high: 0.2}}\n"
        "tune: {confirm: 1, confirm_seeds: 1, workers: 1}\n"
    )

    def run(stage: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"pipeline.{stage}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=240)

    trained = run("train")
    assert trained.returncode == 0, trained.stderr
    assert "train in dvc.yaml does not depend on nets.py" in trained.stderr
    searched = run("tune", "--trials", "2", "--apply")
    assert searched.returncode == 0, searched.stderr
    assert len(list(root.glob("mlruns/*/*/artifacts/code/nets.py"))) == 2  # of the training and of the study
    assert run("train").returncode == 0
    assert run("evaluate").returncode == 0
    combined = run("ensemble", "--top", "2")
    assert combined.returncode == 0, combined.stderr
    (root / "nets.py").write_text(EXAMPLE[1].replace("nn.ReLU", "nn.GELU"))
    for stage, words, sentence in (
        ("evaluate", (), "the code of nets:build: it was"),
        ("tune", ("--trials", "3"), "content nets:build: it was"),
        ("ensemble", ("--top", "2"), "The code of nets:build has changed since the study main trained with it"),
    ):
        changed = run(stage, *words)
        assert changed.returncode == 1
        assert sentence in changed.stderr
