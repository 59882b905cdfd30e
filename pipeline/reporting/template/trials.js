// The pictures of a search that have its trials along its course: the best so far, curves, rungs, workers.
const search = data.search;
const trialOf = new Map(search ? search.trials.map((trial) => [trial.number, trial]) : []);
const last = (trial) => trial.scores[trial.scores.length - 1];
const STATES = ["finished", "pruned", "paused", "running", "failed"];

function about(trial) {
  const values = search.keys
    .filter((key) => key.name in trial.values)
    .map((key) => `${key.short} ${short(trial.values[key.name])}`);
  const score = trial.scores.length ? `${percent(last(trial), 2)} after ${trial.scores.length} of ${search.epochs} epochs` : "no epoch";
  return `trial ${trial.number}: ${trial.ended}, ${score}\n${values.join("\n")}`;
}

const hitOf = (trial) => ({ text: about(trial), page: trial.page, trial: trial.number, raise: true });

// Few trials that learned nothing must not squeeze all others into a line.
function scoreSpan(scores) {
  const sorted = [...scores].sort((a, b) => a - b);
  const low = sorted[scores.length >= 10 ? Math.floor(scores.length * 0.1) : 0];
  const range = span([low, sorted[sorted.length - 1]], 0.06);
  return { low: Math.max(0, range.low), high: Math.min(1.005, range.high) };
}
const accuracyAxis = (scores) => {
  const range = scoreSpan(scores);
  const digits = range.high - range.low < 0.05 ? 1 : 0;
  return { ...range, format: (share) => percent(share, digits), label: "validation accuracy" };
};
const stateLegend = (chart, trials, marks) =>
  chart.legend(STATES.filter((state) => trials.some((trial) => trial.state === state)).map((state) => [`${marks} ${state}`, state]));

pictures.progress = (host) => {
  const { points, best, spent } = search.progress;
  const shown = new Set([...search.drawn, ...best.map((point) => point.trial)]);
  const trials = points.map((point) => trialOf.get(point.trial));
  const axis = accuracyAxis(trials.map(last));
  const chart = new Chart(host, {
    height: 300,
    x: { low: 0, high: Math.max(1, spent), whole: true, label: "epochs of training spent by the whole search" },
    y: axis,
  });
  const steps = [];
  for (const [place, point] of best.entries()) {
    if (place) steps.push([point.spent, best[place - 1].score]);
    steps.push([point.spent, point.score]);
  }
  if (best.length) steps.push([spent, best[best.length - 1].score]);
  chart.line(steps.map(([x, y]) => [x, Math.max(y, axis.low)]), "best thick");
  for (const point of points) {
    if (!shown.has(point.trial)) continue;
    const trial = trialOf.get(point.trial);
    chart.dot(point.spent, Math.max(last(trial), axis.low), trial.state, hitOf(trial), 4);
  }
  stateLegend(chart, trials, "round");
};

pictures.curves_of_trials = (host) => {
  const trials = search.drawn.map((number) => trialOf.get(number));
  const axis = accuracyAxis(trials.map(last));
  const chart = new Chart(host, {
    height: 320,
    x: { low: Math.min(1, search.epochs), high: Math.max(2, search.epochs), whole: true, label: "epoch" },
    y: axis,
  });
  const order = [...trials].sort((a, b) => (a.state === "finished") - (b.state === "finished") || last(a) - last(b));
  for (const trial of order) {
    const inside = (score) => Math.max(score, axis.low);
    const points = trial.scores.map((score, place) => [place + 1, inside(score)]);
    const mark = points.length > 1 ? chart.line(points, `trial ${trial.state}`) : chart.dot(...points[0], trial.state, null, 3);
    points.forEach(([x, y]) => chart.hit(chart.x.place(x), chart.y.place(y), { ...hitOf(trial), mark }));
  }
  stateLegend(chart, trials, "stroke");
};

