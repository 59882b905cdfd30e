"""From the name of a run to the verdict on its repetition."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import records
from pipeline.audit import old_code, recorded
from pipeline.audit.differences import differences, facts
from pipeline.audit.repeat import Comparison, Repetition, compare, until_divergence
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.records import DeviceRecord, Epoch, RunRecord
from pipeline.tracking.reading import RecordedRun, Runs


@dataclass(frozen=True)
class Request:
    """What to train again."""

    run: str | None
    """Id, key or name of a run; None: the last `dvc repro`, unless a trial is named."""
    study: str | None
    trial: int | None
    with_old_code: bool = False
    tolerance: float = 0.0
    """The most that an accuracy may differ by, and a loss relative to itself."""


def find(project: Project, request: Request, runs: Runs) -> RecordedRun:
    """The run that is asked for. Raises PipelineError if there is none."""
    if request.trial is not None:
        return runs.trial(request.study or "", request.trial)
    return runs.run(request.run or records.read(RunRecord, project.run, stage="train").key)


def reproduced(project: Project, request: Request, show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Trains a run again and returns what came out of it; `show` gets what is known before the training.

    Raises PipelineErrors: no such run, no epochs on record, data missing.
    """
    runs = Runs(project)
    run = find(project, request, runs)
    then = runs.epochs(run)
    values = recorded.values(run.params, run.tags)
    diverged = run.ended == Outcome.DIVERGED
    if not then and not diverged:
        raise PipelineError(f"{run} has no epochs on record: there is nothing to compare with.")
    meta = records.load_meta(project.meta)
    wanted = DeviceRecord(
        run.tags.get("device.type", "auto"),
        run.tags.get("device.name", ""),
        int(run.tags.get("device.threads", 1)),
        run.tags.get("device.precision", values.settings.train.precision),
    )
    repetition = Repetition(values.settings, meta, wanted)
    here = facts(project, values.settings, meta, repetition.device)
    if request.with_old_code:
        here = {name: value for name, value in here.items() if not name.startswith(("code.", "git."))}
    found = differences({**run.tags, "model.family": run.params["model.family"]}, here)
    about: dict[str, Any] = {
        "run": str(run),
        "id": run.id,
        "epochs": len(then),
        "differences": [asdict(each) for each in found],
        "lacking": values.lacking + _of_the_code(run, request),
    }
    show(about)
    said = ""
    if request.with_old_code:
        now = _with_old_code(project, run, wanted, len(then))
    else:
        now, said = until_divergence(repetition.epochs(project, len(then) + diverged))
    compared = compare(then, now)
    return about | _verdict(compared, request.tolerance, repetition.device, diverged, said)


def _with_old_code(project: Project, run: RecordedRun, device: DeviceRecord, count: int) -> list[Epoch]:
    commit = run.tags.get("git.commit")
    if commit is None:
        raise PipelineError(f"{run} was made outside a git repository: there is no commit to go back to.")
    given = {name: recorded.typed(text, name) for name, text in run.params.items()}
    # Images are those of this project. The address of their source may be without its password.
    given = {name: value for name, value in given.items() if not name.startswith("data.") or name == "data.name"}
    given |= {"train.threads": device.threads, "train.device": device.type, "train.precision": device.precision}
    return old_code.epochs(project, commit, given)[:count]


def _of_the_code(run: RecordedRun, request: Request) -> list[str]:
    if run.tags.get("git.dirty") != "true":
        return []
    what = "--code trains with the commit without them" if request.with_old_code else "the commit alone is not the code"
    return [f"changes to the code that were not committed; {what}"]


def _verdict(compared: Comparison, tolerance: float, device: DeviceRecord, diverged: bool, said: str) -> dict[str, Any]:
    """The verdict as a word, as a sentence and in numbers."""
    count = compared.epochs
    epochs = "the only epoch is" if count == 1 else f"all {count} epochs are"
    if compared.first is None:
        word, sentence = "identical", f"Identical: {epochs} the same to the bit."
        if not count:
            sentence = "Identical: no epoch was completed, then and now."
    elif compared.largest <= tolerance:
        why = " A GPU adds in another order each time." if device.type.startswith("cuda") else ""
        word = "within tolerance"
        sentence = (
            f"Within the tolerance of {tolerance:g}: the largest difference is {compared.largest:.2g} "
            f"({compared.where}), the first one in epoch {compared.first} of {count}.{why}"
        )
    else:
        word = "different"
        amount = "" if math.isinf(compared.largest) else f"by up to {compared.largest:.2g} "
        sentence = (
            f"Not reproduced: epoch {compared.first} of {count} is the first that differs; figures differ {amount}"
            f"({compared.where}), the tolerance is {tolerance:g}."
        )
    if diverged and word != "different":
        if said:
            sentence += " It diverged again in the epoch after that."
        else:
            word, sentence = "different", "Not reproduced: it diverged then, and does not here."
    elif said:
        word, sentence = "different", f"Not reproduced: it does not end here. {said}"
    return {
        "verdict": word,
        "sentence": sentence,
        "first_different_epoch": compared.first,
        "largest_difference": None if math.isinf(compared.largest) else compared.largest,
        "tolerance": tolerance,
        "device": asdict(device),
    }
