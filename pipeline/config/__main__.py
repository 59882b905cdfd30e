"""Checks ./params.yaml and says what is wrong with it, all at once; shows and changes what is in it.

examples:
  python -m pipeline.config                        checks the file
  python -m pipeline.config --all                  every key: value, default, what is allowed, what it does
  python -m pipeline.config --all | grep momentum  the keys about one thing
  python -m pipeline.config --set train.ema=0.9    writes a value into the file, also one of a key that it lacks
  python -m pipeline.config --fill train           writes the keys that section train lacks, with comments
  dvc exp run -S ++train.ema=0.9                   one experiment with a value; ++ is for a key that the file lacks

A key that the file lacks has its default. docs/reference.md has all keys.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import guarded
from pipeline.config.files import parse_value
from pipeline.config.loading import Config, check_search, load, schema
from pipeline.config.reference import keys, reference
from pipeline.config.resolved import write_resolved
from pipeline.config.scalars import written
from pipeline.config.writing import fill, write_values
from pipeline.errors import ConfigError
from pipeline.files import Project

PARAMS = Path("params.yaml")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.config", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--all", action="store_true", help="print every key with value, default, range and sentence")
    what.add_argument("--set", action="append", metavar="NAME=VALUE", help="write a value into the file")
    what.add_argument(
        "--fill", nargs="?", const="", metavar="SECTION", help="write the missing keys of a section, or of all"
    )
    what.add_argument("--resolve", action="store_true", help="write results/config, which the stages depend on")
    what.add_argument("--schema", action="store_true", help="print the JSON schema that params.schema.json holds")
    what.add_argument("--reference", action="store_true", help="print docs/reference.md")
    arguments = parser.parse_args(argv)
    return guarded(lambda: _work(arguments))


def _work(arguments: argparse.Namespace) -> None:
    if arguments.schema or arguments.reference:
        print(schema() if arguments.schema else reference(), end="")
        return
    values = dict(map(_setting, arguments.set or ()))
    config = load(PARAMS, values)  # a value may correct what is wrong in the file
    if arguments.all:
        _print_all(config)
    elif values:
        write_values(PARAMS, values)
    elif arguments.fill is not None:
        names = fill(PARAMS, arguments.fill or None)
        print(f"wrote {len(names)} keys into {PARAMS}" if names else f"{PARAMS} names all keys already")
    elif arguments.resolve:
        write_resolved(Project.here(), config)
    else:
        check_search(config, str(PARAMS))
        print(f"{PARAMS} is sound: {len(config.values())} values, {len(config.space)} of them to be searched.")


def _print_all(config: Config) -> None:
    from rich.console import Console
    from rich.table import Table

    values = config.model_dump(mode="json")
    table = Table("key", "value", "default", "allowed", "what it does", box=None, pad_edge=False)
    for name, key in keys().items():
        section, _, inside = name.partition(".")
        value = written(values[section][inside])
        table.add_row(name, value, key.default, key.allowed, key.sentence)
    # A line per key where another program reads it.
    Console(width=None if sys.stdout.isatty() else 1000, markup=False, highlight=False).print(table)


def _setting(text: str) -> tuple[str, str | int | float | bool | None]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set takes NAME=VALUE, such as train.epochs=9, got {text}.")
    return name.strip(), parse_value(value, f"--set {name}")


if __name__ == "__main__":
    raise SystemExit(main())
