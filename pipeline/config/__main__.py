"""Checks ./params.yaml and says what is wrong with it, all at once.

python -m pipeline.config
python -m pipeline.config --schema     prints the JSON schema that params.schema.json holds
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import guarded
from pipeline.config.loading import check_search, load, schema


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.config", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of params.yaml and stop")
    arguments = parser.parse_args(argv)

    def work() -> None:
        if arguments.schema:
            print(schema(), end="")
            return
        path = Path("params.yaml")
        config = load(path)
        check_search(config, str(path))
        print(f"{path} is sound: {len(config.values())} values, {len(config.space)} of them to be searched.")

    return guarded(work)


if __name__ == "__main__":
    raise SystemExit(main())
