"""What the text of a user's file says about its function, without running it."""

from pathlib import Path

import pytest

from pipeline import config
from pipeline.errors import ConfigError

HEAD = "raise SystemExit('this file is read, not run')\nfrom typing import Literal\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(code: str, model: str = "{}", more: str = "") -> config.Config:
    Path("nets.py").write_text(HEAD + code)
    Path("params.yaml").write_text(f'model: {{family: "nets:build", extra: {model}}}\n{more}')
    settings = config.load(Path("params.yaml"))
    config.check_search(settings)
    return settings


@pytest.mark.usefixtures("project")
def test_parameters_are_keys_with_types_and_defaults_and_can_be_searched_by_dotted_name() -> None:
    code = "def build(model, meta, heads: int, kind: Literal['a', 'b'] = 'a', *, r: float | None = None, bias=True): 0"
    space = "space: {model.extra.heads: {low: 1, high: 8, log: true}, model.extra.kind: [a, b]}"
    settings = loaded(code, "{heads: 4}", space)
    extra = {name: value for name, value in settings.values().items() if name.startswith("model.extra")}
    assert extra == {
        "model.extra.heads": 4,
        "model.extra.kind": "a",
        "model.extra.r": None,
        "model.extra.bias": True,
    }
    assert config.decides_training("model.extra.heads")
    changed = settings.with_values({"model.extra.heads": 8, "model.extra.r": 0.5})
    assert (changed.model.extra["heads"], changed.model.extra["r"]) == (8, 0.5)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("code", "extra", "more", "sentence"),
    [
        ("def build(model, meta, heads: int): ...", "{}", "", "model.extra.heads is missing"),
        (
            "def build(model, meta, heads: int = 4): ...",
            "{heads: four}",
            "",
            'model.extra.heads must be a whole number, got "four"',
        ),
        (
            "def build(model, meta, heads: int = 4): ...",
            "{head: 4}",
            "",
            "model.extra.head is not a key; did you mean model.extra.heads?",
        ),
        (
            "def build(model, meta, heads: int = 4): ...",
            "{}",
            "space: {model.extra.heads: [2, x]}",
            (
                "space.model.extra.heads holds a value that model.extra.heads can't have: model.extra.heads must be a "
                'whole number, got "x"'
            ),
        ),
        (
            "def build(model, meta, heads: int = 4): ...",
            "{}",
            "space: {model.extra.head: [2, 4]}",
            "space.model.extra.head is not a key; did you mean space.model.extra.heads?",
        ),
        (
            "def make(model, meta): ...",
            "{}",
            "space: {model.extra.heads: [2, 4]}",
            (
                "model.family nets:build: FILE: there is no function build (it has make): write "
                "`def build(model, meta):` there"
            ),
        ),
        (
            "def build(meta): ...",
            "{}",
            "",
            "model.family nets:build: FILE, line 3: build must take model and meta first: `def build(model, meta):`",
        ),
        (
            "def build(model, meta, size: list = ()): ...",
            "{}",
            "",
            (
                "model.family nets:build: FILE, line 3: the type of size must be int, float, bool, str, one of these | "
                "None, or a Literal"
            ),
        ),
        (
            "def build(",
            "{}",
            "",
            "model.family nets:build: FILE, line 3: this is not Python ('(' was never closed): correct it",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(code: str, extra: str, more: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(code, extra, more)
    expected = f"one thing is wrong in params.yaml:\n  {sentence.replace('FILE', str(Path.cwd() / 'nets.py'))}"
    assert str(caught.value) == expected


@pytest.mark.usefixtures("project")
def test_a_missing_file_is_named_and_other_text_lists_the_families() -> None:
    Path("params.yaml").write_text('model: {family: "mine.nets:build"}')
    with pytest.raises(ConfigError, match=r"there is no file .*/mine/nets\.py: write the network there"):
        config.load(Path("params.yaml"))
    with pytest.raises(ConfigError, match=r"model\.family must be resnet, .*, or a function of yours, as nets:build"):
        config.load(Path("params.yaml"), {"model.family": "resnet20"})


def test_all_files_of_a_package_are_its_code_and_a_file_alone_is_its_own(project: Path) -> None:
    package = project / "mine"
    package.mkdir()
    for name in ("__init__", "nets", "blocks"):
        (package / f"{name}.py").write_text("")
    (project / "nets.py").write_text("")
    found = {family: [config.code_digest(family)] for family in ("mine.nets:build", "nets:build")}
    (package / "blocks.py").write_text("changed = True")
    for family, digests in found.items():
        digests.append(config.code_digest(family))
    assert found["mine.nets:build"][0] != found["mine.nets:build"][1]
    assert found["nets:build"][0] == found["nets:build"][1]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("{family: nets:build}", "{family: nets:build, extra: {heads: 8, kind: b}}"),
        ("{family: nets:build, extra: {heads: 4}}", "{family: nets:build, extra: {heads: 8, kind: b}}"),
        (
            "\n  family: nets:build\n  extra:\n    heads: 4   # of them\n  dropout: 0.5",
            "\n  family: nets:build\n  extra:\n    heads: 8   # of them\n    kind: b\n  dropout: 0.5",
        ),
    ],
)
def test_values_of_a_search_are_written_into_the_file(model: str, expected: str) -> None:
    Path("nets.py").write_text(f"{HEAD}def build(model, meta, heads: int = 4, kind: Literal['a', 'b'] = 'a'): ...")
    path = Path("params.yaml")
    path.write_text(f"model: {model}\n")
    config.write_values(path, {"model.extra.heads": 8, "model.extra.kind": "b"})
    assert path.read_text().replace('"', "") == f"model: {expected}\n"
    assert dict(config.load(path).model.extra) == {"heads": 8, "kind": "b"}
