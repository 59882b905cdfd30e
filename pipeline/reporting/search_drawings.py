"""The page's pictures of a search as PNG files for MLflow, drawn from the data that the page's script draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pipeline.reporting import study_plots
from pipeline.reporting.drawings import ALARM, QUIET, Data, as_percent, canvas, dress
from pipeline.reporting.plots import FRAME, INK, STYLE, TRAINING, VALIDATION, png

STATES = {"finished": VALIDATION, "pruned": "#8a949f", "paused": "#e0a100", "running": "#00795a", "failed": ALARM}
HATCH = "#4b535c"


def of_search(data: Data) -> dict[str, bytes]:
    """PNG images by name, of `search_pictures.as_data`. One that lacks data is missing."""
    found: dict[str, bytes] = {}
    if not data["drawn"]:
        return found
    found |= {"optimisation_history": progress(data), "learning_curves": curves(data), "rungs": rungs(data)}
    if data["importances"]["shares"]:
        found["importances"] = study_plots.importances(dict(data["importances"]["shares"]))
    if data["keys"]:
        coordinates = [study_plots.Coordinate(key["name"], key["log"], key["choices"]) for key in data["keys"]]
        lines = [study_plots.Line(trial["values"], trial["scores"][-1]) for trial in _drawn(data)]
        found["parallel_coordinates"] = study_plots.parallel_coordinates(lines, coordinates)
        found["values_of_keys"] = values_of_keys(data)
    if data["timeline"]["bars"]:
        found["timeline"] = timeline(data)
    if data["surface"]:
        found["surface"] = surface(data)
    return found


def progress(data: Data) -> bytes:
    """Draws where each trial ended over the epochs that the search had spent, and the best finished one so far."""
    points, best, spent = (data["progress"][name] for name in ("points", "best", "spent"))
    trials = {trial["number"]: trial for trial in data["trials"]}
    shown = {*data["drawn"], *(point["trial"] for point in best)}
    with style.context(["default", STYLE]):
        figure, axes = canvas(7.2, 3.4)
        low, high = _span([trials[point["trial"]]["scores"][-1] for point in points])
        seen = [point for point in points if point["trial"] in shown]
        ended = [trials[point["trial"]] for point in seen]
        _dots(axes, [point["spent"] for point in seen], [max(low, trial["scores"][-1]) for trial in ended], ended)
        if best:
            heights = [max(low, point["score"]) for point in best]
            steps = [point["spent"] for point in best]
            axes.step([*steps, spent], [*heights, heights[-1]], where="post", color=TRAINING, zorder=2)
        axes.set_title(f"Best finished trial: {best[-1]['score']:.2%}" if best else "No trial has finished")
        axes.set_xlim(left=0)
        as_percent(axes.yaxis, low, high)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        axes.set_xlabel("epochs of training spent by the whole search (hollow: stopped before its end)")
        axes.set_ylabel("validation accuracy")
        return png(figure)


def curves(data: Data) -> bytes:
    """Draws the learning curves by how the trials ended."""
    with style.context(["default", STYLE]):
        figure, axes = canvas(7.2, 3.4)
        trials = sorted(_drawn(data), key=lambda trial: (trial["state"] == "finished", trial["scores"][-1]))
        low, high = _span([trial["scores"][-1] for trial in trials])
        lines = [np.column_stack([range(1, len(one["scores"]) + 1), np.maximum(low, one["scores"])]) for one in trials]
        colours = [STATES[trial["state"]] for trial in trials]
        axes.add_collection(LineCollection(lines, colors=colours, linewidths=1, alpha=0.8))
        # One epoch draws no line.
        ends = np.array([line[-1] for line in lines])
        axes.scatter(ends[:, 0], ends[:, 1], 6, colours)
        states = [state for state in STATES if any(trial["state"] == state for trial in trials)]
        for state in states:
            axes.plot([], [], color=STATES[state], label=state)
        axes.legend(loc="lower right", frameon=False)
        axes.set_title("Learning curves")
        as_percent(axes.yaxis, low, high)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy")
        return png(figure)


def values_of_keys(data: Data) -> bytes:
    """Draws the accuracy of the trials over the values of each key."""
    keys, trials = data["keys"], sorted(_drawn(data), key=lambda trial: trial["scores"][-1])
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    low, high = _span([trial["scores"][-1] for trial in trials])
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(2.8 * columns, 2.3 * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, key in zip(places, keys, strict=False):
            dress(axes)
            known = [trial for trial in trials if key["name"] in trial["values"]]
            names = [str(choice) for choice in key["choices"] or ()]
            values = [trial["values"][key["name"]] for trial in known]
            if names:
                # Trials of one choice stand side by side.
                aside = [((trial["number"] * 0.618) % 1 - 0.5) * 0.5 for trial in known]
                values = [names.index(str(value)) + more for value, more in zip(values, aside, strict=True)]
            _dots(axes, values, [max(low, trial["scores"][-1]) for trial in known], known)
            if names:
                each = -(-len(names) // 8)
                axes.set_xticks(range(0, len(names), each), [_cut(name) for name in names[::each]])
            elif key["log"] and known:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_title(key["name"], fontsize=9)
        for axes in places[len(keys) :]:
            axes.set_visible(False)
        as_percent(places[0].yaxis, low, high)
        return png(figure)


def rungs(data: Data) -> bytes:
    """Draws how many trials trained each epoch, before what a search without stopping would train."""
    numbers, total = data["rungs"], len(data["trials"])
    with style.context(["default", STYLE]):
        figure, axes = canvas(5.4, 2.8)
        epochs = range(1, len(numbers) + 1)
        axes.bar(epochs, [total] * len(numbers), color=QUIET, label="without stopping early")
        axes.bar(epochs, numbers, color=VALIDATION, label="trained")
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, frameon=False)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        axes.set_title("Trials that trained each epoch")
        axes.set_xlabel("epoch")
        return png(figure)


def timeline(data: Data) -> bytes:
    """Draws who trained what and when: a lane has one training at a time."""
    bars, lanes, cuts, length = (data["timeline"][name] for name in ("bars", "lanes", "cuts", "length"))
    states = {trial["number"]: trial["state"] for trial in data["trials"]}
    unit, seconds = ("seconds", 1) if length < 180 else ("minutes", 60) if length < 10800 else ("hours", 3600)
    with style.context(["default", STYLE]):
        figure, axes = canvas(7.2, 0.9 + 0.26 * min(lanes, 40))
        for lane in range(lanes):
            own = [bar for bar in bars if bar["lane"] == lane]
            spans = [(bar["from"] / seconds, max(bar["to"] - bar["from"], length / 800) / seconds) for bar in own]
            axes.broken_barh(spans, (lane - 0.35, 0.7), facecolors=[_colour(bar, states) for bar in own])
        for cut in cuts:
            axes.axvline(cut["at"] / seconds, color=FRAME, linestyle="--", linewidth=1)
        axes.set_yticks(range(lanes) if lanes <= 12 else [])
        axes.set_ylabel("lane")
        axes.invert_yaxis()
        axes.set_title("Trainings; orange: confirmation with new seeds")
        axes.set_xlabel(f"{unit} since the first training")
        return png(figure)


def surface(data: Data) -> bytes:
    """Draws the predicted accuracy over two keys: filled contours, or cells. Hatched where the model is unsure."""
    found = data["surface"]
    keys, heights, levels = found["keys"], np.array(found["accuracies"]), found["levels"]
    across, up = (np.linspace(0, 1, len(key["values"])) for key in keys)
    edges = [min(levels[0], heights.min()), *levels[1:-1], max(levels[-1], heights.max())]
    with style.context(["default", STYLE, {"hatch.linewidth": 0.6, "hatch.color": HATCH}]):
        figure, axes = canvas(6.4, 4.2)
        axes.grid(visible=False)
        drawn: ScalarMappable
        if found["contour"]:
            drawn = axes.contourf(across, up, heights, edges, cmap="Blues")
            sds = np.array(found["sds"])
            if sds.max() > found["limit"]:
                axes.contourf(across, up, sds, [found["limit"], sds.max() + 1], colors="none", hatches=["///"])
        else:
            # From cell to cell: half of one beyond the first and the last value.
            sides = [half_beyond(places) for places in (across, up)]
            drawn = axes.pcolormesh(*sides, heights, cmap="Blues", norm=BoundaryNorm(edges, 256))
            cells = [
                Rectangle((sides[0][i], sides[1][j]), across[1] - across[0], up[1] - up[0])
                for j, i in np.argwhere(np.array(found["sds"]) > found["limit"])
            ]
            axes.add_collection(PatchCollection(cells, facecolor="none", edgecolor=HATCH, hatch="///", linewidth=0))
        bar = figure.colorbar(drawn, ax=axes, ticks=levels[1:-1])
        bar.ax.set_yticklabels([f"{100 * level:g} %" for level in levels[1:-1]])
        placed = [(trial, [_place(key, trial["values"].get(key["name"])) for key in keys]) for trial in _drawn(data)]
        known = [(trial, at[0], at[1]) for trial, at in placed if at[0] is not None and at[1] is not None]
        if known:
            trials, xs, ys = zip(*known, strict=True)
            _dots(axes, xs, ys, trials, INK)
        for trial, x, y in known:
            if trial["number"] == data["winner"]:
                axes.scatter([x], [y], 60, TRAINING, edgecolors="white", zorder=4)
        for key, axis in zip(keys, (axes.xaxis, axes.yaxis), strict=True):
            values = key["values"]
            chosen = sorted({round(place) for place in np.linspace(0, len(values) - 1, min(6, len(values)))})
            shown = [f"{values[at]:.3g}" if isinstance(values[at], float) else _cut(str(values[at])) for at in chosen]
            axis.set_ticks([at / (len(values) - 1) for at in chosen], shown)
            axis.set_label_text(key["name"])
        axes.set_title(f"Predicted accuracy; hatched: unsure by more than ± {100 * found['limit']:.1f}")
        return png(figure)


def _colour(bar: Data, states: Mapping[int, str]) -> str:
    if bar["how"] == "failed":
        return ALARM
    is_search = bar["phase"] == "trial" and bar["trial"] in states
    return STATES[states[bar["trial"]]] if is_search else TRAINING


def half_beyond(places: Any) -> Any:
    """The sides of cells around equally distant places."""
    step = places[1] - places[0]
    return np.append(places - step / 2, places[-1] + step / 2)


def _place(key: Data, value: Any) -> float | None:
    """Of a trial's value on an axis of a surface, 0..1."""
    values = key["values"]
    if value is None:
        return None
    if key["is_listed"]:
        names = [str(one) for one in values]
        return names.index(str(value)) / (len(values) - 1) if str(value) in names else None
    ends = [np.log(one) if key["log"] else one for one in (values[0], value, values[-1])]
    return float((ends[1] - ends[0]) / (ends[2] - ends[0]))


def _drawn(data: Data) -> list[Data]:
    chosen = set(data["drawn"])
    return [trial for trial in data["trials"] if trial["number"] in chosen]


def _dots(
    axes: Axes, xs: Sequence[float], ys: Sequence[float], trials: Sequence[Data], edge: str | None = None
) -> None:
    """Trials, hollow if they were stopped before their end."""
    is_stopped = [trial["state"] in ("pruned", "paused", "running") for trial in trials]
    colours = [edge or STATES[trial["state"]] for trial in trials]
    fills = ["white" if hollow else colour for hollow, colour in zip(is_stopped, colours, strict=True)]
    axes.scatter(xs, ys, 18, fills, edgecolors=colours, linewidths=1, zorder=3)


def _span(scores: Sequence[float]) -> tuple[float, float]:
    """A few trials that learned nothing must not squeeze all others into a line: as scoreSpan in the page's script."""
    ordered = sorted(scores)
    low = ordered[int(len(ordered) * 0.1) if len(ordered) >= 10 else 0]
    margin = 0.06 * (ordered[-1] - low) or 0.02
    return max(0.0, low - margin), min(1.005, ordered[-1] + margin)


def _cut(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"
