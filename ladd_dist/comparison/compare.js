"use strict";
// The comparison's tables and charts. Everything shown is set as text, never as markup.
// Charts are drawn here by hand, unlike those of a run's page (matplotlib): they change with the variants that are
// ticked, and a chart library would add megabytes to every page, which has to work alone and without a network.
const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const SHOWN_FIRST = 8;
const dark = matchMedia("(prefers-color-scheme: dark)");

function make(parent, tag, text, attributes) {
  const item = document.createElement(tag);
  if (text !== undefined && text !== "") item.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) item.setAttribute(name, value);
  if (parent) parent.appendChild(item);
  return item;
}

// The first eight have the colours of the run's own page; more are spread over the hues.
function colour(index) {
  if (index < 8) return `var(--s${index})`;
  return `hsl(${(index * 137.5) % 360} 65% ${dark.matches ? 68 : 38}%)`;
}

// --- tables: rows are lists of cells [sort key, text, small text] ---

function table(element, head, rows, first, fixed) {
  let column = -1, rising = true, order = rows.map((_, index) => index);
  const line = make(make(element, "thead"), "tr");
  const body = make(element, "tbody");
  head.forEach((item, index) => {
    const cell = make(line, "th", "", {scope: "col", class: item.number ? "" : "text"});
    const button = make(cell, "button", item.title + ({lower: " ↓", higher: " ↑"}[item.better] || ""), {type: "button"});
    if (item.better) button.title = item.better + " is better";
    if (item.small) make(button, "small", item.small);
    button.addEventListener("click", () => sort(index));
  });
  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", {numeric: true});
  }
  function sort(index) {
    rising = index === column ? !rising : head[index].better !== "higher";
    column = index;
    order.sort((x, y) => {
      const a = rows[x][index][0], b = rows[y][index][0];
      // What has no figure stays below, whichever way the rest is sorted.
      return a === null || b === null ? compare(a, b) || x - y : (rising ? 1 : -1) * compare(a, b) || x - y;
    });
    [...line.children].forEach((cell, i) => {
      if (i === index) cell.setAttribute("aria-sort", rising ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
    draw();
  }
  function fill(parent, cells, index) {
    const row = make(parent, "tr", "", index !== null && index < first.leaders ? {class: "lead"} : {});
    cells.forEach((item, i) => {
      const cell = make(row, i ? "td" : "th", "", i ? (head[i].number ? {} : {class: "text"}) : {scope: "row"});
      if (!i && index !== null && first.cell) first.cell(cell, item, index);
      else cell.textContent = item[1];
      if (item[2]) make(cell, "small", item[2]);
    });
  }
  function draw() {
    body.replaceChildren();
    for (const index of order) fill(body, rows[index], index);
  }
  draw();
  if (fixed.length) {
    const rest = make(element, "tbody", "", {class: "references"});
    for (const cells of fixed) fill(rest, cells, null);
  }
}

const drawn = new Set();
const hasCurves = new Set(Object.values(DATA.curves.metrics).flatMap(list => list.map(item => item[0])));
for (const index of [...hasCurves].sort((a, b) => a - b).slice(0, SHOWN_FIRST)) drawn.add(index);

table(document.getElementById("variants"), DATA.head, DATA.rows, {leaders: DATA.leaders, cell(cell, item, index) {
  const label = make(cell, "label");
  if (hasCurves.has(index)) {
    const box = make(label, "input", "", {type: "checkbox"});
    box.checked = drawn.has(index);
    box.addEventListener("change", () => {
      if (box.checked) drawn.add(index); else drawn.delete(index);
      redraw();
    });
    make(label, "i", "", {class: "swatch"}).style.background = colour(index);
  }
  make(label, "span", item[1]);
}}, DATA.references);

document.getElementById("every").addEventListener("toggle", () => {
  const element = document.getElementById("runs");
  if (element.firstChild) return;
  const head = [{title: "Variant"}, {title: "Seed", number: true}, {title: "Figure", number: true},
    {title: "Collapsed from step", number: true}, {title: "Finished"}, {title: "Where"}];
  const rows = DATA.runs.map(([variant, seed, value, step, finished, source]) => [
    [DATA.labels[variant].toLowerCase(), DATA.labels[variant]], [seed, seed], [value, value === null ? "–" : value],
    [typeof step === "number" ? step : null, step], [finished ? "yes" : "no", finished ? "yes" : "no"], [source, source]]);
  table(element, head, rows, {leaders: 0}, []);
});

// --- charts: drawn when they come into view, and again when other variants are ticked ---

const WIDTH = 400, HEIGHT = 215, LEFT = 46, RIGHT = 8, TOP = 6, BOTTOM = 22;

function shape(parent, tag, attributes, text) {
  const item = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) item.setAttribute(name, value);
  if (text !== undefined) item.textContent = text;
  parent.appendChild(item);
  return item;
}

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(x => x * power).find(x => x >= raw) || 10 * power;
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + 1e-9 * step; value += step) found.push(value);
  return found;
}

