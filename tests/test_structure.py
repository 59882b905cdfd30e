"""Holds the house: which room touches which tool, which arrows there are, what the documents say of the code."""

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import REPOSITORY

from pipeline import config

PACKAGE = REPOSITORY / "pipeline"
MODULES = {
    ".".join(("pipeline", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
STAGES = ("download", "train", "evaluate", "report")

# The only rooms that touch a tool; a room is a module or a package.
ROOMS = {
    "mlflow": {"tracking"},
    "sklearn": {"evaluate", "sources.digits"},
    "scipy": {"evaluate", "search.space", "search.freeze_thaw", "search.curve_process"},
    "matplotlib": {"plots", "study_plots", "degradation_plot"},
    "jinja2": {"report"},
    "pydantic": {"config"},
    "ruamel": {"config"},
    "requests": {"sources", "tracking.failures"},
    "tenacity": {"sources"},
    "tarfile": {"sources"},
    "zipfile": {"sources"},
    "torch": {
        *("augment", "auto_augment", "data", "device", "machine", "models", "train"),
        *("training", "average", "checkpoint", "focus", "folds", "optimizers", "schedules"),
        *("tracking", "exporter", "search.worker", "soup"),
    },
    "safetensors": {"models"},
    "torchvision": set(),
    "optuna": {"search"},
    "ray": set(),
    "dvc": set(),
}

# Arrows go down only: a room may import rooms of its own layer and of those after it.
LAYERS = [
    {"tune", "study", "ensemble"},
    {"mixtures"},
    {"download", "train", "evaluate", "report"},
    {"search"},
    {"sources", "tracking", "exporter", "provenance", "results", "soup"}
    | {"plots", "study_plots", "degradation_plot", "confusion", "display"},
    {"folds"},
    {"training"},
    {"models", "data", "augment", "auto_augment", "device"}
    | {"average", "checkpoint", "focus", "optimizers", "schedules"},
    {"machine", "meta", "epoch"},
    {"config"},
    {"command"},
    {"files", "errors"},
]


@functools.cache
def imports(path: Path, *, type_checking: bool = True) -> tuple[str, ...]:
    """Full names of what a file imports, in functions too: modules, and names of modules that may be modules."""

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not type_checking:
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    return tuple(visit(ast.parse(path.read_text(encoding="utf-8"))))


def imported_modules(module: str, *, type_checking: bool = True) -> set[str]:
    """The project's own modules that `module` imports; a package comes with its __init__."""
    found = {name for name in imports(MODULES[module], type_checking=type_checking) if name in MODULES}
    parents = {".".join(name.split(".")[:depth]) for name in found for depth in range(2, name.count(".") + 1)}
    return (found | parents) - {"pipeline", module}


def code_of(stage: str) -> set[str]:
    """All files of the project that a stage runs."""
    modules, new = set(), {f"pipeline.{stage}"}
    while new:
        modules |= new
        new = {other for module in new for other in imported_modules(module, type_checking=False)} - modules
    return {str(MODULES[module].relative_to(REPOSITORY)) for module in modules}


def room(module: str) -> str:
    return module.removeprefix("pipeline.").partition(".")[0]


def stages(project: Path) -> dict[str, Any]:
    content: dict[str, Any] = config.read_yaml(project / "dvc.yaml")["stages"]
    return content


@pytest.mark.parametrize("tool", ROOMS)
def test_each_tool_is_touched_in_its_room_alone(tool: str) -> None:
    users = {
        module.removeprefix("pipeline.")
        for module, path in MODULES.items()
        if any(name.partition(".")[0] == tool for name in imports(path))
    }
    strangers = {user for user in users if not any(f"{user}.".startswith(f"{owner}.") for owner in ROOMS[tool])}
    assert not strangers
    assert bool(users) == bool(ROOMS[tool]), "the table names a room that does not touch it"


def test_every_room_has_its_layer() -> None:
    assert {room(module) for module in MODULES if module != "pipeline"} == set().union(*LAYERS)


@pytest.mark.parametrize("module", [module for module in MODULES if module != "pipeline"])
def test_arrows_go_down_only(module: str) -> None:
    (layer,) = (number for number, rooms in enumerate(LAYERS) if room(module) in rooms)
    # Commands and stages know nothing of others of their layer.
    below = {room(module)}.union(*LAYERS[layer + 1 :] if layer < 3 else LAYERS[layer:])
    assert {room(other) for other in imported_modules(module)} <= below


def test_only_evaluate_and_download_know_where_the_test_set_lies() -> None:
    users = {
        module for module, path in MODULES.items() if "test_data" in path.read_text() and module != "pipeline.files"
    }
    assert {room(user) for user in users} == {"evaluate", "sources"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_code_dependencies_are_the_files_that_it_imports(stage: str) -> None:
    listed = {name for name in stages(REPOSITORY)[stage]["deps"] if name.startswith("pipeline/")}
    templates = {str(path.relative_to(REPOSITORY)) for path in PACKAGE.rglob("*.j2") if stage == "report"}
    assert sorted(listed) == sorted(code_of(stage) | templates)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_its_module_and_the_example_has_the_same_stages(stage: str) -> None:
    root, example = (stages(project)[stage] for project in (REPOSITORY, REPOSITORY / "examples" / "digits"))
    assert root["cmd"] == example["cmd"] == f"python -m pipeline.{stage}"
    without_code = [name for name in root.get("deps", []) if not name.startswith("pipeline/")]
    assert without_code == example.get("deps", [])
    for key in ("params", "outs", "metrics"):
        assert root.get(key) == example.get(key)


def test_params_of_the_stages_are_keys_of_the_config() -> None:
    legal = {name for key in config.load(REPOSITORY / "params.yaml").values() for name in (key, key.partition(".")[0])}
    assert {name for stage in stages(REPOSITORY).values() for name in stage.get("params", [])} <= legal


COMMANDS = [*STAGES, "config", "tracking", "tune", "study", "ensemble"]
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
    assert sorted(named) == sorted({room(module) for module in MODULES if module != "pipeline"})


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
