// A small library of charts: axes, lines, dots and bars as SVG, with what the pointer is told about them.
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const pictures = {};
const SVG = "http://www.w3.org/2000/svg";

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const count = (number) => number.toLocaleString("en-US");
const short = (value) => {
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  const text = Math.abs(value) < 0.001 ? value.toExponential(2) : value.toPrecision(3);
  return text.includes("e") ? text.replace(/\.?0+e/, "e") : String(Number(text));
};
const duration = (seconds) => {
  if (seconds < 60) return `${Math.round(seconds * 10) / 10} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
};

// About as many pixels as a text takes at 12 pixels a letter; Korean and Chinese letters are wide.
const widthOf = (text) => [...text].reduce((sum, letter) => sum + (letter.codePointAt(0) > 0x2e7f ? 12 : 6.7), 0);

function svg(name, attributes = {}, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function html(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function roundTicks(low, high, most) {
  const rough = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place++) {
    found.push(Number((place * step).toPrecision(12)));
  }
  return found;
}

function logTicks(low, high, most) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  for (const factors of [[1, 2, 5], [1, 3], [1]]) {
    const found = [];
    for (let power = first; power <= last; power++) {
      for (const factor of factors) {
        const value = Number((factor * 10 ** power).toPrecision(6));
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    }
    if (found.length <= most || factors.length === 1) return found.length > 1 ? found : [low, high];
  }
}

// An axis from pixel `from` to pixel `to`. Of {low, high, log} or {choices}; `format` writes a tick.
function makeAxis(options, from, to) {
  const format = options.format || short;
  if (options.choices) {
    const names = options.choices.map(String);
    const step = (to - from) / names.length;
    return {
      place: (value) => from + step * (names.indexOf(String(value)) + 0.5),
      ticks: options.choices.map((value) => ({ value, text: format(value) })),
      step: Math.abs(step),
    };
  }
  let { low, high } = options;
  if (!(high > low)) [low, high] = options.log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
  const bend = options.log ? Math.log10 : (value) => value;
  const [start, end] = [bend(low), bend(high)];
  const most = options.ticks || Math.max(2, Math.round(Math.abs(to - from) / (options.room || 60)));
  const values = options.log ? logTicks(low, high, most) : roundTicks(low, high, most);
  const whole = options.whole ? values.filter(Number.isInteger) : values;
  return {
    place: (value) => from + ((bend(value) - start) / (end - start)) * (to - from),
    value: (place) => {
      const bent = start + ((place - from) / (to - from)) * (end - start);
      return options.log ? 10 ** bent : bent;
    },
    ticks: whole.map((value) => ({ value, text: format(value) })),
    low,
    high,
  };
}

// The range of numbers with a margin on both sides.
function span(numbers, margin = 0.05) {
  const known = numbers.filter((number) => number !== null && Number.isFinite(number));
  if (!known.length) return { low: 0, high: 1 };
  const [low, high] = [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))];
  const more = (high - low) * margin || Math.abs(high) * 0.05 || 0.05;
  return { low: low - more, high: high + more };
}

class Chart {
  constructor(host, options) {
    this.host = host;
    this.width = options.width || Math.max(240, Math.floor(host.clientWidth));
    this.height = options.height || 260;
    const { right = 24, top = 14, bottom = 44 } = options;
    Object.assign(this, { right, top, bottom });
    if (options.y) this.y = makeAxis({ room: 44, ...options.y }, this.height - bottom, top);
    // As wide as the longest text of the vertical axis.
    const longest = options.y ? Math.max(...this.y.ticks.map((tick) => widthOf(tick.text))) : 0;
    this.left = Math.max(36, Math.min(this.width * 0.46, longest + 14 + (options.y && options.y.label ? 20 : 0)));
    this.svg = svg("svg", {
      viewBox: `0 0 ${this.width} ${this.height}`, width: this.width, height: this.height,
      role: "img", "aria-label": host.dataset.alt,
    });
    this.hits = [];
    if (options.x) this.x = makeAxis(options.x, this.left, this.width - right);
    if (options.y && !options.y.hidden) this.drawY(options.y);
    if (options.x && !options.x.hidden) this.drawX(options.x);
    this.marks = this.add("g", {});
    host.append(this.svg);
    this.listen();
  }

  add(name, attributes, text, parent = this.svg) {
    const made = svg(name, attributes, text);
    parent.append(made);
    return made;
  }

  drawX(options) {
    const bottom = this.height - this.bottom;
    for (const { value, text } of this.x.ticks) {
      const at = this.x.place(value);
      if (!options.bare) this.add("line", { class: "grid", x1: at, x2: at, y1: this.top, y2: bottom });
      this.add("text", { class: "tick", x: at, y: bottom + 17, "text-anchor": "middle" }, text);
    }
    this.add("line", { class: "axis", x1: this.left, x2: this.width - this.right, y1: bottom, y2: bottom });
    const middle = (this.left + this.width - this.right) / 2;
    if (options.label) this.add("text", { class: "name", x: middle, y: bottom + 37, "text-anchor": "middle" }, options.label);
  }

  drawY(options) {
    for (const { value, text } of this.y.ticks) {
      const at = this.y.place(value);
      if (!options.bare) this.add("line", { class: "grid", x1: this.left, x2: this.width - this.right, y1: at, y2: at });
      this.add("text", { class: "tick", x: this.left - 8, y: at + 4, "text-anchor": "end" }, text);
    }
    if (options.label) {
      const at = (this.top + this.height - this.bottom) / 2;
      this.add("text", { class: "name", transform: `translate(13 ${at}) rotate(-90)`, "text-anchor": "middle" }, options.label);
    }
  }

  // `points` are [x, y]; one without a y ends the line there.
  line(points, kind, attributes = {}) {
    let path = "";
    let pen = "M";
    for (const [x, y] of points) {
      if (y === null || y === undefined) { pen = "M"; continue; }
      path += `${pen}${this.x.place(x).toFixed(1)} ${this.y.place(y).toFixed(1)}`;
      pen = "L";
    }
    return this.add("path", { class: `line ${kind}`, d: path, ...attributes }, undefined, this.marks);
  }

  dot(x, y, kind, hit, radius = 4) {
    const [cx, cy] = [this.x.place(x), this.y.place(y)];
    const made = this.add("circle", { class: `dot ${kind}`, cx: cx.toFixed(1), cy: cy.toFixed(1), r: radius }, undefined, this.marks);
    if (hit) this.hit(cx, cy, { ...hit, mark: made });
    return made;
  }

  bar(x, y, width, height, kind, hit) {
    const made = this.add("rect", { class: `block ${kind}`, x, y, width: Math.max(0, width), height: Math.max(0, height), rx: 2 }, undefined, this.marks);
    if (hit) this.hit(x + width / 2, y + height / 2, { ...hit, mark: made, box: [x, y, x + width, y + height] });
    return made;
  }

  // What the tip says near a place: {text, trial, page, mark}, or in a box, also one behind dots.
  hit(x, y, what) { this.hits.push({ x, y, ...what }); }

  legend(entries) {
    const list = html("ul", { class: "legend", "aria-hidden": "true" });
    for (const [kind, name] of entries) list.append(html("li", {}, html("span", { class: `swatch ${kind}` }), name));
    this.host.prepend(list);
  }

  nearest(event) {
    const box = this.svg.getBoundingClientRect();
    const scale = this.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let best = null;
    let under = null;
    let least = (this.hits.some((hit) => hit.behind) ? 10 : 26) ** 2;
    for (const hit of this.hits) {
      if (hit.box) {
        const [left, top, right, bottom] = hit.box;
        if (x < left || x > right || y < top || y > bottom) continue;
        if (!hit.behind) return hit;
        under = hit;
        continue;
      }
      const distance = (hit.x - x) ** 2 + (hit.y - y) ** 2;
      if (distance < least) [best, least] = [hit, distance];
    }
    return best || under;
  }

  listen() {
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.svg.addEventListener("click", (event) => {
      const hit = this.nearest(event);
      if (hit && hit.page) window.open(hit.page, "_blank", "noopener");
    });
  }

  point(event) {
    const hit = event && this.nearest(event);
    if (this.hot && this.hot !== hit && this.hot.mark) this.hot.mark.classList.remove("hot");
    const isOther = this.hot !== hit;
    this.hot = hit;
    tip.hidden = !hit;
    if (!hit) return;
    if (hit.mark) {
      hit.mark.classList.add("hot");
      // A mark that is moved while a button is down on it would get no click.
      if (hit.raise && isOther) hit.mark.parentNode.append(hit.mark);
    }
    this.svg.style.cursor = hit.page ? "pointer" : "";
    tip.textContent = hit.text + (hit.page ? "\nclick: its run in MLflow" : "");
    const right = event.clientX + 16 + tip.offsetWidth > document.documentElement.clientWidth;
    tip.style.left = `${Math.max(4, right ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16)}px`;
    const below = event.clientY + 16 + tip.offsetHeight < document.documentElement.clientHeight;
    tip.style.top = `${Math.max(4, below ? event.clientY + 16 : event.clientY - 16 - tip.offsetHeight)}px`;
  }
}

// Draws every picture that its host has room for, and again when that changes.
function drawAll() {
  const seen = new WeakMap();
  const draw = (host) => {
    const width = Math.floor(host.clientWidth);
    if (!width || seen.get(host) === width) return;
    seen.set(host, width);
    const kept = host.querySelectorAll(":scope > .controls");
    host.replaceChildren(...kept);
    pictures[host.dataset.picture](host);
  };
  const watcher = new ResizeObserver((entries) => entries.forEach((entry) => draw(entry.target)));
  for (const host of document.querySelectorAll("[data-picture]")) {
    draw(host);
    watcher.observe(host);
  }
}