function plain(value) {
  if (Math.abs(value) < 1e-12) return "0";
  if (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3) return value.toExponential(0).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

function chart(figure, metric) {
  figure.querySelector("svg")?.remove();
  const series = DATA.curves.metrics[metric].filter(item => drawn.has(item[0]));
  const svg = shape(figure, "svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${DATA.curves.names[metric][0]} over training steps`});
  if (!series.length) return void shape(svg, "text", {x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle"}, "no ticked variant has logged it");
  let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
  for (const [, number, mean, low, high] of series) {
    const steps = DATA.curves.steps[number];
    x0 = Math.min(x0, steps[0]); x1 = Math.max(x1, steps[steps.length - 1]);
    for (const value of low || mean) y0 = Math.min(y0, value);
    for (const value of high || mean) y1 = Math.max(y1, value);
  }
  const log = metric.startsWith("loss/distill") || metric.startsWith("grad_norm/") ? y0 > 0 && y1 / y0 > 20 : false;
  const scale = log ? Math.log10 : value => value;
  let low = scale(y0), high = scale(y1);
  if (low === high) { const room = Math.abs(low) * .1 || 1; low -= room; high += room; }
  else { const room = .05 * (high - low); low -= room; high += room; }
  if (x0 === x1) { x0 -= 1; x1 += 1; }
  const px = value => LEFT + (value - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
  const py = value => HEIGHT - BOTTOM - (scale(value) - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
  const marks = log ? ticks(low, high, 5).map(value => 10 ** value) : ticks(low, high, 5);
  for (const value of marks) {
    shape(svg, "line", {x1: LEFT, x2: WIDTH - RIGHT, y1: py(value), y2: py(value)});
    shape(svg, "text", {x: LEFT - 6, y: py(value) + 4, "text-anchor": "end"}, plain(Number(value.toPrecision(log ? 2 : 12))));
  }
  for (const value of ticks(x0, x1, 5)) shape(svg, "text", {x: px(value), y: HEIGHT - 6, "text-anchor": "middle"}, plain(value));
  for (const [index, number, mean, low, high] of series) {
    const steps = DATA.curves.steps[number], at = (value, i) => `${px(steps[i]).toFixed(1)} ${py(value).toFixed(1)}`;
    if (high) {
      const back = low.map(at).reverse();
      shape(svg, "path", {d: `M${high.map(at).join("L")}L${back.join("L")}Z`, opacity: series.length > 4 ? .1 : .18}).style.fill = colour(index);
    }
    const lineOf = shape(svg, "path", {d: `M${mean.map(at).join("L")}`, fill: "none", "stroke-width": 1.6, "stroke-linejoin": "round"});
    lineOf.style.stroke = colour(index);
    shape(lineOf, "title", {}, DATA.labels[index]);
    if (steps.length === 1) shape(svg, "circle", {cx: px(steps[0]), cy: py(mean[0]), r: 3}).style.fill = colour(index);
  }
}

const seen = new Map();
const watch = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting && !seen.get(entry.target).done) {
    chart(entry.target, seen.get(entry.target).metric);
    seen.get(entry.target).done = true;
  }
}, {rootMargin: "300px"});

function redraw() {
  const legend = document.getElementById("legend");
  legend.replaceChildren();
  for (const index of [...drawn].sort((a, b) => a - b)) {
    const item = make(legend, "li");
    make(item, "i", "", {class: "swatch"}).style.background = colour(index);
    make(item, "span", DATA.labels[index]);
  }
  for (const [figure, state] of seen) {
    state.done = false;
    watch.unobserve(figure);
    watch.observe(figure);
  }
}

const charts = document.getElementById("charts"), others = document.getElementById("others"), heads = document.getElementById("heads");
for (const metric of Object.keys(DATA.curves.metrics)) {
  const [title, note] = DATA.curves.names[metric];
  const folded = /^Head at /.test(title) ? heads : others;
  const figure = make(DATA.curves.first.includes(metric) ? charts : folded, "figure", "", {class: "card"});
  make(figure, "h3", title);
  const line = make(figure, "p", note ? note + " " : "", {class: "note"});
  if (title !== metric) make(line, "code", metric);
  seen.set(figure, {metric, done: false});
}
for (const list of [others, heads]) {
  if (list.firstChild) list.previousElementSibling.textContent += ` (${list.children.length})`;
  else list.parentElement.remove();
}
if (!seen.size) make(charts, "p", "No training steps were logged for these runs.", {class: "quiet"});
dark.addEventListener("change", redraw);
redraw();
