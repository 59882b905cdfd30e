"""Searches as the report reads them, made up."""

import random
from typing import Any

from pipeline.reporting.search_history import Event, Key, SearchHistory, Surface, TrialHistory

KEYS = (
    Key("train.learning_rate", log=True),
    Key("train.batch_size", choices=[32, 64, 128]),
    Key("augment.policy", choices=["none", "<flip>"]),
    Key("augment.cutout"),
)


def surface(across: str = "train.learning_rate", up: str = "augment.cutout", columns: int = 25) -> Surface:
    """A hill, of which the model is unsure on the right."""
    rates = [10 ** (-3 + 3 * column / (columns - 1)) for column in range(columns)]
    choices: list[Any] = {"train.batch_size": [32, 64, 128], "augment.policy": ["none", "<flip>"]}.get(up, [])
    rows = choices or [row / (columns - 1) for row in range(columns)]
    heights = [
        [0.9 - 0.5 * (x / (columns - 1) - 0.6) ** 2 - 0.2 * (y / (len(rows) - 1) - 0.5) ** 2 for x in range(columns)]
        for y in range(len(rows))
    ]
    sds = [[0.01 + 0.1 * (x / (columns - 1)) ** 4 for x in range(columns)] for _ in rows]
    return Surface([across, up], [rates, rows], heights, sds, {"train.momentum": 0.9})


def history(count: int = 30, epochs: int = 8, *, with_events: bool = True, **changes: Any) -> SearchHistory:
    """A search in which the learning rate decides: most trials are pruned after an epoch, each fourth finishes."""
    chance = random.Random(count)
    trials, events, now = [], [], 1_790_000_000.0
    for number in range(count):
        values: dict[str, Any] = {
            "train.learning_rate": 10 ** chance.uniform(-3, 0),
            "train.batch_size": chance.choice([32, 64, 128]),
            "augment.policy": chance.choice(["none", "<flip>"]),
        }
        if values["augment.policy"] == "<flip>":
            values["augment.cutout"] = chance.random()
        state = "failed" if number % 10 == 9 else "finished" if number % 4 == 0 else "pruned"
        until = epochs if state == "finished" else 1 if state == "pruned" else 0
        top = 0.9 - 0.1 * abs(values["train.learning_rate"] - 0.1) + chance.uniform(-0.01, 0.01)
        scores = [top * (1 - 0.5**epoch) for epoch in range(1, until + 1)]
        trials.append(
            TrialHistory(
                number,
                state,
                "diverged" if state == "failed" else state,
                values,
                scores,
                seed=number,
                elapsed_s=2.0 * until,
                why="the loss was <nan> in epoch 1" if state == "failed" else None,
            )
        )
        events.append(Event(now, "trial", number, "sent", until))
        for epoch in range(1, until + 1):
            now += 2
            events.append(Event(now, "trial", number, "epoch", epoch))
        events.append(Event(now + 0.1, "trial", number, "ended", until))
    finished = [trial for trial in trials if trial.state == "finished"]
    best = max(finished, key=lambda trial: trial.scores[-1], default=None)
    content: dict[str, Any] = {
        "study": "main",
        "key": "abc",
        "created": "2026-11-29T14:30:20+00:00",
        "elapsed_s": 120.0,
        "epochs": epochs,
        "trials_wanted": count,
        "scheduler": "freeze_thaw",
        "is_running": False,
        "keys": KEYS,
        "importances": {"train.learning_rate": 0.7, "train.batch_size": 0.2, "augment.policy": 0.1},
        "trials": trials,
        "winner": best.number if best else None,
        "events": events if with_events else [],
        "surface": surface(),
    }
    return SearchHistory(**(content | changes))
