// The pictures of one result: against others, its certainty, where it fails, how it was trained.
pictures.before = (host) => {
  const rows = data.before;
  const bottom = 44;
  const known = rows.filter((row) => row.low !== undefined);
  // The majority class may be far away: the axis then begins at 0, else it shows the differences.
  const all = rows.flatMap((row) => [row.low ?? row.accuracy, row.high ?? row.accuracy]);
  const chart = new Chart(host, {
    height: rows.length * 38 + bottom + 14, bottom, right: 66,
    x: { low: 0, high: Math.max(...all) > 0.5 ? 1 : Math.max(...all) * 1.1, format: (share) => percent(share, 0), label: "test accuracy" },
    y: { choices: rows.map((row) => row.name).reverse(), bare: true },
  });
  for (const row of rows) {
    const at = chart.y.place(row.name);
    const kind = row === rows[0] ? "ours" : "other";
    const text = `${row.name}: ${percent(row.accuracy, 2)}` +
      (row.low === undefined ? "" : `\n95 % interval ${percent(row.low, 2)} to ${percent(row.high, 2)}`);
    chart.bar(chart.left, at - 7, chart.x.place(row.accuracy) - chart.left, 14, kind, { text });
    if (row.low !== undefined) {
      chart.add("path", { class: "whisker", d: `M${chart.x.place(row.low)} ${at}H${chart.x.place(row.high)}M${chart.x.place(row.low)} ${at - 5}v10M${chart.x.place(row.high)} ${at - 5}v10` }, undefined, chart.marks);
    }
    chart.add("text", { class: "value", x: chart.x.place(row.high ?? row.accuracy) + 8, y: at + 4 }, percent(row.accuracy, known.length > 1 ? 2 : 1), chart.marks);
  }
};

pictures.reliability = (host) => {
  const bins = data.reliability;
  const chart = new Chart(host, {
    height: 320,
    x: { low: 0, high: 1, format: (share) => percent(share, 0), label: "confidence" },
    y: { low: 0, high: 1, format: (share) => percent(share, 0), label: "accuracy" },
  });
  const most = Math.max(...bins.map((bin) => bin.count));
  const floor = chart.y.place(0);
  for (const bin of bins) {
    const [left, right] = [chart.x.place(bin.from), chart.x.place(bin.to)];
    const height = (bin.count / most) * (floor - chart.y.place(0.3));
    chart.bar(left + 1, floor - height, right - left - 2, height, "quiet");
  }
  chart.line([[0, 0], [1, 1]], "rule");
  for (const bin of bins) {
    chart.add("path", { class: "whisker", d: `M${chart.x.place(bin.confidence)} ${chart.y.place(bin.low)}V${chart.y.place(bin.high)}` }, undefined, chart.marks);
    chart.dot(bin.confidence, bin.accuracy, "ours", {
      text: `confidence ${percent(bin.from, 0)} to ${percent(bin.to, 0)}: ${count(bin.count)} images\nmean confidence ${percent(bin.confidence)}\naccuracy ${percent(bin.accuracy)} (${percent(bin.low)} to ${percent(bin.high)})`,
    }, 5);
  }
};

pictures.coverage = (host) => {
  const points = data.coverage;
  const shown = span(points.map((point) => point.accuracy), 0.08);
  const chart = new Chart(host, {
    height: 320,
    x: { low: 0, high: 1, format: (share) => percent(share, 0), label: "share of the images, the surest first" },
    y: { ...shown, format: (share) => percent(share, shown.high - shown.low < 0.05 ? 1 : 0), label: "accuracy on them" },
  });
  chart.line(points.map((point) => [point.coverage, point.accuracy]), "ours thick");
  for (const point of points) {
    chart.dot(point.coverage, point.accuracy, "hidden", {
      text: `the surest ${percent(point.coverage)}: ${percent(point.accuracy, 2)} right\nthose with a confidence of at least ${percent(point.threshold)}`,
    });
  }
};

