/* The table of jobs: only the rows in sight exist.
 *
 * Lives here: heads, rows, counts, the keyboard in the table, when it is drawn.
 * Elsewhere:  filter and order (`list.js`), the jobs (`state.js`).
 */

import { $, el, put, tell } from "./dom.js";
import { ENDED, STATES, fraction, nameOf, progressWords, stateClass } from "./job.js";
import { COLUMNS, arranged, columnOf } from "./list.js";
import { now } from "./server.js";
import { state } from "./state.js";
import { brief, count, some, span } from "./words.js";

const ROW = 36;                    // height of a row in pixels, as in page.css
const HEAD = 34;                   // of the row of heads
const BESIDE = 8;                  // rows that exist above and below those in sight
const SORT_MS = 150;               // between two sortings of the whole list

const scroll = $("scroll"), table = $("jobs");
const above = spacer(), below = spacer();
const rows = [];
const wanted = { state: "", key: "created", down: true };  // what the buttons and the heads say
let order = [];                    // ids of the jobs that fit, as the table has them
let here = "";                     // id of the job that the keyboard is at
let sorted = 0, planned = 0, isStale = true;

function spacer() {
  return el("tr", { class: "spacer", role: "presentation", "aria-hidden": "true" }, el("td", { role: "presentation" }));
}

// ---- heads and buttons -----------------------------------------------------------------------------------------------

function makeHeads() {
  for (const { key, title, number } of COLUMNS) {
    const button = el("button", { type: "button", tabindex: "-1" }, title);
    button.addEventListener("click", () => sortBy(key));
    $("heads").append(el("th", { scope: "col", class: `c-${key}${number ? " number" : ""}`, "data-key": key }, button));
  }
  markSorting();
  const buttons = [...$("heads").querySelectorAll("button")];
  buttons[0].tabIndex = 0;         // one stop for the tab key; arrows go along the heads
  $("heads").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const seen = buttons.filter((button) => button.offsetParent);
    const place = seen.indexOf(event.target);
    if (!step || place < 0) return;
    const next = seen[(place + step + seen.length) % seen.length];
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
    event.preventDefault();
  });
}

function sortBy(key) {
  const { title, down = false } = columnOf(key);
  wanted.down = key === wanted.key ? !wanted.down : down;
  wanted.key = key;
  markSorting();
  fromTheTop();
  tell(`Sorted by ${title.toLowerCase()}, ${wanted.down ? "descending" : "ascending"}`);
}

