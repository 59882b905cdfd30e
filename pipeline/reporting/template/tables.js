// Tables that sort by a click on a heading, filter by what is typed, and can be saved as CSV.
const FIRST_ROWS = 200; // of a long table; the others appear on demand

const valueOf = (cell) => {
  const text = cell.dataset.value ?? cell.textContent.trim();
  // Of a percentage the number, so that 9 % comes before 80 %.
  const number = text === "" ? NaN : Number(text.replace(/[\s,%]/g, ""));
  return Number.isNaN(number) ? text : number;
};

// A row matches if all words do: text that is in it, or a comparison such as learning_rate>0.1
function matches(row, words, names) {
  return words.every((word) => {
    const found = /^([\w.]+)(<=|>=|<|>|=)(.+)$/.exec(word);
    const column = found ? names.findIndex((name) => name === found[1] || name.endsWith(`.${found[1]}`) || name.replaceAll(" ", "_") === found[1]) : -1;
    if (column < 0) return row.textContent.toLowerCase().includes(word);
    const value = valueOf(row.cells[column]);
    const wanted = Number.isNaN(Number(found[3])) ? found[3] : Number(found[3]);
    const here = typeof value === "string" ? value.toLowerCase() : value;
    if (found[2] === "=") return here === wanted;
    if (typeof here !== "number" || typeof wanted !== "number") return false;
    return { "<": here < wanted, ">": here > wanted, "<=": here <= wanted, ">=": here >= wanted }[found[2]];
  });
}

function equip(table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => (head.dataset.value ?? head.textContent.trim()).toLowerCase());
  const status = html("span", { role: "status", class: "soft" });
  const filter = html("input", { type: "search", placeholder: table.dataset.example || "filter", "aria-label": `Filter: ${table.caption.textContent}` });
  const save = html("button", { type: "button" }, "Save as CSV");
  const more = html("button", { type: "button" }, `Show all ${count(rows.length)} rows`);
  const scroll = table.closest(".scroll") || table;
  let chosen = null;
  let all = rows.length <= FIRST_ROWS;

  const kept = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    return [...body.rows].filter((row) => matches(row, words, names) && (!chosen || !row.dataset.trial || chosen(Number(row.dataset.trial))));
  };
  const update = () => {
    const shown = new Set(all ? kept() : kept().slice(0, FIRST_ROWS));
    for (const row of body.rows) row.hidden = !shown.has(row);
    more.hidden = all || kept().length <= FIRST_ROWS;
    const total = kept().length;
    status.textContent = total === rows.length && all ? "" : `${count(shown.size)} of ${count(rows.length)} rows`;
  };

  heads.forEach((head, column) => {
    const button = html("button", { type: "button", class: "sort" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      const keyed = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
      // Empty cells last, numbers before words.
      const compare = (a, b) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        if (typeof a === typeof b) return (typeof a === "number" ? a - b : a.localeCompare(b)) * direction;
        return typeof a === "number" ? -1 : 1;
      };
      body.append(...keyed.sort(([a], [b]) => compare(a, b)).map(([, row]) => row));
      update();
    });
  });
  filter.addEventListener("input", update);
  more.addEventListener("click", () => {
    all = true;
    update();
  });
  save.addEventListener("click", () => {
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const line = (cells) => cells.map((cell) => quoted(String(cell.dataset.value ?? cell.textContent.trim()))).join(",");
    const text = [heads, ...kept().map((row) => [...row.cells])].map(line).join("\n") + "\n";
    const link = html("a", { download: `${table.dataset.name}.csv`, href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  if (table.hasAttribute("data-selected")) {
    document.addEventListener("selected", (event) => {
      chosen = event.detail;
      update();
    });
  }
  const tools = html("div", { class: "controls" }, filter, save, more, status);
  if (rows.length < 6) filter.hidden = true;
  scroll.before(tools);
  update();
}

function trialTable() {
  const host = document.getElementById("trial-table");
  if (!host || !search) return;
  const table = html("table", { class: "trials", "data-name": "trials", "data-selected": "", "data-example": "filter, such as: pruned learning_rate>0.1" });
  table.append(html("caption", {}, "All trials. The number leads to the run in MLflow, while mlflow ui runs"));
  const head = (name, shown) => html("th", { scope: "col", "data-value": name, title: name }, shown || name);
  const keys = search.keys.map((key) => head(key.name, search.keys.filter((other) => other.short === key.short).length > 1 ? key.name : key.short));
  table.append(html("thead", {}, html("tr", {}, ...["trial", "state", "accuracy", "epochs", "seconds"].map((name) => head(name)), ...keys, head("seed"), head("why"))));
  const body = html("tbody", {});
  const cell = (value, shown) => html("td", value === undefined || value === null ? {} : { "data-value": value }, shown ?? "");
  for (const trial of search.trials) {
    const number = trial.page ? html("a", { href: trial.page, target: "_blank", rel: "noopener" }, String(trial.number)) : String(trial.number);
    const row = html("tr", { "data-trial": trial.number, class: trial.number === search.winner ? "winner" : undefined });
    row.append(html("th", { scope: "row", "data-value": trial.number }, number));
    row.append(html("td", {}, html("span", { class: `swatch round ${trial.state}` }), trial.ended));
    const accuracy = trial.scores.length ? last(trial) : null;
    row.append(cell(accuracy, accuracy === null ? "" : percent(accuracy, 2)));
    row.append(cell(trial.scores.length, String(trial.scores.length)), cell(trial.seconds, String(trial.seconds)));
    for (const key of search.keys) row.append(cell(trial.values[key.name], key.name in trial.values ? short(trial.values[key.name]) : ""));
    row.append(cell(trial.seed, String(trial.seed ?? "")));
    row.append(html("td", { class: "why" }, trial.why || ""));
    body.append(row);
  }
  table.append(body);
  host.append(table);
  equip(table);
}

document.querySelectorAll("table[data-tools]").forEach(equip);
trialTable();
drawAll();
