"""A search as the data of the page's pictures. Points that are left out are counted, and the page says how many."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.config import Scalar
from pipeline.reporting import surface
from pipeline.reporting.search_history import Event, SearchHistory, TrialHistory
from pipeline.reporting.statistics import explained

MOST_LINES = 300
"""Trials that a picture with a line per trial has; more would be one dark area."""
LEAST_TRIALS = 8
"""For importances that are estimated from unfinished trials."""
SHORT_PAUSE_S = 60.0
"""Time without any training that the timeline shows at its length; of a longer pause it shows this much."""
OVERLAP_S = 0.2
OF_FINISHED = "Share of the differences among finished trials, by Optuna; the shares add up to 100 %."
OF_ALL = (
    "Share of the differences in rank after epoch {epoch} that a key alone explains; too few trials have finished for "
    "more."
)
"""What importances are shares of."""
MLFLOW = "http://127.0.0.1:5000/"


def as_data(history: SearchHistory, links: Mapping[str, str]) -> dict[str, Any]:
    """`links` has the pages of runs in MLflow by key."""
    trials = history.trials
    return {
        "epochs": history.epochs,
        "winner": history.winner,
        "keys": [asdict(key) | {"short": key.name.rpartition(".")[2]} for key in history.keys],
        "trials": [_trial(trial, links.get(f"study-{history.key}-trial-{trial.number:04}")) for trial in trials],
        "drawn": drawn(trials),
        "progress": _progress(history),
        "rungs": [sum(len(trial.scores) >= epoch for trial in trials) for epoch in range(1, history.epochs + 1)],
        "importances": importances(history),
        "timeline": _timeline(history.events),
        "surface": surface.as_data(history),
    }


def drawn(trials: Sequence[TrialHistory]) -> list[int]:
    """The trials that a picture with a line per trial shows: the best ones, and of the others each n-th."""
    trained = sorted((trial for trial in trials if trial.scores), key=lambda trial: -trial.scores[-1])
    if len(trained) <= MOST_LINES:
        return sorted(trial.number for trial in trained)
    best, others = trained[: MOST_LINES // 3], trained[MOST_LINES // 3 :]
    step = -(-len(others) // (MOST_LINES - len(best)))
    return sorted(trial.number for trial in [*best, *others[::step]])


def importances(history: SearchHistory) -> dict[str, Any]:
    """The share of each key, the largest first, and in words what they are shares of, with the epoch for its hole."""
    if history.importances:
        ranked = sorted(history.importances.items(), key=lambda one: (-one[1], one[0]))
        return {"shares": ranked, "of": OF_FINISHED, "epoch": None}
    trained = [trial for trial in history.trials if trial.scores and trial.state != "failed"]
    if len(trained) < LEAST_TRIALS:
        return {"shares": [], "of": OF_ALL, "epoch": None}
    epoch = max(
        epoch
        for epoch in range(1, max(len(trial.scores) for trial in trained) + 1)
        if epoch == 1 or sum(len(trial.scores) >= epoch for trial in trained) >= max(LEAST_TRIALS, 0.6 * len(trained))
    )
    shares = {}
    for key in history.keys:
        known = [trial for trial in trained if key.name in trial.values and len(trial.scores) >= epoch]
        if len(known) >= LEAST_TRIALS:
            scores = [trial.scores[epoch - 1] for trial in known]
            values = [trial.values[key.name] for trial in known]
            shares[key.name] = round(explained(values, scores, is_scale=_is_scale(key.choices, values)), 4)
    ranked = sorted(shares.items(), key=lambda one: (-one[1], one[0]))
    return {"shares": ranked, "of": OF_ALL, "epoch": epoch}


def _is_scale(choices: Sequence[Scalar] | None, values: Sequence[Scalar]) -> bool:
    """Whether values lie on a scale: numbers, and more than two of them."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return numbers and (choices is None or len(choices) > 3)


