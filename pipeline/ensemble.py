"""Combines the best networks of a search, without training: an ensemble and, where that works, a soup.

examples:
  python -m pipeline.ensemble                      of the best 5 trials of the study main
  python -m pipeline.ensemble --top 10 --study night
  python -m pipeline.ensemble --confirmed          networks of the confirmation may take part too
  python -m pipeline.ensemble --without 3          as if there were no trial 3

An ensemble is the mean of its members' probabilities, a soup one network with the mean of its members' weights. Both
are chosen on the validation part. They and the single best network are scored on the test set once, at the end.
results/ensemble and MLflow get the result.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.cli import guarded

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_STUDY = "main"
DEFAULT_TOP = 5


def ensemble(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for. Raises PipelineErrors."""
    from rich.console import Console

    from pipeline.files import Project
    from pipeline.search.studies.ensembling import EnsembleOptions, combine

    # With --json standard output is for machines alone.
    console = Console(stderr=arguments.json, width=None if sys.stdout.isatty() else 160, markup=False)
    options = EnsembleOptions(arguments.study, arguments.top, arguments.confirmed, frozenset(arguments.without))
    content = combine(Project.here(), options, console)
    _print_summary(content, console)
    if arguments.json:
        print(json.dumps(content, indent=2))


def _print_summary(content: Mapping[str, Any], console: "Console") -> None:
    """A table of what was combined, and a sentence on what did not work."""
    from rich.table import Table

    from pipeline.search.studies.ensembling import KINDS, counted

    table = Table("", "members", "validation", "test (95 % interval)", "test NLL", box=None, pad_edge=False)
    for name in KINDS:
        mixture = content[name]
        if not mixture:
            continue
        test = mixture["test"]
        table.add_row(
            mixture["kind"],
            counted(mixture["members"]),
            f"{mixture['validation']['accuracy']:.2%}",
            f"{test['accuracy']:.2%} ({test['accuracy_low']:.2%} to {test['accuracy_high']:.2%})",
            f"{test['nll']:.4f}",
        )
    console.print(table)
    if len(content["ensemble"]["members"]) == 1:
        console.print("The ensemble is the best network alone: with no other did it do better on validation.")
    accuracies = {member["name"]: member["validation"]["accuracy"] for member in content["members"]}
    if not content["soups"]:
        console.print("No soup: no two of the networks have the same model.*, so that no weights could be averaged.")
    elif not content["soup"]:
        best = max(content["soups"], key=lambda soup: soup["validation"]["accuracy"] if len(soup["members"]) > 1 else 0)
        alone = max(accuracies[name] for name in best["members"])
        console.print(
            f"No soup: averaging weights lowered the validation accuracy, as is usual of networks that began with "
            f"different ones ({counted(best['members'])}: {best['validation']['accuracy']:.2%}, the best of them alone "
            f"{alone:.2%}).",
            highlight=False,
        )
    elif content["soup"]["validation"]["accuracy"] < content["single"]["validation"]["accuracy"]:
        console.print("The soup is better than its members, but the best network alone is better on validation.")
    console.print(
        f"Chosen on {content['validation_pictures']:,} validation images, scored on {content['test_pictures']:,} "
        "of the test set. Written: results/ensemble.",
        highlight=False,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.ensemble", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--top", default=DEFAULT_TOP, type=_top, metavar="K", help=f"networks, default: {DEFAULT_TOP}")
    parser.add_argument("--study", default=DEFAULT_STUDY, metavar="NAME", help=f"default: {DEFAULT_STUDY}")
    parser.add_argument("--confirmed", action="store_true", help="take networks of the confirmation too")
    parser.add_argument(
        "--without", action="append", default=[], type=_trial, metavar="N", help="leave a trial out, can be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON; all else goes to stderr")
    arguments = parser.parse_args(argv)
    return guarded(lambda: ensemble(arguments))


def _top(text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 2, got {text}")
    return int(text)


def _trial(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be the number of a trial, got {text}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
