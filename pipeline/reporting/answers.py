"""What the page says to its five questions: sentences, tables and the data of its pictures."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import config
from pipeline.config import Scalar
from pipeline.reporting import certainty, class_order, formats, slices
from pipeline.reporting.before import Before
from pipeline.reporting.results import Mistake, Results
from pipeline.reporting.search_history import SearchHistory

MOST_PAIRS = 12


@dataclass(frozen=True)
class Seeds:
    """The same values, trained with other seeds by the confirmation of a search."""

    count: int
    mean: float
    """Validation accuracy after the last epoch, 0..1."""
    sd: float | None
    scores: Sequence[Sequence[float]]
    """Of each seed after each epoch."""


def good(found: Results, before: Before | None) -> dict[str, Any]:
    test = found.metrics.evaluate
    # One decimal would turn 99.97 % into a perfect 100 %.
    digits = 1 if test.accuracy_high - test.accuracy_low >= 0.002 else 2
    parts = [f"this result {formats.percent(test.accuracy, digits)}"]
    if before:
        parts.append(f"commit {before.commit} {formats.percent(before.metrics.evaluate.accuracy, digits)}")
    parts.append(f"the most frequent class alone {formats.percent(found.most_frequent)}")
    predicted = found.confusion.sum(axis=0)
    return {
        "digits": digits,
        "before_alt": ", ".join(parts),
        "before_chance": _chance(found, before),
        "reliability": certainty.reliability(found.predictions) if found.predictions else None,
        "coverage_alt": _coverage(found) if found.predictions else "",
        "weakest_first": sorted(found.per_class, key=lambda score: score.f1),
        "never_predicted": [name for name, count in zip(found.classes, predicted, strict=True) if count == 0],
        "confused": found.most_confused(MOST_PAIRS),
    }


def _chance(found: Results, before: Before | None) -> str:
    """Whether the intervals of two results overlap, in a sentence."""
    if before is None or before.metrics.evaluate.accuracy == found.metrics.evaluate.accuracy:
        return ""
    now, then = found.metrics.evaluate, before.metrics.evaluate
    if now.accuracy_low > then.accuracy_high or then.accuracy_low > now.accuracy_high:
        return "The intervals don't overlap: that is more than chance."
    return (
        f"The intervals overlap, so it may be chance; `python -m pipeline.report --compare {before.commit}` compares "
        "image by image, which sees smaller differences."
    )


def _coverage(found: Results) -> str:
    assert found.predictions
    accuracy = found.metrics.evaluate.accuracy
    sentences = []
    for wanted in (0.99, 0.95, 0.9):
        if wanted > accuracy and (share := certainty.share_at(found.predictions, wanted)):
            sentences.append(f"{100 * wanted:.0f} % right on the surest {formats.percent(share)} of the images")
    sentences.append(f"{formats.percent(accuracy)} right on all of them")
    return ", ".join(sentences)


def fails(found: Results) -> dict[str, Any]:
    groups = _slices(found)
    if found.predictions is None or found.appearance is None:
        why = "results/evaluate/predictions.csv or appearance.csv is not here: `dvc pull` or `dvc repro` brings them."
    else:
        why = "There are too few test images, or they look too much alike, to compare parts of them."
    weak = slices.weak(groups, found.metrics.evaluate.accuracy)
    if weak:
        name, group = weak[0]
        low, high = group.interval
        sentence = (
            f"Accuracy is lowest on {name}: {formats.percent(group.accuracy)} of {group.images:,} images "
            f"({formats.percent(low)} to {formats.percent(high)}), below the "
            f"{formats.percent(found.metrics.evaluate.accuracy)} of all images by more than chance."
        )
        if len(weak) > 1:
            others = len(weak) - 1
            sentence += f" So {'is' if others == 1 else 'are'} {others} other slice{'s' if others > 1 else ''}."
    else:
        sentence = "No fifth is recognised worse than all images together by more than chance."
    return {"slices": list(groups), "slices_alt": sentence, "no_slices": why}


def _slices(found: Results) -> dict[str, list[slices.Slice]]:
    if found.predictions is None or found.appearance is None:
        return {}
    return slices.slices(found.appearance, found.predictions.right)


def by_pair(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """Those of one pair of classes together, the pair with the most certain mistake first."""
    pairs: dict[tuple[str, str], list[Mistake]] = {}
    for mistake in mistakes:
        pairs.setdefault((mistake.actual, mistake.predicted), []).append(mistake)
    return [mistake for pair in pairs.values() for mistake in pair]


def suspect_mistakes(found: Results) -> set[int]:
    """The indices of the shown mistakes whose label is probably wrong."""
    return {mistake.index for mistake in found.mistakes} & {suspect.index for suspect in found.suspects or ()}


def unseen_suspects(found: Results) -> list[Mistake]:
    """The images whose label is probably wrong, without those that are shown as mistakes already."""
    shown = suspect_mistakes(found)
    return [suspect for suspect in found.suspects or () if suspect.index not in shown]


def training(found: Results) -> dict[str, Any]:
    validation = found.history["validation_accuracy"]
    best = max(range(len(validation)), key=validation.__getitem__)
    return {
        "epochs": len(validation),
        "best_epoch": int(found.history["epoch"][best]),
        "best": validation[best],
        "last": validation[-1],
    }


def values(of_run: Mapping[str, Scalar]) -> dict[str, Any]:
    """All values by section, and first those that differ from their defaults."""
    defaults = config.defaults()
    sections: dict[str, dict[str, Scalar]] = {}
    for name, value in of_run.items():
        section, _, key = name.rpartition(".")
        sections.setdefault(section, {})[key] = value
    changed = [
        (name, value, defaults.get(name)) for name, value in of_run.items() if value != defaults.get(name, value)
    ]
    return {"sections": sections, "changed": changed}


def seeds(found: Results, history: SearchHistory | str) -> Seeds | None:
    """Those of the confirmation of a search that has the same values; None if there is none."""
    if isinstance(history, str):
        return None
    same = [
        trial
        for trial in history.confirmation
        if trial.state == "finished"
        and len(trial.scores) == len(found.history["epoch"])
        and all(found.run.values.get(name) == value for name, value in trial.values.items())
    ]
    if not same:
        return None
    last = [trial.scores[-1] for trial in same]
    sd = statistics.stdev(last) if len(last) > 1 else None
    return Seeds(len(same), statistics.fmean(last), sd, [trial.scores for trial in same])


def pictures(found: Results, before: Before | None, of_seeds: Seeds | None) -> dict[str, Any]:
    """The data of the pictures of the training and of its evaluation."""
    rows, columns = np.nonzero(found.confusion)
    results = [("this result", found.metrics.evaluate)]
    if before:
        results.append((f"commit {before.commit}", before.metrics.evaluate))
    data: dict[str, Any] = {
        "before": [
            {"name": name, "accuracy": one.accuracy, "low": one.accuracy_low, "high": one.accuracy_high}
            for name, one in results
        ]
        + [{"name": "most frequent class", "accuracy": found.most_frequent}],
        "confusion": {
            "classes": found.classes,
            "order": class_order.together(found.confusion),
            "cells": np.stack([rows, columns, found.confusion[rows, columns]], axis=1).tolist(),
            "support": found.confusion.sum(axis=1).tolist(),
        },
        "history": {name: [_rounded(value) for value in column] for name, column in found.history.items()},
        "seeds": of_seeds.scores if of_seeds else [],
        "accuracy": found.metrics.evaluate.accuracy,
    }
    if found.predictions:
        data["reliability"] = certainty.reliability(found.predictions)
        data["coverage"] = certainty.coverage(found.predictions)
    if groups := _slices(found):
        data["slices"] = slices.as_data(groups, found.metrics.evaluate.accuracy)
    return data


def _rounded(value: float) -> float | None:
    """Six significant digits; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
