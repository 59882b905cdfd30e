// What the search's model believes of two keys: filled contours, or a cell for each pair of values.
function surfaceAxis(key, from, to, pad, room) {
  const [start, end] = from < to ? [from + pad, to - pad] : [from - pad, to + pad];
  if (!key.is_listed) {
    const range = { low: key.values[0], high: key.values[key.values.length - 1], log: key.log, room };
    return makeAxis(range, start, end);
  }
  const names = key.values.map(String);
  const place = (value) => start + ((end - start) * names.indexOf(String(value))) / (names.length - 1);
  const step = Math.abs(end - start) / (names.length - 1);
  const widest = Math.max(...key.values.map((value) => widthOf(short(value)))) + 10;
  const each = Math.max(1, Math.ceil((room < 50 ? 18 : widest) / step));
  return { place, ticks: key.values.filter((_, at) => at % each === 0).map((value) => ({ value, text: short(value) })) };
}

pictures.surface = (host) => {
  const { keys: [across, up], accuracies, sds, levels, limit, contour, areas, unsure } = search.surface;
  const digits = levels[1] - levels[0] < 0.0099 ? (levels[1] - levels[0] < 0.00099 ? 2 : 1) : 0;
  const merit = (level) => `--merit: ${Math.round(8 + (84 * level) / Math.max(1, levels.length - 2))}%`;
  const chart = new Chart(host, { height: Math.min(460, Math.max(300, host.clientWidth * 0.5)), y: { low: 0, high: 1, hidden: true }, top: 10 });
  const [bottom, right] = [chart.height - chart.bottom, chart.width - chart.right];
  const named = up.is_listed ? up.values.map((value) => widthOf(short(value))) : [44];
  chart.left = Math.min(chart.width * 0.4, Math.max(...named) + 40);
  const pads = contour ? [0, 0] : [(right - chart.left) / across.values.length / 2, (bottom - chart.top) / up.values.length / 2];
  chart.x = surfaceAxis(across, chart.left, right, pads[0], 64);
  chart.y = surfaceAxis(up, bottom, chart.top, pads[1], 44);
  // The areas lie under the axes and the dots.
  const ground = chart.add("g", {}, undefined, chart.marks);
  const [x0, x1, y0, y1] = [chart.left + pads[0], right - pads[0], bottom - pads[1], chart.top + pads[1]];
  const ring = (points) => "M" + points.map(([x, y]) => `${(x0 + ((x1 - x0) * x) / 1000).toFixed(1)} ${(y0 + ((y1 - y0) * y) / 1000).toFixed(1)}`).join("L") + "Z";
  const hatch = svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  hatch.append(svg("line", { class: "hatch", x1: 0, x2: 0, y1: 0, y2: 6 }));
  chart.svg.prepend(hatch);
  areas.forEach((rings, level) => {
    if (rings.length) chart.add("path", { class: "area", d: rings.map(ring).join(""), style: merit(level) }, undefined, ground);
  });
  if (unsure.length) chart.add("path", { class: "unsure", d: unsure.map(ring).join(""), fill: "url(#hatch)" }, undefined, ground);
  const [width, height] = [accuracies[0].length, accuracies.length];
  const steps = contour ? [(x1 - x0) / (width - 1), (y0 - y1) / (height - 1)] : [2 * pads[0], 2 * pads[1]];
  accuracies.forEach((row, j) => row.forEach((accuracy, i) => {
    const [x, y] = [width > 1 ? x0 + ((x1 - x0) * i) / (width - 1) : x0, height > 1 ? y0 + ((y1 - y0) * j) / (height - 1) : y0];
    const box = [x - steps[0] / 2, y - steps[1] / 2, x + steps[0] / 2, y + steps[1] / 2];
    const text = `${across.short} ${short(across.values[i])}\n${up.short} ${short(up.values[j])}\npredicted ${percent(accuracy, 2)} ± ${(100 * sds[j][i]).toFixed(2)}`;
    let mark;
    if (!contour) {
      const level = levels.slice(1, -1).filter((edge) => accuracy >= edge).length;
      // Whole pixels, so that no line shows between two cells.
      const sides = box.map(Math.round);
      const place = { x: sides[0], y: sides[1], width: sides[2] - sides[0], height: sides[3] - sides[1] };
      mark = chart.add("rect", { class: "area", "shape-rendering": "crispEdges", ...place, style: merit(level) }, undefined, ground);
      if (sds[j][i] > limit) chart.add("rect", { class: "unsure", ...place, fill: "url(#hatch)" }, undefined, ground);
    }
    chart.hit(x, y, { text, mark, box, behind: true });
  }));
  chart.drawX({ bare: true, label: across.name });
  chart.drawY({ bare: true, label: up.name });
  chart.add("line", { class: "axis", x1: chart.left, x2: chart.left, y1: chart.top, y2: bottom });
  const inside = (key, value) => value !== undefined && (key.is_listed ? key.values.map(String).includes(String(value)) : true);
  const trials = search.drawn.map((number) => trialOf.get(number)).filter((trial) => inside(across, trial.values[across.name]) && inside(up, trial.values[up.name]));
  const ordered = [...trials.filter((trial) => trial.number !== search.winner), ...trials.filter((trial) => trial.number === search.winner)];
  for (const trial of ordered) {
    const kind = trial.number === search.winner ? "finished top" : trial.state;
    const dot = chart.dot(trial.values[across.name], trial.values[up.name], kind, hitOf(trial), kind === "finished top" ? 6 : 4);
    // Trials of one choice stand side by side.
    if (!contour) {
      const hit = chart.hits[chart.hits.length - 1];
      if (across.is_listed) hit.x += (((trial.number * 0.618) % 1) - 0.5) * Math.min(28, steps[0] * 0.7);
      if (up.is_listed) hit.y += (((trial.number * 0.755) % 1) - 0.5) * Math.min(28, steps[1] * 0.7);
      dot.setAttribute("cx", hit.x.toFixed(1));
      dot.setAttribute("cy", hit.y.toFixed(1));
    }
  }
  const list = html("ul", { class: "legend", "aria-hidden": "true" });
  for (let level = 0; level < levels.length - 1; level++) {
    const text = level ? `${percent(levels[level], digits)} to ${percent(levels[level + 1], digits)}` : `below ${percent(levels[1], digits)}`;
    list.append(html("li", {}, html("span", { class: "swatch area", style: merit(level) }), text));
  }
  list.append(html("li", {}, html("span", { class: "swatch hatched" }), `unsure by more than ± ${(100 * limit).toFixed(1)}`));
  host.prepend(list);
};
