"""Finds what is wrong in a project that was moved, copied, restored or half deleted, and names the remedies.

examples:
  python -m pipeline.doctor              looks at everything and changes nothing
  python -m pipeline.doctor --fix        corrects what it safely can; a copy of mlflow.db is kept
  python -m pipeline.doctor --quick      does not read the images, which takes a second per GB
  python -m pipeline.doctor --json       the findings for a program

Each finding has a weight: an error (something does not work, or goes to the wrong place), a warning (something is lost
or does not fit) or a note. The exit code is 1 if there is an error, else 0.
"""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.cli import guarded
from pipeline.files import Project

if TYPE_CHECKING:
    from pipeline.checkup.checks import Examination


class _Ill(Exception):
    """There is an error among the findings."""


def doctor(arguments: argparse.Namespace) -> None:
    """Prints what is wrong. Raises ConfigError where there is no project."""
    from pipeline.checkup.checks import examine
    from pipeline.errors import ConfigError
    from pipeline.findings import Weight

    project = Project.here()
    if not project.params.exists():
        raise ConfigError(f"{project.root} has no params.yaml: change to the folder of a project.")
    found = examine(project, quick=arguments.quick, fix=arguments.fix)
    print(_as_json(found) if arguments.json else _as_text(found))
    if found.count(Weight.ERROR):
        raise _Ill


def _as_text(found: "Examination") -> str:
    from pipeline.findings import Weight, counted

    lines = [f"fixed: {sentence}" for sentence in found.mended]
    order = list(Weight)
    for finding in sorted(found.findings, key=lambda finding: order.index(finding.weight)):
        lines += [f"{finding.weight}: {finding.what}", f"  where:  {finding.where}", f"  remedy: {finding.remedy}"]
    looked_at = ", ".join(f"{things} {count:,}" for things, count in found.looked_at.items() if count)
    total = f"{found.looked_at.total():,} things looked at"
    if not found.findings:
        lines.append(f"All is well: {total} ({looked_at}).")
    else:
        counts = [counted(count, weight) for weight in Weight if (count := found.count(weight))]
        lines.append(f"{', '.join(counts)}; {total}.")
    return "\n".join(lines)


def _as_json(found: "Examination") -> str:
    findings = [
        {"weight": one.weight, "what": one.what, "where": one.where, "remedy": one.remedy} for one in found.findings
    ]
    return json.dumps({"findings": findings, "fixed": found.mended, "looked_at": found.looked_at}, indent=2)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fix", action="store_true", help="correct what can be corrected safely")
    parser.add_argument("--quick", action="store_true", help="compare the sizes of the arrays, not their contents")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    arguments = parser.parse_args(argv)
    try:
        return guarded(lambda: doctor(arguments))
    except _Ill:
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
