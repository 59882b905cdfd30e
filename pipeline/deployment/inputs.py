"""What a command line names -> images to predict: files, folders, patterns, lists on standard input, addresses."""

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from pipeline.datasets import web_images
from pipeline.datasets.class_names import natural_key
from pipeline.datasets.images import ENDINGS
from pipeline.errors import PipelineError

EXPLAINED = ".explained.png"
"""How the pictures of explaining.py end, which are no images to predict."""


@dataclass(frozen=True)
class Input:
    """One image, which may turn out to be none."""

    name: str
    """As the command line has it, or as a folder lists it."""

    @property
    def is_url(self) -> bool:
        return _is_url(self.name)

    def open(self) -> Path | IO[bytes] | str:
        """What the decoder takes, or why there is nothing. An address is fetched."""
        if self.is_url:
            body = web_images.fetch(self.name)
            return body if isinstance(body, str) else BytesIO(body)
        path = Path(self.name)
        return path if path.exists() else "there is no such file"


def inputs(arguments: Iterable[str], standard_input: IO[str], *, urls: bool) -> list[Input]:
    """The images that the arguments name, each once, in their order; those of a folder in the order of their names.

    Raises PipelineError if there are none, and for an address unless `urls` allows them.
    """
    given = list(arguments)
    names: dict[str, None] = {}
    for argument in given:
        lines = [line.rstrip("\r\n") for line in standard_input] if argument == "-" else [argument]
        for line in filter(None, lines):
            names |= dict.fromkeys(_named(line, urls=urls))
    if not names:
        raise PipelineError(f"no images found in {', '.join(given)}: files of {_endings()} were looked for.")
    return [Input(name) for name in names]


def _named(argument: str, *, urls: bool) -> Sequence[str]:
    if _is_url(argument):
        if not urls:
            raise PipelineError(f"{argument} is an address: --urls allows to fetch images from the web.")
        return [argument]
    path = Path(argument).expanduser()
    if path.is_dir():
        return _inside(path)
    if path.exists() or not glob.has_magic(argument):
        return [str(path)] if _wanted(path.name) else []  # a shell's pattern may have named it
    found = sorted(glob.glob(str(path), recursive=True), key=natural_key)  # noqa: PTH207  (of absolute patterns too)
    inside = [_inside(Path(one)) if Path(one).is_dir() else [one] for one in found]
    return [name for names in inside for name in names if _wanted(name)]


def _inside(folder: Path) -> list[str]:
    """The images below a folder. Hidden files and folders are skipped, as `download` does."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()]
    visible = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return sorted((str(path) for path in visible if _wanted(path.name)), key=natural_key)


def _wanted(name: str) -> bool:
    return not name.endswith(EXPLAINED)


def _is_url(name: str) -> bool:
    return "://" in name


def _endings() -> str:
    return ", ".join(sorted(ENDINGS))
