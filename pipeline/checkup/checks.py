"""All checks of the doctor, and how they are run."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version

from pipeline.checkup import data, leftovers, results, surroundings
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.findings import Finding, Looked, Report, Weight
from pipeline.machine import Machine
from pipeline.search.studies import health as studies
from pipeline.tracking import health as tracking

Check = Callable[[Project], Report]


def checks(*, quick: bool = False) -> Sequence[Check]:
    """All of them; with `quick` those that read no image."""
    return (
        surroundings.tools,
        lambda project: surroundings.versions(surroundings.constraints_of(project)),
        lambda project: surroundings.gpu(surroundings.nvidia_is_there(), Machine.glance(), version("torch")),
        surroundings.disk,
        surroundings.writable,
        data.params,
        partial(data.data, quick=quick),
        results.outputs,
        results.trained,
        tracking.database,
        tracking.artifacts,
        tracking.model_files,
        tracking.open_runs,
        tracking.unsent,
        studies.studies,
        leftovers.leftovers,
        leftovers.of_dvc,
    )


@dataclass
class Examination:
    """What the checks have found."""

    findings: list[Finding] = field(default_factory=list)
    looked_at: Counter[str] = field(default_factory=Counter)
    """Numbers of things, by what they are called."""
    mended: list[str] = field(default_factory=list)
    """What was corrected, as sentences."""

    def count(self, weight: Weight) -> int:
        return sum(finding.weight is weight for finding in self.findings)


def examine(project: Project, *, quick: bool = False, fix: bool = False) -> Examination:
    """Runs all checks. With `fix` it mends what can be mended, and looks there again."""
    examination = Examination()
    for check in checks(quick=quick):
        found, looked = _run(check, project)
        if fix and _mend(found, examination):
            found, looked = _run(check, project)
        examination.findings += found
        examination.looked_at.update(looked)
    return examination


def _run(check: Check, project: Project) -> tuple[list[Finding], Counter[str]]:
    found: list[Finding] = []
    looked: Counter[str] = Counter()
    try:
        for one in check(project):
            if isinstance(one, Finding):
                found.append(one)
            elif isinstance(one, Looked):
                looked[one.things] += one.count
    except PipelineError as error:
        found.append(Finding.of(error, "."))
    except OSError as error:
        found.append(
            Finding(
                Weight.ERROR,
                f"{error.filename or 'a file'} can't be read: {error.strerror or error}",
                str(error.filename or "."),
                "correct its permissions",
            )
        )
    return found, looked


def _mend(found: Sequence[Finding], examination: Examination) -> bool:
    """Whether something was mended."""
    before = len(examination.mended)
    for finding in found:
        if finding.mend:
            try:
                examination.mended.append(finding.mend())
            except (OSError, PipelineError) as error:
                examination.findings.append(
                    Finding(Weight.ERROR, f"--fix failed: {error}", finding.where, "run it again")
                )
    return len(examination.mended) > before