pictures.slices = (host) => {
  const all = data.slices.flatMap((slice) => slice.groups.flatMap((group) => [group.low, group.high]));
  const y = { ...span([...all, data.accuracy], 0.06), format: (share) => percent(share, 0), label: "accuracy" };
  const grid = html("div", { class: "multiples" });
  host.append(grid);
  for (const slice of data.slices) {
    const cell = html("div", { "data-alt": `Accuracy by ${slice.title}: ` + slice.groups.map((group) => percent(group.accuracy)).join(", ") + ", from low to high." });
    cell.append(html("h4", {}, slice.title));
    grid.append(cell);
    const chart = new Chart(cell, {
      height: 210, y,
      x: { choices: slice.groups.map((_, place) => place), bare: true, format: (place) => (place === 0 ? slice.ends[0] : place === slice.groups.length - 1 ? slice.ends[1] : "") },
    });
    const middle = chart.y.place(data.accuracy);
    chart.add("line", { class: "line rule", x1: chart.left, x2: chart.width - chart.right, y1: middle, y2: middle }, undefined, chart.marks);
    slice.groups.forEach((group, place) => {
      const at = chart.x.place(place);
      const kind = group.weak ? "bad" : "ours";
      chart.add("path", { class: `whisker ${kind}`, d: `M${at} ${chart.y.place(group.low)}V${chart.y.place(group.high)}` }, undefined, chart.marks);
      chart.dot(place, group.accuracy, kind, {
        text: `${slice.title} ${group.from} to ${group.to}: ${count(group.count)} images\naccuracy ${percent(group.accuracy)} (${percent(group.low)} to ${percent(group.high)})`,
      }, 5);
    });
  }
};

function curve(host, options, series) {
  const epochs = data.history.epoch;
  const numbers = series.flatMap((one) => one.values).concat(options.also || []);
  const range = options.zero ? { low: 0, high: span(numbers).high } : span(numbers);
  const chart = new Chart(host, {
    height: 240,
    x: { low: epochs[0], high: epochs[epochs.length - 1], whole: true, label: "epoch" },
    y: { ...range, ...options.y },
  });
  for (const { name, values, kind } of series) {
    chart.line(values.map((value, place) => [epochs[place], value]), kind);
    values.forEach((value, place) => {
      if (value === null) return;
      const seen = epochs.length <= 30 && !kind.includes("thin") ? kind : "hidden";
      chart.dot(epochs[place], value, seen, { text: `epoch ${epochs[place]}\n${name} ${options.say(value)}` }, 2.5);
    });
  }
  const named = series.filter((one) => one.legend).map((one) => [one.kind, one.legend]);
  if (named.length) chart.legend(named);
}

function trainingAndValidation(name, options) {
  return (host) => {
    const others = name === "accuracy" ? data.seeds : [];
    curve(host, options, [
      ...others.map((values, place) => ({ name: `another seed: validation`, values, kind: "thin seed", legend: place ? undefined : "other seeds" })),
      { name: "training", values: data.history[`training_${name}`], kind: "training dashed", legend: "training" },
      { name: "validation", values: data.history[`validation_${name}`], kind: "validation", legend: "validation" },
    ]);
  };
}

pictures.accuracy = trainingAndValidation("accuracy", { y: { format: (share) => percent(share, 0), label: "accuracy" }, say: (share) => percent(share, 2) });
pictures.loss = trainingAndValidation("loss", { y: { label: "cross-entropy (nats)" }, say: (loss) => loss.toPrecision(4) });
pictures.learning_rate = (host) =>
  curve(host, { zero: true, y: { label: "learning rate" }, say: short }, [{ name: "learning rate", values: data.history.learning_rate, kind: "rate" }]);
pictures.images_per_second = (host) =>
  curve(host, { zero: true, y: { label: "images a second", format: count }, say: (speed) => `${count(Math.round(speed))} images/s` }, [{ name: "", values: data.history.images_per_second, kind: "speed" }]);
