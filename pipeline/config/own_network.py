"""The user's own network: the file that model.family names as `mypackage.nets:build`, and the keys of its function.

The file is read, not run: its text says which keys `build(model, meta, heads: int = 4)` takes under model.extra. So
values are checked before PyTorch is imported, and no code of the file runs in a process that only reads params.yaml.
"""

import ast
import functools
import hashlib
import shutil
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import create_model

from pipeline.config.section import Scalar, Section
from pipeline.errors import ConfigError
from pipeline.files import Project

OWN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""A value of model.family that names a function of the user's: its module, a colon, its name."""
_GIVEN = ("model", "meta")
"""The first parameters of the function. The others are its keys."""
_NAMES = {name: getattr(typing, name) for name in ("Literal", "Optional", "Union")}
_TYPES = {"int": int, "float": float, "bool": bool, "str": str, "typing": typing, "__builtins__": {}} | _NAMES


class Extra(dict[str, Scalar]):
    """The values of the function's keys. It is part of a frozen section: not to be changed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


def is_own(family: Any) -> bool:
    """Whether a value of model.family names a function."""
    return isinstance(family, str) and ":" in family


def source_file(family: str) -> Path:
    """The file of the function that `family` names, below the project. Raises ConfigError if there is none."""
    place = family.partition(":")[0].replace(".", "/")
    project = Project.here()
    candidates = [project.given_path(f"{place}.py"), project.given_path(f"{place}/__init__.py")]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise ConfigError(
            f"model.family {family}: there is no file {candidates[0]}: write the network there, or correct the name.",
            keys=["model.family"],
        )
    return found


def code_files(family: str) -> list[Path]:
    """The files whose content makes the network: the function's, and all others of its package."""
    file = source_file(family)
    package = family.partition(":")[0].partition(".")[0]
    if "." not in family.partition(":")[0] and file.name != "__init__.py":
        return [file]
    return sorted(_root(file, family).joinpath(package).rglob("*.py"))


def code_digest(family: str) -> str:
    """SHA-256 of the names and contents of the code of a user's network."""
    root = _root(source_file(family), family)
    digest = hashlib.sha256()
    for file in code_files(family):
        digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def code_root(family: str) -> Path:
    """The folder that the modules of a user's network are imported from."""
    return _root(source_file(family), family)


def copy_code(family: str, folder: Path) -> None:
    """Writes the code of a user's network into `folder`, below which it has the place that it has in the project."""
    root = code_root(family)
    for file in code_files(family):
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def extra_keys(family: str) -> type[Section]:
    """The keys under model.extra with their types and defaults, as the function's signature has them.

    Raises ConfigError if the file, the function or a type is missing.
    """
    file = source_file(family)
    return _extra_keys(family, file, file.read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=16)
def _extra_keys(family: str, file: Path, text: str) -> type[Section]:
    wanted = family.partition(":")[2]

    def fault(reason: str, line: int | None = None) -> ConfigError:
        place = f"{file}, line {line}" if line else str(file)
        return ConfigError(f"model.family {family}: {place}: {reason}.", keys=["model.family"])

    try:
        tree = ast.parse(text, filename=str(file))
    except SyntaxError as error:
        raise fault(f"this is not Python ({error.msg}): correct it", error.lineno) from error
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if wanted not in functions:
        there = f"it has {', '.join(functions)}" if functions else "it has none"
        raise fault(f"there is no function {wanted} ({there}): write `def {wanted}(model, meta):` there")
    signature = functions[wanted].args
    positional = [*signature.posonlyargs, *signature.args]
    if len(positional) < len(_GIVEN):
        raise fault(f"{wanted} must take model and meta first: `def {wanted}(model, meta):`", functions[wanted].lineno)
    fields: dict[str, Any] = {}
    for argument, default in _with_defaults(signature):
        fields[argument.arg] = _field(argument, default, fault)
    return create_model("Extra", __base__=Section, __module__=__name__, **fields)


def _with_defaults(signature: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """The parameters after the given ones, each with its default."""
    positional = [*signature.posonlyargs, *signature.args]
    missing = len(positional) - len(signature.defaults)
    pairs = list(zip(positional, [*[None] * missing, *signature.defaults], strict=True))[len(_GIVEN) :]
    yield from pairs
    yield from zip(signature.kwonlyargs, signature.kw_defaults, strict=True)


def _field(argument: ast.arg, default: ast.expr | None, fault: Any) -> Any:
    """A parameter as pydantic's create_model takes it: its type and its default."""
    try:
        value = ... if default is None else ast.literal_eval(default)
    except ValueError as error:
        reason = f"the default of {argument.arg} must be a number, text, true, false or None"
        raise fault(reason, argument.lineno) from error
    if argument.annotation is None:
        if value is ... or value is None:
            raise fault(f"{argument.arg} needs a type, as in `{argument.arg}: int`", argument.lineno)
        return type(value), value
    try:
        code = compile(ast.Expression(argument.annotation), "annotation", "eval")
        return eval(code, dict(_TYPES)), value  # names of types alone: there are no builtins
    except Exception as error:
        reason = f"the type of {argument.arg} must be int, float, bool, str, one of these | None, or a Literal"
        raise fault(reason, argument.lineno) from error


def _root(file: Path, family: str) -> Path:
    """The folder below which the module of `family` is `file`."""
    levels = len(family.partition(":")[0].split("."))
    return file.parents[levels if file.name == "__init__.py" else levels - 1]


def with_defaults(family: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The values for the function of `family`: those of `extra` that it takes, and its defaults for the others."""
    fields = extra_keys(family).model_fields
    own = {name: field.default for name, field in fields.items() if not field.is_required()}
    return own | {name: value for name, value in extra.items() if name in fields}
