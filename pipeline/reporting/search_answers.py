"""What the page says of a search: sentences and tables. Its pictures have their data from search_pictures.py."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config import Scalar
from pipeline.reporting import formats, search_pictures, surface
from pipeline.reporting.language import Language
from pipeline.reporting.search_history import SearchHistory, TrialHistory

MOST_REASONS = 3


def answers(history: SearchHistory | str, say: Language) -> dict[str, Any]:
    if isinstance(history, str):
        return {"search": say(history)}
    trials = history.trials
    trained = [trial for trial in trials if trial.scores]
    drawn = search_pictures.drawn(trials)
    left_out = len(trained) - len(drawn)
    spent, full = sum(len(trial.scores) for trial in trials), len(trials) * history.epochs
    importances = search_pictures.importances(history)
    data = search_pictures.as_data(history, {})
    timeline = data["timeline"]
    rungs_alt = say(
        "The trials took {spent} epochs, {share} of the {full} that all of them would take without stopping early.",
        spent=formats.count(spent),
        share=say.percent(spent / max(1, full), 0),
        full=formats.count(full),
    )
    finished = [trial for trial in trials if trial.state == "finished" and trial.scores]
    best = max(finished, key=lambda trial: trial.scores[-1], default=None)
    return {
        "search": history,
        "search_story": say(
            "The study {study}: {trials} of {wanted} trials, {epochs} epochs of training in {time}, scheduler "
            "{scheduler}.",
            study=history.study,
            trials=formats.count(len(trials)),
            wanted=formats.count(history.trials_wanted),
            epochs=formats.count(spent),
            time=say.duration(_elapsed_s(history)),
            scheduler=history.scheduler,
        ),
        "candidates": _candidates(history, say),
        "trained": trained,
        "drawn": drawn,
        "drawn_note": say(
            "Drawn are {drawn} of {trained} trials: the best {best}, and of the others each n-th. The table has all.",
            drawn=len(drawn),
            trained=formats.count(len(trained)),
            best=search_pictures.MOST_LINES // 3,
        )
        if left_out
        else "",
        "best_alt": say(
            "Trial {number} was the best finished one, with {accuracy}.",
            number=best.number,
            accuracy=say.percent(best.scores[-1], 2),
        )
        if best
        else say("No trial has finished."),
        "progress_note": say("A dot is a trial where it ended or stopped, hollow if it was stopped before its end.")
        if data["progress"]["timed"]
        else say(
            "A dot is a trial, hollow if it was stopped before its end. An earlier version recorded no times, so that "
            "the trials stand in the order of their numbers."
        ),
        "importances": importances,
        "importances_of": say(importances["of"], epoch=importances["epoch"]),
        "importances_alt": ", ".join(f"{name} {say.percent(share, 0)}" for name, share in importances["shares"]),
        "rungs_alt": rungs_alt,
        "ends": _ends(trials),
        "timeline": timeline if timeline["bars"] else None,
        "timeline_note": _timeline_note(timeline, say),
    } | surface.sentences(history, say)


def _elapsed_s(history: SearchHistory) -> float:
    """The owner knows it at the end alone; until then it is the time between the first and the last event."""
    if history.elapsed_s or not history.events:
        return history.elapsed_s
    return history.events[-1].at_s - history.events[0].at_s


def _timeline_note(timeline: Mapping[str, Any], say: Language) -> str:
    note = say(
        "A bar is the time from an order to its end, as the owner of the study saw it; a lane has one at a time."
    )
    if cuts := timeline["cuts"]:
        note += " " + say(
            "Pauses without any training are cut short, at dashed lines: {count}, {total} in all.",
            count=len(cuts),
            total=say.duration(sum(cut["seconds"] for cut in cuts)),
        )
    return note


def _candidates(history: SearchHistory, say: Language) -> list[dict[str, Any]]:
    """The trials that were retrained, the best mean first; without a confirmation the five best."""
    again: dict[int, list[float]] = {}
    for trial in history.confirmation:
        if trial.of is not None and trial.state == "finished":
            again.setdefault(trial.of, []).append(trial.scores[-1])
    finished = [trial for trial in history.trials if trial.state == "finished" and trial.scores]
    ranked = sorted(finished, key=lambda trial: -trial.scores[-1])
    chosen = [trial for trial in ranked if trial.number in again] or ranked[:5]
    found = []
    for trial in chosen:
        accuracies = again.get(trial.number, [])
        mean = statistics.fmean(accuracies) if accuracies else None
        words = f"{say.percent(mean, 2)}" if mean is not None else say("not done")
        if len(accuracies) > 1:
            sd = f"{100 * statistics.stdev(accuracies):.2f}"
            words += " " + say("± {sd} ({count} seeds)", sd=sd, count=len(accuracies))
        values = [f"{name.rpartition('.')[2]} {_short(value)}" for name, value in trial.values.items()]
        found.append(
            {
                "number": trial.number,
                "single": trial.scores[-1],
                "mean": mean if mean is not None else "",
                "again": words,
                "words": "  ".join(values),
            }
        )
    return sorted(found, key=lambda one: (one["number"] != history.winner, -(one["mean"] or one["single"])))


def _ends(trials: Sequence[TrialHistory]) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """How many trials ended in each way, and the most frequent reasons of each."""
    counts = Counter(trial.ended for trial in trials)
    return [
        (
            ended,
            count,
            Counter(
                trial.why.splitlines()[0][:200] for trial in trials if trial.ended == ended and trial.why
            ).most_common(MOST_REASONS),
        )
        for ended, count in counts.most_common()
    ]


def _short(value: Scalar) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
