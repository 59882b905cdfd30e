"""What the command lines of studies share: options, values that override params.yaml, the console."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds the options that all of them have."""
    parser.add_argument("--workers", type=_workers, metavar="N|auto", help="trials that train at a time")
    parser.add_argument("--engine", choices=("local", "ray"), help="who trains (tune.engine)")
    parser.add_argument("--address", metavar="ADDRESS", help="of the Ray cluster: auto or ray://HOST:10001")
    parser.add_argument("--workers-per-gpu", type=count, metavar="K", help="trials that share a GPU")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a value in place of the one in params.yaml"
    )
    parser.add_argument("--list", action="store_true", help="show the studies that are there, and stop")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON; all else goes to stderr")


def console(arguments: argparse.Namespace) -> "Console":
    """The console for messages: standard error with --json, which keeps standard output for the JSON."""
    from rich.console import Console

    # Without markup, which would take `[flip, none]` for a style.
    return Console(stderr=arguments.json, width=None if sys.stdout.isatty() else 160, markup=False)


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Values that override those of params.yaml, by dotted name. Raises ConfigError."""
    from pipeline import config
    from pipeline.errors import ConfigError

    found = {}
    for setting in arguments.set:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE, such as train.epochs=9, got {setting}")
        if name.strip() == "tune.storage":  # without --set, study, ensemble and --list would look elsewhere
            raise ConfigError("tune.storage can't be --set: write it into params.yaml, where all commands read it.")
        found[name.strip()] = config.parse_value(text, f"--set {name}")
    for option in ("trials", "engine", "address", "workers", "workers_per_gpu"):
        value = getattr(arguments, option, None)
        if value is not None:
            found[f"tune.{option}"] = None if value == "auto" else value
    return found


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


def count(text: str) -> int:
    """The type of an option that counts."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def name(text: str) -> str:
    """The type of an argument that names a study."""
    if not text.replace("-", "").replace("_", "").isalnum() or not text.isascii() or len(text) > 60:
        raise argparse.ArgumentTypeError(f"must be up to 60 letters, digits, - and _, got {text}")
    return text


def _workers(text: str) -> int | str:
    return text if text == "auto" else count(text)