function markSorting() {
  for (const head of $("heads").children) {
    if (head.dataset.key === wanted.key) head.setAttribute("aria-sort", wanted.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function makeStates() {
  for (const each of ["", ...STATES]) {
    const words = each ? each[0].toUpperCase() + each.slice(1) : "All";
    const button = el("button", { type: "button", "data-state": each, "aria-pressed": String(!each) }, words,
      el("span", { class: "count" }, "0"));
    button.addEventListener("click", () => {
      wanted.state = each;
      fromTheTop();
      announce();
    });
    $("states").append(button);
  }
}

function showCounts(counts) {
  for (const button of $("states").children) {
    const which = button.dataset.state;
    put(button.lastChild, count((which ? counts[which] : counts.all) || 0));
    button.setAttribute("aria-pressed", String(which === wanted.state));
  }
  const isEmpty = state.isLoaded && !order.length;
  $("empty").hidden = !isEmpty;
  if (isEmpty) put($("empty"), state.size ? "No job fits. Clear the search or choose another state." : "There are no jobs yet.");
}

let announceTimer = 0;
function announce() {
  clearTimeout(announceTimer);
  announceTimer = setTimeout(() => tell(`${some(order.length, "job")} shown`), 700);
}

// ---- rows ------------------------------------------------------------------------------------------------------------

function makeRow(place) {
  const row = { tr: el("tr", { id: `row-${place}`, role: "row" }), cells: {}, id: "" };
  for (const { key, number } of COLUMNS) {
    const td = el("td", { role: "gridcell", class: `c-${key}${number ? " number" : ""}` });
    row.cells[key] = td;
    row.tr.append(td);
  }
  row.state = el("span", { class: "state" });
  row.cells.state.append(row.state);
  row.name = el("span", { class: "name" });
  row.ident = el("span", { class: "id" });
  row.cells.name.append(el("div", { class: "pair" }, row.name, " ", row.ident));
  row.fill = el("div", { class: "fill" });
  row.words = el("span", { class: "words" });
  row.bar = el("div", { class: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-label": "Progress" }, row.fill);
  row.progress = el("div", { class: "progress" }, row.bar, row.words);
  row.cells.progress.append(row.progress);
  row.best = el("span");
  row.ago = el("span", { class: "ago" });
  row.cells.best.append(el("div", { class: "pair" }, row.best, row.ago));
  row.tr.addEventListener("click", () => state.choose(row.id));
  return row;
}

function showRow(row, job, index) {
  row.id = job.id;
  row.tr.setAttribute("aria-rowindex", String(index + 2));
  row.tr.setAttribute("aria-selected", String(job.id === state.open));
  row.tr.classList.toggle("here", job.id === here);
  const second = Math.floor(Date.now() / 1000), time = now();
  if (row.job === job && row.drawn === second) return;
  row.job = job;
  row.drawn = second;
  put(row.state, job.state);
  row.state.className = stateClass(job);
  const name = nameOf(job);
  put(row.name, name || job.id);
  put(row.ident, name ? job.id : "");
  for (const { key, text } of COLUMNS) if (text) put(row.cells[key], text(job, time));
  const part = fraction(job), hasBar = part !== null;
  row.bar.hidden = !hasBar;
  row.progress.classList.toggle("over", ENDED.has(job.state));
  if (hasBar) {
    row.fill.style.width = `${part * 100}%`;
    row.bar.setAttribute("aria-valuenow", String(Math.round(part * 100)));
  }
  put(row.words, progressWords(job));
  put(row.best, brief(job.best, 30));
  put(row.ago, job.improved ? ` · ${span(time - job.improved)}` : "");
}

// ---- drawing ---------------------------------------------------------------------------------------------------------

/** Draw soon; `atOnce` has the order made anew, too. */
export function refresh(atOnce = false) {
  isStale = true;
  if (atOnce) sorted = 0;
  redraw();
}

/** Draw soon what is known already. */
export function redraw() {
  if (!planned) planned = requestAnimationFrame(draw);
}

function fromTheTop() {
  scroll.scrollTop = 0;
  refresh(true);
}

function draw() {
  planned = 0;
  if (isStale && performance.now() - sorted >= SORT_MS) {
    const found = arranged(state.jobs, { ...wanted, words: $("search").value, owner: $("mine").checked ? state.me.user : null }, now());
    order = found.order;
    sorted = performance.now();
    isStale = false;
    showCounts(found.counts);
  } else if (isStale) {
    setTimeout(() => refresh(), SORT_MS);
  }
  const room = scroll.clientHeight || 600;
  const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - BESIDE);
  const number = Math.min(order.length - first, Math.ceil(room / ROW) + 2 * BESIDE);
  while (rows.length < number) {
    const row = makeRow(rows.length);
    rows.push(row);
    below.before(row.tr);
  }
  rows.forEach((row, place) => {
    const job = place < number ? state.job(order[first + place]) : undefined;
    row.tr.hidden = !job;
    if (job) showRow(row, job, first + place);
    else row.id = "";
  });
  above.firstChild.style.height = `${first * ROW}px`;
  below.firstChild.style.height = `${Math.max(0, order.length - first - Math.max(0, number)) * ROW}px`;
  table.setAttribute("aria-rowcount", String(order.length + 1));
  const current = rows.find((row) => row.id && row.id === here);
  if (current) table.setAttribute("aria-activedescendant", current.tr.id);
  else table.removeAttribute("aria-activedescendant");
}

// ---- the keyboard ----------------------------------------------------------------------------------------------------

function moveTo(index) {
  if (!order.length) return;
  const place = Math.min(order.length - 1, Math.max(0, index));
  here = order[place];
  const top = place * ROW, room = scroll.clientHeight - HEAD;
  if (top < scroll.scrollTop) scroll.scrollTop = top;
  else if (top + ROW > scroll.scrollTop + room) scroll.scrollTop = top + ROW - room;
  draw();
}

function tableKey(event) {
  if (event.target !== table || event.ctrlKey || event.altKey || event.metaKey) return;
  const place = order.indexOf(here), page = Math.max(1, Math.floor(scroll.clientHeight / ROW) - 2);
  const steps = { ArrowDown: place + 1, ArrowUp: place - 1, PageDown: place + page, PageUp: place - page, Home: 0, End: order.length - 1 };
  if (event.key in steps) moveTo(steps[event.key]);
  else if ((event.key === "Enter" || event.key === " ") && state.job(here)) state.choose(here, true);
  else return;
  event.preventDefault();
}

export function startTable() {
  makeHeads();
  makeStates();
  $("rows").append(above, below);
  state.on("jobs", refresh);
  state.on("open", () => {
    here = state.open || here;
    refresh();
  });
  scroll.addEventListener("scroll", redraw, { passive: true });
  new ResizeObserver(() => refresh()).observe(scroll);
  table.addEventListener("keydown", tableKey);
  table.addEventListener("focus", () => {  // nothing may move: a click that lands here is not over yet
    if (!state.job(here)) here = order[Math.ceil(scroll.scrollTop / ROW)] || "";
    refresh();
  });
  for (const [id, kind] of [["search", "input"], ["mine", "change"]]) {
    $(id).addEventListener(kind, () => { fromTheTop(); announce(); });
  }
}
