"""Holds the house beside the import contracts of pyproject.toml: stages, their code, and what documents say of it."""

import ast
import functools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grimp
import pytest
from places import REPOSITORY

from pipeline import config
from pipeline.provenance import CODE

PACKAGE = REPOSITORY / "pipeline"
MODULES = {
    ".".join(("pipeline", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
STAGES = ("config", "download", "train", "evaluate", "report")

# What any stage may use beside its code: it records and shows results, and decides none of their numbers; or it makes
# the values of params.yaml, which DVC sees in files.
BESIDE = ("cli", "config", "datasets.fingerprint", "errors", "exporting", "files", "outcome", "provenance", "tracking")


@functools.cache
def imports() -> grimp.ImportGraph:
    """Who imports whom inside the project, in functions too, but not for type checking alone."""
    return grimp.build_graph("pipeline", exclude_type_checking_imports=True)


def is_inside(module: str, names: Iterable[str]) -> bool:
    """Whether a module is one of `names`, directories and files below pipeline/, or inside of one."""
    return any(f"{module}.".startswith(f"pipeline.{name.removesuffix('.py').replace('/', '.')}.") for name in names)


def stages(project: Path) -> dict[str, Any]:
    content: dict[str, Any] = config.read_yaml(project / "dvc.yaml")["stages"]
    return content


def test_only_evaluation_and_download_know_where_the_test_set_lies() -> None:
    users = {module for module, path in MODULES.items() if "test_data" in path.read_text()}
    assert users == {"pipeline.files", "pipeline.datasets.arrays", "pipeline.evaluation.test_set"}


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_and_the_fingerprint_of_a_training_have_one_list_of_code(stage: str) -> None:
    deps = stages(REPOSITORY)[stage]["deps"]
    listed = [name.removeprefix("pipeline/") for name in deps if name.startswith("pipeline/")]
    assert listed == list(CODE[stage])
    assert all((PACKAGE / name).exists() for name in listed)


@pytest.mark.parametrize("stage", STAGES)
def test_what_the_code_of_a_stage_imports_is_on_its_list(stage: str) -> None:
    code = {module for module in MODULES if is_inside(module, CODE[stage])}
    imported = {other for module in code for other in imports().find_modules_directly_imported_by(module)}
    assert not {other for other in imported - code - {"pipeline"} if not is_inside(other, BESIDE)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_its_module_and_the_example_has_the_same_stages(stage: str) -> None:
    root, example = (stages(project)[stage] for project in (REPOSITORY, REPOSITORY / "examples" / "digits"))
    assert root["cmd"] == example["cmd"]
    assert root["cmd"].removesuffix(" --resolve") == f"python -m pipeline.{stage}"
    without_code = [name for name in root.get("deps", []) if not name.startswith("pipeline/")]
    assert without_code == example.get("deps", [])
    for key in ("outs", "metrics"):
        assert root.get(key) == example.get(key)


COMMANDS = [
    *(*STAGES, "tracking", "tune", "study", "ensemble"),
    *("reproduce", "lineage", "predict", "export", "doctor"),
]
HEAVY = {"torch", "mlflow", "optuna", "sklearn", "scipy", "matplotlib", "requests", "PIL"}
SHOW_HELP = """
import contextlib, io, json, runpy, sys

found = {}
for command in sys.argv[1:]:
    sys.argv, code, text = [command, "--help"], None, io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            runpy.run_module(f"pipeline.{command}", run_name="__main__", alter_sys=True)
        except SystemExit as exit:
            code = exit.code
    found[command] = code, text.getvalue(), sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, tuple[int, str, list[str]]]:
    """Of each command that is asked for --help: its exit code, what it shows, and what has been imported by then.

    All in one process, as each would take its time to start; what one imports counts for those after it too.
    """
    done = subprocess.run([sys.executable, "-c", SHOW_HELP, *COMMANDS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[int, str, list[str]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick_as_no_heavy_library_is_imported_for_it(
    helps: dict[str, tuple[int, str, list[str]]], command: str
) -> None:
    code, text, imported = helps[command]
    assert not HEAVY & set(imported)
    assert code == 0
    assert f"python -m pipeline.{command}" in text


def test_the_map_in_the_package_names_every_module_and_holds_nothing_else() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert [type(node) for node in tree.body] == [ast.Expr]
    named = re.findall(r"^    (\w+)(?:\.py|/)", ast.get_docstring(tree, clean=False) or "", flags=re.MULTILINE)
    assert sorted(named) == sorted({module.split(".")[1] for module in MODULES if module != "pipeline"})


DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_of_the_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_commands_of_the_documents_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets
    assert {f"pipeline.{name}" for name in re.findall(r"python -m pipeline\.(\w+)", text)} <= set(MODULES)
    for script in re.findall(r"python (benchmarks/\S+\.py)", text):
        assert (REPOSITORY / script).is_file(), script


def test_the_readme_is_for_a_stranger_and_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) < 200


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make check" in (REPOSITORY / ".ci" / "run").read_text()
    assert "make check" in (REPOSITORY / "README.md").read_text()


def test_no_result_of_ours_is_shipped() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    names = tracked.splitlines()
    assert not [name for name in names if re.search(r"dvc\.lock$|metrics\.json$|\.db$|(^|/)(data|results)/", name)]
    assert [name for name in names if name.startswith("mlruns/")] == ["mlruns/.gitignore"]
    assert all((REPOSITORY / name).stat().st_size < 2**20 for name in names if (REPOSITORY / name).exists())


def parts(document: Path) -> list[tuple[str, list[str], Counter[str], set[str]]]:
    """By heading: its level, the code blocks below it, its commands and names in the text, and where its links lead."""
    found, level = [], ""
    for number, part in enumerate(re.split(r"^(#+) .*$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)):
        if number % 2:
            level = part
            continue
        text = re.sub(r"^```.*?^```$", "", part, flags=re.MULTILINE | re.DOTALL)
        code = [" ".join(one.split()) for one in re.findall(r"`([^`]+)`", text)]
        links = {link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("README")}
        found.append((level, re.findall(r"^```.*?^```$", part, flags=re.MULTILINE | re.DOTALL), Counter(code), links))
    return found


def test_the_korean_readme_keeps_step_with_the_english_one() -> None:
    english, korean = (parts(REPOSITORY / name) for name in ("README.md", "README.ko.md"))
    assert [level for level, *_ in korean] == [level for level, *_ in english]
    for of_korean, of_english in zip(korean, english, strict=True):
        assert of_korean == of_english
    assert "](README.ko.md)" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "](README.md)" in (REPOSITORY / "README.ko.md").read_text(encoding="utf-8")