pictures.importances = (host) => {
  const { shares } = search.importances;
  const chart = new Chart(host, {
    height: 28 * shares.length + 16, right: 60, bottom: 6, top: 6,
    x: { low: 0, high: Math.max(0.01, ...shares.map(([, share]) => share)), hidden: true },
    y: { choices: shares.map(([name]) => name).reverse(), bare: true },
  });
  for (const [name, share] of shares) {
    const at = chart.y.place(name);
    const width = chart.x.place(share) - chart.left;
    chart.bar(chart.left, at - 8, Math.max(1, width), 16, "ours", { text: `${name}: ${percent(share)}` });
    chart.add("text", { class: "value", x: chart.left + width + 8, y: at + 4 }, share < 0.005 ? "< 1 %" : percent(share, 0), chart.marks);
  }
};

pictures.rungs = (host) => {
  const { rungs, epochs } = search;
  const total = search.trials.length;
  const chart = new Chart(host, {
    height: 240,
    x: { choices: rungs.map((_, place) => place + 1), bare: true, label: "epoch", format: (epoch) => (epochs <= 25 || epoch % Math.ceil(epochs / 20) === 0 || epoch === 1 ? String(epoch) : "") },
    y: { low: 0, high: total * 1.02, whole: true, label: "trials that trained it" },
  });
  const floor = chart.y.place(0);
  const width = chart.x.step * 0.78;
  rungs.forEach((number, place) => {
    const left = chart.x.place(place + 1) - width / 2;
    chart.bar(left, chart.y.place(total), width, floor - chart.y.place(total), "quiet");
    const text = `epoch ${place + 1}: ${count(number)} of ${count(total)} trials`;
    chart.bar(left, chart.y.place(number), width, floor - chart.y.place(number), "ours", { text });
    chart.hit(left + width / 2, floor, { text, box: [left, chart.top, left + width, floor] });
  });
  chart.legend([["block ours", "trained"], ["block quiet", "what a search without stopping would train too"]]);
};

pictures.timeline = (host) => {
  const { bars, lanes, cuts, length } = search.timeline;
  const row = lanes <= 12 ? 26 : 14;
  const [unit, seconds] = length < 180 ? ["seconds", 1] : length < 10800 ? ["minutes", 60] : ["hours", 3600];
  const chart = new Chart(host, {
    height: row * lanes + 60,
    x: { low: 0, high: Math.max(1, length) / seconds, label: `${unit} since the first training` },
    y: { choices: Array.from({ length: lanes }, (_, lane) => lanes - lane), bare: true, format: (lane) => `lane ${lane}` },
  });
  const inSearch = (bar) => (bar.phase === "trial" ? trialOf.get(bar.trial) : undefined);
  for (const bar of bars) {
    const trial = inSearch(bar);
    const state = bar.how === "failed" ? "failed" : trial ? trial.state : "confirm";
    const what = trial ? about(trial) : `confirmation ${bar.trial}`;
    const left = chart.x.place(bar.from / seconds);
    const words = { reached: "paused or ended", stopped: "the study was stopped", failed: "failed, and was tried again", ended: "ended", running: "still running" };
    chart.bar(left, chart.y.place(bar.lane + 1) - row * 0.36, Math.max(1.5, chart.x.place(bar.to / seconds) - left - 1), row * 0.72, state, {
      text: `${duration(bar.to - bar.from)}, until epoch ${bar.epoch}: ${words[bar.how]}\n${what}`, page: trial && trial.page,
    });
  }
  for (const cut of cuts) {
    const at = chart.x.place(cut.at / seconds);
    chart.add("line", { class: "line rule", x1: at, x2: at, y1: chart.top, y2: chart.height - chart.bottom }, undefined, chart.marks);
  }
  const states = STATES.filter((state) => bars.some((bar) => (inSearch(bar) || {}).state === state));
  const named = states.map((state) => [`block ${state}`, state]);
  if (bars.some((bar) => bar.phase === "confirm")) named.push(["block confirm", "confirmation with new seeds"]);
  chart.legend(named);
};
