// The confusion matrix: counts or rates, in an order in which confused classes stand together, or in that of the data.
const READABLE = 40; // classes whose names and numbers can be read at once

const matrix = { numbers: "counts", order: "together", part: data.confusion && data.confusion.classes.length > READABLE ? "worst" : "all" };

function choice(host, label, key, options) {
  const select = html("select", {});
  for (const [value, name] of options) {
    const option = html("option", { value }, name);
    option.selected = matrix[key] === value;
    select.append(option);
  }
  select.addEventListener("change", () => {
    matrix[key] = select.value;
    drawMatrix(host);
  });
  return html("label", {}, label + " ", select);
}

pictures.confusion = (host) => {
  if (!host.querySelector(".controls")) {
    const controls = html("div", { class: "controls" });
    controls.append(choice(host, "Show", "numbers", [["counts", "counts"], ["rates", "rates of the actual class"]]));
    controls.append(choice(host, "Order", "order", [["together", "confused classes together"], ["data", "as in the data"]]));
    if (data.confusion.classes.length > READABLE) {
      controls.append(choice(host, "Classes", "part", [["worst", `the ${READABLE} with the most mistakes`], ["all", `all ${data.confusion.classes.length}`]]));
    }
    host.append(controls);
  }
  drawMatrix(host);
};

function shownClasses() {
  const { classes, cells, order } = data.confusion;
  let shown = matrix.order === "together" ? order : classes.map((_, place) => place);
  if (matrix.part === "worst") {
    const mistakes = classes.map(() => 0);
    for (const [row, column, number] of cells) if (row !== column) { mistakes[row] += number; mistakes[column] += number; }
    const worst = new Set(classes.map((_, place) => place).sort((a, b) => mistakes[b] - mistakes[a]).slice(0, READABLE));
    shown = shown.filter((place) => worst.has(place));
  }
  return shown;
}

function drawMatrix(host) {
  host.querySelectorAll(":scope > .wide").forEach((old) => old.remove());
  const { classes, cells, support } = data.confusion;
  const shown = shownClasses();
  const cut = (name) => (name.length > 22 ? `${name.slice(0, 21)}…` : name);
  const longest = Math.max(...shown.map((place) => widthOf(cut(classes[place]))));
  const named = shown.length <= 120;
  const room = named ? 14 + longest : 20;
  const frame = html("div", { class: "wide scroll", tabindex: "0", role: "region", "aria-label": "Confusion matrix" });
  host.append(frame);
  const least = shown.length <= READABLE ? 16 : named ? 12 : 3;
  const cell = Math.max(least, Math.min(shown.length <= 12 ? 58 : 44, (frame.clientWidth - room - 24) / shown.length));
  const slanted = longest > cell;
  const side = cell * shown.length;
  const angle = cell < 18 ? 90 : 40;
  const below = named ? (slanted ? room * (angle === 90 ? 1 : 0.75) + 26 : 44) : 30;
  frame.dataset.alt = host.dataset.alt;
  const chart = new Chart(frame, { width: Math.ceil(room + 24 + side + (slanted ? 40 : 8)), height: Math.ceil(side + below + 8) });
  const [left, top] = [room + 18, 4];
  const place = new Map(shown.map((number, at) => [number, at]));
  chart.add("rect", { class: "ground", x: left, y: top, width: side, height: side }, undefined, chart.marks);
  const size = Math.min(12, cell * (matrix.numbers === "counts" ? 0.42 : 0.36));
  for (const [row, column, number] of cells) {
    if (!place.has(row) || !place.has(column)) continue;
    const share = number / support[row];
    const [x, y] = [left + place.get(column) * cell, top + place.get(row) * cell];
    // The square root lets a share of 1 % be seen beside one of 95 %, and the floor a single image of many.
    const made = chart.add("rect", { class: row === column ? "cell right" : "cell wrong", x: x.toFixed(2), y: y.toFixed(2), width: cell.toFixed(2), height: cell.toFixed(2), style: `--share: ${(12 + 88 * Math.sqrt(share)).toFixed(1)}%` }, undefined, chart.marks);
    const text = row === column
      ? `${classes[row]}: ${count(number)} of ${count(support[row])} recognised (${percent(share)})`
      : `${classes[row]} taken for ${classes[column]}:\n${count(number)} of ${count(support[row])} (${percent(share)})`;
    chart.hit(x + cell / 2, y + cell / 2, { text, mark: made, box: [x, y, x + cell, y + cell] });
    if (cell >= 20) {
      const written = matrix.numbers === "counts" ? count(number) : (100 * share).toFixed(share < 0.0995 ? 1 : 0);
      chart.add("text", { class: share > 0.3 ? "in-cell dark" : "in-cell", x: x + cell / 2, y: y + cell / 2 + size * 0.36, "text-anchor": "middle", "font-size": size }, written, chart.marks);
    }
  }
  if (cell >= 8) {
    let lines = "";
    for (let at = 0; at <= shown.length; at++) lines += `M${left} ${top + at * cell}h${side}M${left + at * cell} ${top}v${side}`;
    chart.add("path", { class: "grid", d: lines });
  }
  if (named) {
    const letters = Math.min(12, cell * 0.85);
    shown.forEach((number, at) => {
      const middle = at * cell + cell / 2;
      chart.add("text", { class: "tick", x: left - 6, y: top + middle + letters * 0.35, "text-anchor": "end", "font-size": letters }, cut(classes[number]));
      const turn = slanted ? { transform: `translate(${left + middle - (angle === 90 ? 3 : -3)} ${top + side + (angle === 90 ? 7 : 12)}) rotate(${angle})` } : { x: left + middle, y: top + side + 16, "text-anchor": "middle" };
      chart.add("text", { class: "tick", "font-size": letters, ...turn }, cut(classes[number]));
    });
  }
  chart.add("text", { class: "name", transform: `translate(12 ${top + side / 2}) rotate(-90)`, "text-anchor": "middle" }, "actual class");
  chart.add("text", { class: "name", x: left + side / 2, y: top + side + below - 4, "text-anchor": "middle" }, matrix.numbers === "rates" ? "predicted class; rates in %" : "predicted class");
}
