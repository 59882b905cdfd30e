"""What the page says to its five questions: sentences, tables and the data of its pictures."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import config
from pipeline.config import Scalar
from pipeline.records import EvaluateFigures
from pipeline.reporting import certainty, class_order, formats, slices
from pipeline.reporting.before import Before
from pipeline.reporting.language import Language
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


def good(found: Results, before: Before | None, say: Language) -> dict[str, Any]:
    test = found.metrics.evaluate
    # One decimal would turn 99.97 % into a perfect 100 %.
    digits = 1 if test.accuracy_high - test.accuracy_low >= 0.002 else 2
    named = [(name, one.accuracy) for name, one in _beside(found, before, say)]
    parts = [f"{name} {say.percent(share, digits)}" for name, share in named]
    parts.append(f"{say('most frequent class')} {say.percent(found.most_frequent)}")
    predicted = found.confusion.sum(axis=0)
    return {
        "digits": digits,
        "before_alt": ", ".join(parts),
        "before_chance": _chance(found, before, say),
        "reliability": certainty.reliability(found.predictions) if found.predictions else None,
        "coverage_alt": _coverage(found, say) if found.predictions else "",
        "weakest_first": sorted(found.per_class, key=lambda score: score.f1),
        "never_predicted": [name for name, count in zip(found.classes, predicted, strict=True) if count == 0],
        "confused": found.most_confused(MOST_PAIRS),
    }


def _beside(found: Results, before: Before | None, say: Language) -> list[tuple[str, EvaluateFigures]]:
    """The results that stand beside each other, with their names."""
    results = [(say("this result"), found.metrics.evaluate)]
    if before:
        results.append((say("commit {commit}", commit=before.commit), before.metrics.evaluate))
    return results


def _chance(found: Results, before: Before | None, say: Language) -> str:
    """Whether the intervals of two results overlap, in a sentence."""
    if before is None or before.metrics.evaluate.accuracy == found.metrics.evaluate.accuracy:
        return ""
    now, then = found.metrics.evaluate, before.metrics.evaluate
    if now.accuracy_low > then.accuracy_high or then.accuracy_low > now.accuracy_high:
        return say("The intervals don't overlap: that is more than chance.")
    return say(
        "The intervals overlap, so it may be chance; `python -m pipeline.report --compare {commit}` compares image by "
        "image, which sees smaller differences.",
        commit=before.commit,
    )


def _coverage(found: Results, say: Language) -> str:
    assert found.predictions
    accuracy = found.metrics.evaluate.accuracy
    sentences = []
    for wanted in (0.99, 0.95, 0.9):
        if wanted > accuracy and (share := certainty.share_at(found.predictions, wanted)):
            sentences.append(
                say(
                    "{right} right on the surest {share} of the images",
                    right=say.percent(wanted, 0),
                    share=say.percent(share),
                )
            )
    sentences.append(say("{right} right on all of them", right=say.percent(accuracy)))
    return ", ".join(sentences)


def fails(found: Results, say: Language) -> dict[str, Any]:
    groups, accuracy = _slices(found), found.metrics.evaluate.accuracy
    if found.predictions is None or found.appearance is None:
        why = say(
            "results/evaluate/predictions.csv or appearance.csv is not here: `dvc pull` or `dvc repro` brings them."
        )
    else:
        why = say("There are too few test images, or they look too much alike, to compare parts of them.")
    weak = slices.weak(groups, accuracy)
    if weak:
        place, group = weak[0]
        low, high = group.interval
        sentence = say(
            "Accuracy is lowest on fifth {place} of {groups} by {name}: {share} of {images} images ({low} to {high}), "
            "below the {accuracy} of all images by more than chance.",
            place=place,
            groups=len(groups[group.name]),
            name=say(group.name),
            share=say.percent(group.accuracy),
            images=formats.count(group.images),
            low=say.percent(low),
            high=say.percent(high),
            accuracy=say.percent(accuracy),
        )
        if len(weak) > 1:
            sentence += " " + say("Other fifths that are: {count}.", count=len(weak) - 1)
    else:
        sentence = say("No fifth is recognised worse than all images together by more than chance.")
    return {"slices": [say(name) for name in groups], "slices_alt": sentence, "no_slices": why}


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


def pictures(found: Results, before: Before | None, of_seeds: Seeds | None, say: Language) -> dict[str, Any]:
    """The data of the pictures of the training and of its evaluation."""
    rows, columns = np.nonzero(found.confusion)
    data: dict[str, Any] = {
        "before": [
            {"name": name, "accuracy": one.accuracy, "low": one.accuracy_low, "high": one.accuracy_high}
            for name, one in _beside(found, before, say)
        ]
        + [{"name": say("most frequent class"), "accuracy": found.most_frequent}],
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
        data["slices"] = [
            one | {"title": say(one["name"]), "ends": [say(end) for end in one["ends"]]}
            for one in slices.as_data(groups, found.metrics.evaluate.accuracy)
        ]
    return data


def _rounded(value: float) -> float | None:
    """Six significant digits; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
