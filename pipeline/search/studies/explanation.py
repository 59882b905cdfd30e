"""What the model of learning curves thinks of a study: expected ends, keys that matter, what is untried, what is left.

The model is that of freeze-thaw search, whatever scheduler decided: it learns from all trials, finished or not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.config import Config, Scalar
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.search.schedulers.base import TrialView
from pipeline.search.schedulers.forecast import Forecast
from pipeline.search.schedulers.freeze_thaw import FreezeThaw, modelled
from pipeline.search.space.space import Space
from pipeline.search.studies import storage as storages
from pipeline.search.studies.display import on_a_line, shown
from pipeline.search.studies.ledger import Ledger

LEAST_TRIALS = 8
"""That have trained an epoch, for predictions that are worth a look."""
MORE = 20
"""New trials of which it is said what they may bring."""
CANDIDATES, DRAWS = 400, 1_000
BEST = 8
"""Trials that are shown."""
WORTH = 0.005
"""An expected gain of accuracy below which more trials are called not worth it."""


@dataclass(frozen=True)
class Expectation:
    """Of a trial."""

    trial: int
    state: str
    epochs: int
    accuracy: float
    """Validation accuracy after the last epoch, 0..1."""
    end: float
    """The median of its accuracy after a full training, as the model predicts it."""
    sd: float


@dataclass(frozen=True)
class Gain:
    """What new trials may add to the accuracy of the best finished trial."""

    trials: int
    mean: float
    low: float
    """In nine of ten cases it is more."""
    high: float
    """In nine of ten cases it is less."""


@dataclass(frozen=True)
class Explanation:
    """What the model thinks of a study."""

    expected: Sequence[Expectation]
    """The best trials, the best first."""
    importances: Mapping[str, float]
    """The share of each key in the differences between predicted ends."""
    unfinished: Mapping[str, Sequence[Scalar]]
    """Choices with which no trial was trained to its end, by key: the model has not seen how their curves end."""
    gain: Gain | None
    """None before a trial has finished."""


def forecast_of(trials: Sequence[TrialView], space: Space, epochs: int) -> Forecast | None:
    """None if there are too few trials, or numbers that no model fits."""
    if sum(bool(trial.scores) for trial in trials if trial.state != "failed") < LEAST_TRIALS:
        return None
    try:
        return Forecast(space, modelled(trials), epochs, FreezeThaw(space, epochs).rungs)
    except np.linalg.LinAlgError:  # an explanation is not worth a search that fails at its end
        return None


def ends(trials: Sequence[TrialView], space: Space, epochs: int) -> dict[int, tuple[float, float]]:
    """The expected final accuracy of each trial that is not over, by number: median and standard deviation."""
    forecast = forecast_of(trials, space, epochs)
    live = {trial.number for trial in trials if trial.state in ("running", "paused")}
    return {number: end for number, end in forecast.ends().items() if number in live} if forecast else {}


def explain(trials: Sequence[TrialView], space: Space, epochs: int, seed: int) -> Explanation | None:
    """None where `forecast_of` is. `epochs` are those of a full training."""
    forecast = forecast_of(trials, space, epochs)
    if forecast is None:
        return None
    generator = np.random.default_rng([seed, len(trials)])
    ends = forecast.ends()
    by_number = {trial.number: trial for trial in trials if trial.scores and trial.state != "failed"}
    expected = [_expectation(trial, ends[number]) for number, trial in by_number.items() if number in ends]
    many = space.random(generator, CANDIDATES)
    finished = [trial for trial in trials if trial.state == "finished"]
    return Explanation(
        expected=sorted(expected, key=lambda each: -each.end)[:BEST],
        importances=forecast.importances(many, generator),
        unfinished=_unfinished(space, finished),
        gain=_gain(forecast, space, finished, generator) if finished else None,
    )


def _expectation(trial: TrialView, end: tuple[float, float]) -> Expectation:
    median, sd = (trial.scores[-1], 0.0) if trial.state == "finished" else end
    return Expectation(trial.number, trial.state, len(trial.scores), trial.scores[-1], median, sd)


def _unfinished(space: Space, finished: Sequence[TrialView]) -> dict[str, list[Scalar]]:
    found = {}
    for name, choices in space.unordered.items():
        left = [choice for choice in choices if choice not in {trial.values.get(name) for trial in finished}]
        if left:
            found[name] = left
    return found


def _gain(forecast: Forecast, space: Space, finished: Sequence[TrialView], generator: np.random.Generator) -> Gain:
    """Of MORE new trials that are trained to their ends, the most promising of those that the search would look at."""
    many, improvements = FreezeThaw(space, epochs=1).candidates(forecast, generator)
    promising = [many[index] for index in np.argsort(-improvements)[:MORE]]
    best = max(trial.scores[-1] for trial in finished)
    gains = np.maximum(forecast.drawn(promising, DRAWS, generator).max(1) - best, 0)
    low, high = np.quantile(gains, (0.1, 0.9))
    return Gain(len(promising), float(gains.mean()), float(low), float(high))


def of_study(project: Project, name: str, settings: Config) -> tuple[Explanation | None, Ledger]:
    """The explanation of a study, which may be running. Raises PipelineError if params.yaml has another space."""
    if name not in storages.studies(project):
        raise PipelineError(f"There is no study {name}; `python -m pipeline.tune --list` shows those that are there.")
    ledger = Ledger(storages.storage(project), name)
    space = Space.of(settings)
    if ledger.about.get("space") != space.described():
        raise PipelineError(
            f"The study {name} has another space than params.yaml. Give the --set values that it was started with."
        )
    views = [trial.view for trial in ledger.trials]
    return explain(views, space, settings.train.epochs, settings.tune.seed), ledger


def show(explanation: Explanation | None, ledger: Ledger, console: Console) -> None:
    """Prints it for a reader."""
    if explanation is None:
        console.print(f"{ledger.name}: too few trials yet; the model needs {LEAST_TRIALS} that have trained an epoch.")
        return
    table = Table("trial", "state", "epoch", "validation", "expected end", "values", box=None, pad_edge=False)
    for each in explanation.expected:
        end = f"{each.end:.2%}" if each.state == "finished" else f"{each.end:.1%} ± {each.sd:.1%}"
        values = on_a_line(ledger.trials[each.trial].values)
        table.add_row(str(each.trial), each.state, str(each.epochs), f"{each.accuracy:.2%}", end, values)
    console.print(table)
    for line in sentences(explanation):
        console.print(line, highlight=False)


def sentences(explanation: Explanation) -> list[str]:
    """What a reader should know besides the expected ends."""
    shares = sorted(explanation.importances.items(), key=lambda item: -item[1])
    found = ["What matters, by the model: " + ", ".join(f"{name} {share:.0%}" for name, share in shares) + "."]
    if explanation.unfinished:
        left = "; ".join(f"{name} {', '.join(map(shown, choices))}" for name, choices in explanation.unfinished.items())
        found.append(f"Never trained to the end: {left}. What these reach is the least certain.")
    gain = explanation.gain
    if gain:
        worth = "worth it" if gain.mean >= WORTH else "hardly worth it"
        found.append(
            f"{gain.trials} more trials: {100 * gain.mean:+.1f} points expected over the best finished one "
            f"(in 8 of 10 cases {100 * gain.low:.1f} to {100 * gain.high:.1f}): {worth}."
        )
    return found
