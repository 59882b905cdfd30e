// The space of a search: parallel coordinates, on which a range can be selected, and the values of each key.
const selected = new Map(); // ranges [low, high] of the places on an axis, by its name

function axisOf(key, from, to, room = 40) {
  const values = search.trials.map((trial) => trial.values[key.name]).filter((value) => value !== undefined);
  if (key.choices || !values.every((value) => typeof value === "number")) {
    return makeAxis({ choices: key.choices || [...new Set(values)] }, from, to);
  }
  const range = values.length ? { low: Math.min(...values), high: Math.max(...values) } : { low: 0, high: 1 };
  return makeAxis({ ...range, log: key.log && range.low > 0, room }, from, to);
}

// How good a trial is among those that are drawn, 0 to 1. The worst quarter shares one colour.
function merit(trials) {
  const sorted = trials.map(last).sort((a, b) => a - b);
  const low = sorted[Math.floor(sorted.length * 0.25)];
  const high = sorted[sorted.length - 1];
  return (trial) => (high > low ? Math.max(0, (last(trial) - low) / (high - low)) : 1);
}

pictures.parallel = (host) => {
  const trials = search.drawn.map((number) => trialOf.get(number)).sort((a, b) => last(a) - last(b));
  const least = 120;
  const frame = html("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Parallel coordinates" });
  frame.dataset.alt = host.dataset.alt;
  host.append(frame);
  const names = [...search.keys.map((key) => key.name), ""];
  const width = Math.max(frame.clientWidth, names.length * least);
  const chart = new Chart(frame, { width, height: 360 });
  const [top, bottom, off] = [52, 316, 344];
  const step = (width - 110) / (names.length - 1);
  const axes = search.keys.map((key, place) => ({ name: key.name, short: key.short, x: 70 + place * step, ...axisOf(key, bottom, top), at: (trial) => trial.values[key.name] }));
  const scores = scoreSpan(trials.map(last));
  axes.push({ name: "validation accuracy", short: "accuracy", x: 70 + (names.length - 1) * step, ...makeAxis({ ...scores, format: (share) => percent(share, scores.high - scores.low < 0.05 ? 1 : 0) }, bottom, top), at: (trial) => Math.max(scores.low, last(trial)) });
  const placeOn = (axis, trial) => (axis.at(trial) === undefined ? off : axis.place(axis.at(trial)));
  const worth = merit(trials);
  const best = trials[trials.length - 1];
  const lines = new Map();
  for (const trial of trials) {
    const points = axes.map((axis) => [axis.x, placeOn(axis, trial)]);
    const mark = chart.add("path", {
      class: trial === best ? "line trial top" : "line trial shaded", d: "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L"),
      style: `--merit: ${(100 * worth(trial)).toFixed(0)}%`,
    }, undefined, chart.marks);
    lines.set(trial.number, mark);
    // Between two axes too, where the eye follows a line.
    points.forEach(([x, y], place) => {
      chart.hit(x, y, { ...hitOf(trial), mark });
      if (place) chart.hit((x + points[place - 1][0]) / 2, (y + points[place - 1][1]) / 2, { ...hitOf(trial), mark });
    });
  }
  const unused = axes.some((axis) => trials.some((trial) => axis.at(trial) === undefined));
  if (unused) chart.add("text", { class: "tick", x: 4, y: off + 4 }, "not used");
  for (const axis of axes) {
    chart.add("line", { class: "axis", x1: axis.x, x2: axis.x, y1: top, y2: bottom });
    chart.add("text", { class: "value", x: axis.x, y: 30, "text-anchor": "middle" }, axis.short);
    for (const tick of axis.ticks) {
      chart.add("text", { class: "tick halo", x: axis.x - 7, y: axis.place(tick.value) + 4, "text-anchor": "end" }, tick.text);
    }
    axis.brush = chart.add("rect", { class: "brush", x: axis.x - 9, width: 18, y: 0, height: 0 });
    axis.grip = chart.add("rect", { class: "grip", x: axis.x - 16, y: top - 8, width: 32, height: bottom - top + 16 });
    listenTo(axis);
  }
  show();

  function listenTo(axis) {
    let from = null;
    const where = (event) => ((event.clientY - chart.svg.getBoundingClientRect().top) * chart.height) / chart.svg.getBoundingClientRect().height;
    axis.grip.addEventListener("pointerdown", (event) => {
      from = where(event);
      axis.grip.setPointerCapture(event.pointerId);
    });
    axis.grip.addEventListener("pointermove", (event) => {
      if (from === null || Math.abs(where(event) - from) < 4) return;
      selected.set(axis.name, [Math.min(from, where(event)), Math.max(from, where(event))]);
      show();
    });
    axis.grip.addEventListener("pointerup", (event) => {
      if (from !== null && Math.abs(where(event) - from) < 4) selected.delete(axis.name);
      from = null;
      show();
    });
    axis.grip.addEventListener("click", (event) => event.stopPropagation());
  }

  function show() {
    const inside = (trial) => axes.every((axis) => {
      const range = selected.get(axis.name);
      if (!range) return true;
      const value = trial.scores.length || axis.at !== axes[axes.length - 1].at ? axis.at(trial) : undefined;
      const at = value === undefined ? off : axis.place(value);
      return at >= range[0] && at <= range[1];
    });
    for (const axis of axes) {
      const [low, high] = selected.get(axis.name) || [0, 0];
      axis.brush.setAttribute("y", low);
      axis.brush.setAttribute("height", high - low);
    }
    for (const [number, mark] of lines) mark.classList.toggle("out", !inside(trialOf.get(number)));
    document.dispatchEvent(new CustomEvent("selected", { detail: selected.size ? (number) => inside(trialOf.get(number)) : null }));
  }
};

pictures.values_of_keys = (host) => {
  const trials = search.drawn.map((number) => trialOf.get(number)).sort((a, b) => last(a) - last(b));
  const grid = html("div", { class: "multiples" });
  host.append(grid);
  const y = accuracyAxis(trials.map(last));
  for (const key of search.keys) {
    const known = trials.filter((trial) => key.name in trial.values);
    if (!known.length) continue;
    const cell = html("div", { "data-alt": `Validation accuracy of ${known.length} trials over ${key.name}.` });
    cell.append(html("h4", {}, key.name));
    grid.append(cell);
    const chart = new Chart(cell, { height: 210, y: { ...y, label: undefined }, x: { low: 0, high: 1, hidden: true } });
    chart.x = axisOf(key, chart.left + 12, chart.width - chart.right - 12, 64);
    chart.drawX({ bare: true });
    known.forEach((trial) => {
      const dot = chart.dot(trial.values[key.name], Math.max(y.low, last(trial)), trial.state, hitOf(trial), 4);
      // Trials of one choice stand side by side.
      if (chart.x.step) {
        const moved = chart.x.place(trial.values[key.name]) + (((trial.number * 0.618) % 1) - 0.5) * Math.min(28, chart.x.step * 0.6);
        dot.setAttribute("cx", moved.toFixed(1));
        chart.hits[chart.hits.length - 1].x = moved;
      }
    });
  }
};