def _trial(trial: TrialHistory, page: str | None) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "ended": trial.ended,
        "values": dict(trial.values),
        "scores": [round(score, 5) for score in trial.scores],
        "seconds": round(trial.elapsed_s, 1),
        "seed": trial.seed,
        "why": trial.why,
        "page": MLFLOW + page if page else None,
    }


def _progress(history: SearchHistory) -> dict[str, Any]:
    """Each trial's last epoch and the best finished trial, over all epochs that were spent by then."""
    scores = {trial.number: trial.scores for trial in history.trials}
    order = [
        (event.trial, event.epoch)
        for event in history.events
        if event.phase == "trial" and event.kind == "epoch" and event.epoch <= len(scores.get(event.trial, ()))
    ]
    order = list(dict.fromkeys(order))
    is_timed = len(order) == sum(map(len, scores.values()))
    if not is_timed:  # of an earlier version, whose events are unknown
        order = [(number, epoch) for number, found in scores.items() for epoch in range(1, len(found) + 1)]
    finished = {trial.number for trial in history.trials if trial.state == "finished"}
    points, best, top = [], [], 0.0
    for spent, (number, epoch) in enumerate(order, 1):
        if epoch < len(scores[number]):
            continue
        points.append({"trial": number, "spent": spent})
        if number in finished and scores[number][-1] > top:
            top = scores[number][-1]
            best.append({"trial": number, "spent": spent, "score": round(top, 5)})
    return {"points": points, "best": best, "spent": len(order), "timed": is_timed}


def _timeline(events: Sequence[Event]) -> dict[str, Any]:
    """Who trained when: a lane holds one training at a time. Long times without any training are cut out."""
    bars = _bars(events)
    if not bars:
        return {"bars": [], "lanes": 0, "cuts": [], "length": 0}
    bars.sort(key=lambda bar: (bar["from"], bar["trial"]))
    shift, busy_until, cuts = bars[0]["from"], bars[0]["from"], []
    ends: list[dict[str, Any]] = []
    """The last bar of each lane."""
    for bar in bars:
        idle = bar["from"] - busy_until
        if idle > SHORT_PAUSE_S:
            shift += idle - SHORT_PAUSE_S
            cuts.append({"at": round(bar["from"] - shift, 1), "seconds": round(idle)})
        busy_until = max(busy_until, bar["to"])
        bar |= {"from": round(bar["from"] - shift, 2), "to": round(bar["to"] - shift, 2)}
        # A worker has its next order before the end of the last one is written down.
        lane = next((number for number, end in enumerate(ends) if end["to"] <= bar["from"] + OVERLAP_S), len(ends))
        if lane < len(ends):
            ends[lane]["to"] = min(ends[lane]["to"], bar["from"])
        ends[lane : lane + 1] = [bar]
        bar["lane"] = lane
    return {"bars": bars, "lanes": len(ends), "cuts": cuts, "length": round(busy_until - shift, 1)}


def _bars(events: Sequence[Event]) -> list[dict[str, Any]]:
    """An interval for each time that a trial was given to a worker until it stopped there."""
    bars: list[dict[str, Any]] = []
    running: dict[tuple[str, int], dict[str, Any]] = {}
    until: dict[tuple[str, int], int] = {}
    for event in events:
        trial = (event.phase, event.trial)
        if event.kind == "sent":
            until[trial] = event.epoch
            if trial not in running:
                running[trial] = {"phase": event.phase, "trial": event.trial, "from": event.at_s, "how": "running"}
        elif trial in running:
            running[trial] |= {"to": event.at_s, "epoch": event.epoch}
            # A trial that is ordered to go on before it is reported as there goes on without a gap.
            if event.kind != "epoch" and not (event.kind == "reached" and event.epoch < until[trial]):
                bars.append(running.pop(trial) | {"how": event.kind})
    return bars + [bar for bar in running.values() if "to" in bar]
