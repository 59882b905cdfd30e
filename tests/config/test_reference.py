import re

import pytest
from places import REPOSITORY

from pipeline import config
from pipeline.config import Scalar
from pipeline.config.__main__ import main
from pipeline.config.names import legal_names
from pipeline.config.reference import keys, reference


def test_the_reference_is_that_of_the_schema() -> None:
    assert (REPOSITORY / "docs" / "reference.md").read_text() == reference(), (
        "run: python -m pipeline.config --reference > docs/reference.md"
    )


@pytest.mark.parametrize(
    ("name", "default", "allowed", "comment"),
    [
        ("train.seed", "0", "whole number, 0 to 2147483647", "0 to 2147483647: seed of the initial weights, the order"),
        ("train.ema", "0.95", "number, at least 0, under 1", "at least 0, under 1: decay per step"),
        ("train.clip_norm", "null", "number, over 0, or null", "over 0: largest norm of all gradients"),
        ("train.folds", "null", "whole number, 2 to 20, or null", "2 to 20: cross-validation"),
        ("train.weight_decay", "0.1", "number, 0 to 1", "0 to 1: L2 penalty"),
        ("augment.flip", "alternating", "random, alternating", "random, or alternating"),
        ("tune.models", "finished", "finished, all, none", "finished, all, none: which trials"),
        ("data.url", "null", "text, or null", "Where to get it"),
        ("train.device", "auto", r"text, ^(auto|cpu|mps|cuda(:\d+)?)$", "auto (the first available"),
        ("tune.first", "[]", "list", "list: configurations to try"),
    ],
)
def test_a_key_is_described_by_its_schema(name: str, default: str, allowed: str, comment: str) -> None:
    key = keys()[name]
    assert (key.default, key.allowed) == (default, allowed)
    assert key.comment.startswith(comment)


def test_all_prints_every_key_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY / "examples" / "quick")
    assert main(["--all"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(legal_names())
    rows = {line.split()[0]: re.split("  +", line.strip()) for line in lines}
    values: dict[str, Scalar] = config.load(REPOSITORY / "examples" / "quick" / "params.yaml").values()
    assert values["train.epochs"] == 5
    assert rows["train.epochs"] == [
        *("train.epochs", "5", "10", "whole number, 1 to 10000", "Passes over the training images.")
    ]
