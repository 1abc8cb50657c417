/* The page of a job server.
 *
 * It follows the stream of the list of jobs and shows what it says; of one job, the reader's choice, also its own
 * stream. Texts of jobs are put in as text only (`textContent`): there is no place where one could become markup.
 * The token is kept in sessionStorage, so it ends with the tab, and travels in a header, never in an address.
 *
 * In this order: small things, the server and its streams, the jobs and their order, the table (only the rows in sight
 * exist), the panel of one job (plot, conditions, messages), the machines, questions, the start.
 */
"use strict";
(() => {
  const API = "/api/v1";
  const ROW = 36;                    // height of a row in pixels, as in page.css
  const BESIDE = 8;                  // rows that exist above and below those in sight
  const SORT_MS = 150;               // between two sortings of the whole list
  const SILENCE_MS = 30_000;         // the server says "alive" every 10 s; without that the connection is dead
  const LONGEST_PAUSE_S = 10;
  const HIDDEN_MS = 20_000;          // a tab that is hidden so long lets go of its connections
  const MESSAGES = 500;              // that the panel keeps
  const STATES = ["active", "pending", "waiting", "complete", "error", "aborted", "cancelled"];
  const ENDED = new Set(["complete", "error", "aborted", "cancelled"]);
  const ENDS = new Set(["Completed", "Error", "Aborted", "Cancelled"]);

  // ---- small things ------------------------------------------------------------------------------------------------

  const $ = (id) => document.getElementById(id);

  /** An element; attributes by name, children are elements or texts. */
  function el(name, attributes = {}, ...children) {
    return fill(document.createElement(name), attributes, children);
  }

  function svg(name, attributes = {}, ...children) {
    return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
  }

  function fill(made, attributes, children) {
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  /** Text of an element, touched only if it differs: screen readers and layout are left in peace. */
  function put(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  const count = (n) => n.toLocaleString("en");
  const some = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

  let clockOffset = 0;               // the server's clock less ours, in seconds
  const now = () => Date.now() / 1000 + clockOffset;

  /** Seconds in one unit, for reading at a glance. */
  function span(seconds) {
    const s = Math.max(0, seconds);
    if (s < 90) return `${Math.round(s)} s`;
    if (s < 5400) return `${Math.round(s / 60)} min`;
    if (s < 129600) return `${Math.round(s / 3600)} h`;
    return `${Math.round(s / 86400)} d`;
  }

  const ago = (time) => `${span(now() - time)} ago`;

  /** A time of today without its day. */
  function moment(time) {
    const day = new Date(time * 1000);
    if (day.toDateString() === new Date().toDateString()) return clock(day);
    return `${day.toLocaleDateString(undefined, { dateStyle: "medium" })}, ${clock(day)}`;
  }

  const clock = (day) => day.toLocaleTimeString(undefined, { hourCycle: "h23" });

  function figure(n) {
    if (Number.isInteger(n) && Math.abs(n) < 1e9) return String(n);
    const size = Math.abs(n);
    return size !== 0 && (size < 1e-3 || size >= 1e7) ? n.toExponential(3) : String(Number(n.toPrecision(6)));
  }

  /** A value of a job in a few characters. */
  function brief(value, most = 40) {
    let text;
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return figure(value);
    if (typeof value === "string") text = value;
    else if (Array.isArray(value)) text = `[${value.map((each) => brief(each, most)).join(", ")}]`;
    else if (typeof value === "object") {
      text = Object.entries(value).map(([key, each]) => `${key} ${brief(each, most)}`).join(", ");
    } else text = String(value);
    return text.length > most ? `${text.slice(0, most)}…` : text;
  }

  let toastTimer = 0;
  function toast(text) {
    put($("toast"), text);
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => put($("toast"), ""), 6000);
  }

  /** For those who do not see that the list has changed. */
  function tell(text) {
    put($("said"), text);
  }

  // ---- the server --------------------------------------------------------------------------------------------------

  let token = sessionStorage.getItem("grid-token") || "";
  let me = { user: "", scopes: [] };

  class Refused extends Error {
    constructor(status, answer) {
      super(answer.error || `the server answers ${status}`);
      this.status = status;
      this.hint = answer.hint || "";
    }
    get words() { return this.hint ? `${this.message}. ${this.hint}` : this.message; }
  }

  function headers(more = {}) {
    return token ? { Authorization: `Bearer ${token}`, ...more } : more;
  }

  async function refusal(answer) {
    let told = {};
    try { told = await answer.json(); } catch { /* not one of its own answers */ }
    return new Refused(answer.status, told);
  }

  /** Ask the server; a body makes it a POST. */
  async function ask(path, body) {
    const options = { headers: headers(), cache: "no-store" };
    if (body !== undefined) {
      options.method = "POST";
      options.headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(body);
    }
    const answer = await fetch(API + path, options);
    const date = Date.parse(answer.headers.get("date") || "");
    if (date && Math.abs(date / 1000 - now()) > 2) clockOffset = (date - Date.now()) / 1000;
    if (!answer.ok) throw await refusal(answer);
    return answer.json();
  }

  const aboutJob = (job, part = "") => `/jobs/${encodeURIComponent(job)}${part}`;

  /** Server-sent events by fetch: EventSource could not send the token. Comes back by itself, where it was. */
  class Stream {
    static all = new Set();

    constructor(path, onMessage, onState) {
      this.path = path;
      this.onMessage = onMessage;
      this.onState = onState;
      this.last = "";
      this.closed = this.over = this.resting = false;
      Stream.all.add(this);
      this.run();
    }

    close() {
      this.closed = true;
      Stream.all.delete(this);
      this.controller?.abort();
      this.wake?.();
    }

    /** Nothing more will come. */
    end() {
      this.over = true;
      this.controller?.abort();
    }

    /** Let go of the connection for a while. */
    rest() {
      this.resting = true;
      this.controller?.abort();
    }

    goOn() {
      this.resting = false;
      this.wake?.();
    }

    async run() {
      let pause = 0.5;
      while (!this.closed && !this.over) {
        try {
          this.controller = new AbortController();
          this.watch();
          const more = { Accept: "text/event-stream", ...(this.last ? { "Last-Event-ID": this.last } : {}) };
          const options = { headers: headers(more), signal: this.controller.signal, cache: "no-store" };
          const answer = await fetch(API + this.path, options);
          if (!answer.ok) throw await refusal(answer);
          this.onState("live");
          pause = 0.5;
          await this.read(answer.body.getReader());
        } catch (error) {
          if (this.closed) return;
          if (error instanceof Refused && error.status < 500) {
            this.close();
            this.onState("refused", error);
            return;
          }
        } finally {
          clearTimeout(this.silence);
        }
        if (this.closed || this.over) break;
        if (this.resting) {
          await new Promise((resolve) => { this.wake = resolve; });
          continue;
        }
        this.onState("gone", pause);
        await new Promise((resolve) => { this.wake = resolve; setTimeout(resolve, pause * 1000); });
        pause = Math.min(LONGEST_PAUSE_S, pause * 2);
      }
      Stream.all.delete(this);
      if (!this.closed) this.onState("over");
    }

    watch() {
      clearTimeout(this.silence);
      this.silence = setTimeout(() => this.controller.abort(), SILENCE_MS);
    }

    async read(reader) {
      const decoder = new TextDecoder();
      let parts = [], id = "", data = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        this.watch();
        const lines = decoder.decode(value, { stream: true }).split("\n");
        for (let place = 0; place < lines.length; place++) {
          parts.push(lines[place]);
          if (place === lines.length - 1) break;  // its end has yet to come
          const line = parts.join("");
          parts = [];
          if (line.startsWith("id: ")) id = line.slice(4);
          else if (line.startsWith("data: ")) data = line.slice(6);
          else if (!line && data) {
            const message = JSON.parse(data);
            data = "";
            if (message.kind === "Gap") { this.last = ""; return; }  // something was missed: begin anew
            this.last = id;
            if (this.closed) return;
            this.onMessage(message);
          }
        }
      }
    }
  }

  // ---- the jobs ----------------------------------------------------------------------------------------------------

  const jobs = new Map();            // id -> summary
  let order = [];                    // ids of those that fit, as the table has them
  let counts = {};                   // of those that fit but for their state
  let wantedState = "";
  let sortKey = "created", sortDown = true;
  let loaded = false;

  function nameOf(job) {
    if (job._name === undefined) {
      const tag = (job.tags || []).find((each) => each.startsWith("name="));
      job._name = tag ? tag.slice(5) : "";
    }
    return job._name;
  }

  const shortService = (job) => job.service.split(".").pop();

  function keep(summary) {
    const before = jobs.get(summary.id);
    summary._number = before ? before._number : Number((/(\d+)$/.exec(summary.id) || [0, 0])[1]);
    summary._pace = before?._pace;
    if (summary.progress && summary.state === "active" && typeof summary.progress[0] === "number") {
      const k = summary.progress[0], pace = summary._pace;
      if (!pace || pace.attempt !== summary.attempt || k < pace.k) {
        summary._pace = { k, time: now(), attempt: summary.attempt };
      }
    }
    jobs.set(summary.id, summary);
  }

  /** How long an active job still needs, and what that rests on: the pace that was seen here, or else since its start. */
  function estimate(job) {
    if (job.state !== "active" || !job.progress) return null;
    const [k, n] = job.progress;
    if (typeof k !== "number" || typeof n !== "number" || !(n > 0) || k >= n) return null;
    const pace = job._pace, seen = pace ? now() - pace.time : 0;
    if (pace && seen > 5 && k > pace.k) return { seconds: ((n - k) * seen) / (k - pace.k), by: `at the pace of the last ${span(seen)}` };
    const since = now() - job.started;
    return k > 0 && since > 0 ? { seconds: ((n - k) * since) / k, by: "at its mean pace since the start" } : null;
  }

  const left = (job) => estimate(job)?.seconds ?? null;

  function leftWords(job) {
    const found = estimate(job);
    return found ? `${span(found.seconds)} ${found.by}` : "–";
  }

  function oldestWords(unit) {
    return unit ? `unit ${unit.unit}, for ${span(unit.age)} on ${unit.host}` : "none is under way";
  }

  function fraction(job) {
    if (!job.progress) return null;
    const [k, n] = job.progress;
    return typeof k === "number" && typeof n === "number" && n > 0 ? Math.min(1, Math.max(0, k / n)) : null;
  }

  function progressWords(job) {
    if (!job.progress) return "";
    const [k, n, units] = job.progress;
    if (typeof k !== "number") return "";
    return `${figure(k)}${typeof n === "number" ? ` of ${figure(n)}` : ""}${units ? ` ${units}` : ""}`;
  }

  const COLUMNS = [
    { key: "state", title: "State", value: (job) => STATES.indexOf(job.state) },
    { key: "name", title: "Job", value: (job) => nameOf(job) || job._number },
    { key: "owner", title: "Owner", value: (job) => job.owner, text: (job) => job.owner },
    { key: "service", title: "Service", value: shortService, text: shortService },
    {
      key: "tags", title: "Tags", value: (job) => tagsOf(job), text: (job) => tagsOf(job),
    },
    { key: "priority", title: "Priority", value: (job) => job.priority, text: (job) => String(job.priority), number: true },
    { key: "progress", title: "Progress", value: (job) => fraction(job) ?? -1 },
    { key: "best", title: "Last improvement", value: (job) => job.improved || 0 },
    {
      key: "left", title: "Time left", number: true, value: (job) => left(job) ?? Infinity,
      text: (job) => { const seconds = left(job); return seconds === null ? "" : span(seconds); },
    },
    {
      key: "created", title: "Created", number: true, value: (job) => job.created,
      text: (job) => ago(job.created),
    },
  ];

  function tagsOf(job) {
    return (job.tags || []).filter((tag) => !tag.startsWith("name=")).join(", ");
  }

  /** What the words of the search say, as a function of a job. */
  function reading(text) {
    const tests = text.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
      const [, field, rest] = /^(owner|tag|service|state|id):(.+)$/.exec(word) || [];
      if (field === "tag") return (job) => (job.tags || []).some((tag) => tag.toLowerCase().includes(rest));
      if (field) return (job) => String(job[field]).toLowerCase().includes(rest);
      return (job) => {
        job._hay ??= [job.id, job.owner, job.service, job.state, job.reason, ...(job.tags || [])].join(" ").toLowerCase();
        return job._hay.includes(word);
      };
    });
    return (job) => tests.every((test) => test(job));
  }

  function sortJobs() {
    const fits = reading($("search").value);
    const mine = $("mine").checked;
    const found = [];
    counts = { all: 0 };
    for (const job of jobs.values()) {
      if ((mine && job.owner !== me.user) || !fits(job)) continue;
      counts.all += 1;
      counts[job.state] = (counts[job.state] || 0) + 1;
      if (!wantedState || job.state === wantedState) found.push(job);
    }
    const { value } = COLUMNS.find((column) => column.key === sortKey);
    const sign = sortDown ? -1 : 1;
    const keyed = found.map((job) => ({ job, by: value(job) }));
    keyed.sort((a, b) => sign * compare(a.by, b.by) || b.job._number - a.job._number || compare(b.job.id, a.job.id));
    order = keyed.map(({ job }) => job.id);
  }

  function compare(a, b) {
    if (typeof a !== typeof b) return typeof a === "number" ? 1 : -1;  // texts before numbers
    if (typeof a === "string") return a.localeCompare(b, undefined, { numeric: true });
    return a === b ? 0 : a < b ? -1 : 1;
  }

  // ---- the table ---------------------------------------------------------------------------------------------------

  const scroll = $("scroll"), table = $("jobs"), body = $("rows");
  const above = spacer(), below = spacer();
  let rows = [];
  let here = "";                     // id of the job that the keyboard is at
  let open = "";                     // id of the job in the panel
  let sorted = 0, planned = 0, stale = true;

  function spacer() {
    const made = el("tr", { class: "spacer", role: "presentation", "aria-hidden": "true" });
    made.append(el("td", { role: "presentation" }));
    return made;
  }

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
    const first = ["state", "name", "owner", "service", "tags", "left"].includes(key) ? false : true;
    sortDown = key === sortKey ? !sortDown : first;
    sortKey = key;
    markSorting();
    scroll.scrollTop = 0;
    refresh(true);
    tell(`Sorted by ${COLUMNS.find((column) => column.key === key).title.toLowerCase()}, ${sortDown ? "descending" : "ascending"}`);
  }

  function markSorting() {
    for (const head of $("heads").children) {
      if (head.dataset.key === sortKey) head.setAttribute("aria-sort", sortDown ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

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
    row.tr.addEventListener("click", () => { here = row.id; show(row.id); });
    return row;
  }

  function showRow(row, id, index) {
    const job = jobs.get(id);
    row.id = id;
    row.tr.setAttribute("aria-rowindex", String(index + 2));
    row.tr.setAttribute("aria-selected", String(id === open));
    row.tr.classList.toggle("here", id === here);
    if (row.job === job && row.drawn === Math.floor(Date.now() / 1000)) return;
    row.job = job;
    row.drawn = Math.floor(Date.now() / 1000);
    put(row.state, job.state);
    row.state.className = `state ${STATES.includes(job.state) ? job.state : ""}`;
    const name = nameOf(job);
    put(row.name, name || job.id);
    put(row.ident, name ? job.id : "");
    for (const { key, text } of COLUMNS) if (text) put(row.cells[key], text(job));
    const part = fraction(job), bar = part !== null;
    row.bar.hidden = !bar;
    row.progress.classList.toggle("over", ENDED.has(job.state));
    if (bar) {
      row.fill.style.width = `${part * 100}%`;
      row.bar.setAttribute("aria-valuenow", String(Math.round(part * 100)));
    }
    put(row.words, progressWords(job));
    put(row.best, brief(job.best, 30));
    put(row.ago, job.improved ? ` · ${span(now() - job.improved)}` : "");
  }

  /** Draw soon; `now` has the order made anew at once. */
  function refresh(atOnce = false) {
    stale = true;
    if (atOnce) sorted = 0;
    if (!planned) planned = requestAnimationFrame(draw);
  }

  function draw() {
    planned = 0;
    const time = performance.now();
    if (stale && time - sorted >= SORT_MS) {
      sortJobs();
      sorted = performance.now();
      stale = false;
      showCounts();
    } else if (stale) {
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
    for (let place = 0; place < rows.length; place++) {
      const id = place < number ? order[first + place] : undefined;
      const there = id !== undefined && jobs.has(id);
      rows[place].tr.hidden = !there;
      if (there) showRow(rows[place], id, first + place);
      else rows[place].id = "";
    }
    above.firstChild.style.height = `${first * ROW}px`;
    below.firstChild.style.height = `${Math.max(0, order.length - first - Math.max(0, number)) * ROW}px`;
    table.setAttribute("aria-rowcount", String(order.length + 1));
    const current = rows.find((row) => row.id && row.id === here);
    if (current) table.setAttribute("aria-activedescendant", current.tr.id);
    else table.removeAttribute("aria-activedescendant");
  }

  function showCounts() {
    for (const button of $("states").children) {
      const state = button.dataset.state;
      put(button.lastChild, count((state ? counts[state] : counts.all) || 0));
      button.setAttribute("aria-pressed", String(state === wantedState));
    }
    const empty = loaded && !order.length;
    $("empty").hidden = !empty;
    if (empty) put($("empty"), jobs.size ? "No job fits. Clear the search or choose another state." : "There are no jobs yet.");
  }

  function makeStates() {
    for (const state of ["", ...STATES]) {
      const words = state ? state[0].toUpperCase() + state.slice(1) : "All";
      const button = el("button", { type: "button", "data-state": state, "aria-pressed": String(!state) }, words,
        el("span", { class: "count" }, "0"));
      button.addEventListener("click", () => {
        wantedState = state;
        scroll.scrollTop = 0;
        refresh(true);
        announce();
      });
      $("states").append(button);
    }
  }

  let announceTimer = 0;
  function announce() {
    clearTimeout(announceTimer);
    announceTimer = setTimeout(() => tell(`${some(order.length, "job")} shown`), 700);
  }

  function moveTo(index) {
    if (!order.length) return;
    const place = Math.min(order.length - 1, Math.max(0, index));
    here = order[place];
    const top = place * ROW, room = scroll.clientHeight - 34;
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (top + ROW > scroll.scrollTop + room) scroll.scrollTop = top + ROW - room;
    draw();
  }

  function tableKey(event) {
    if (event.target !== table || event.ctrlKey || event.altKey || event.metaKey) return;
    const place = order.indexOf(here), page = Math.max(1, Math.floor(scroll.clientHeight / ROW) - 2);
    const steps = { ArrowDown: place + 1, ArrowUp: place - 1, PageDown: place + page, PageUp: place - page, Home: 0, End: order.length - 1 };
    if (event.key in steps) moveTo(steps[event.key]);
    else if ((event.key === "Enter" || event.key === " ") && jobs.has(here)) show(here, true);
    else return;
    event.preventDefault();
  }

  // ---- the panel of one job ----------------------------------------------------------------------------------------

  let detail = null;                 // all about the job in the panel, as the server said
  let stream = null;
  let heard = [];                    // its messages, by time
  let known = new Set();             // which they are
  let best = new Map();              // which message -> its improvement
  let tab = "messages";
  let asking = 0;

  /** Open a job in the panel; `focus` moves the reader there. */
  async function show(id, focus = false) {
    if (open !== id) {
      leave();
      open = id;
      detail = null;
      heard = [];
      known = new Set();
      best = new Map();
      put($("stream-state"), "");
      showMessages();
      for (const part of ["plot-part", "graph-part", "result-part"]) $(part).hidden = true;
      history.replaceState(null, "", `#${encodeURIComponent(id)}`);
    }
    $("panel").hidden = false;
    showFacts();
    refresh();
    if (focus) $("panel-title").focus();
    if (!stream) await follow(id);
  }

  function leave() {
    stream?.close();
    stream = null;
    open = "";
  }

  function closePanel() {
    const inside = $("panel").contains(document.activeElement);
    leave();
    $("panel").hidden = true;
    history.replaceState(null, "", location.pathname);
    refresh();
    if (inside) table.focus();
  }

  async function follow(id) {
    await askAbout(id);
    if (open !== id || stream || !detail) return;
    if (!detail.mine) {
      put($("stream-state"), "Only its owner can read more");
      return;
    }
    const words = { live: "", gone: "Waiting for the server", over: "It has ended", refused: "Not for this token" };
    stream = new Stream(aboutJob(id, "/events"), (message) => {
      if (open !== id) return;
      if (message.kind === "Join") recall(id);  // only now: what comes from here on is heard, what was before is asked
      hear(message);
      if (message.kind === "Improved") soon(showPlot);
    }, (state) => { if (open === id) put($("stream-state"), words[state]); });
  }

  /** What the server remembers of what the job said; some of it may have been heard already. */
  async function recall(id) {
    try {
      const [told, log] = await Promise.all([ask(aboutJob(id, "/improvements")), ask(aboutJob(id, "/log"))]);
      if (open !== id) return;
      [...told.messages, ...log.messages].forEach(hear);
      showPlot();
    } catch (error) {
      if (!(error instanceof Refused)) put($("stream-state"), "Waiting for the server");
    }
  }

  async function askAbout(id) {
    const turn = ++asking;
    try {
      const found = await ask(aboutJob(id));
      if (open !== id || turn !== asking) return;
      detail = found;
      showFacts();
      showGraph();
      await showResult(id);
    } catch (error) {
      if (open !== id) return;
      if (error instanceof Refused && error.status === 404) put($("panel-state"), "There is no such job (any more).");
      else if (error instanceof Refused) toast(error.words);
    }
  }

  const later = new Set();
  function soon(work) {
    if (!later.has(work)) {
      later.add(work);
      setTimeout(() => { later.delete(work); work(); }, 250);
    }
  }

  function showFacts() {
    const job = jobs.get(open) || detail;
    put($("panel-title"), job ? nameOf(job) || job.id : open);
    if (!job) return;
    const mine = detail?.controllable && detail.id === open;
    put($("panel-what"), `${job.id} · ${job.service} ${job.version} · ${job.owner}`);
    const why = job.reason ? el("span", { class: "why" }, job.reason) : null;
    const state = el("span", { class: `state ${STATES.includes(job.state) ? job.state : ""}` }, job.state);
    const paused = detail?.paused && job.state === "active" ? " (paused)" : "";
    if ($("panel-state").textContent !== job.state + paused + (job.reason || "")) {
      $("panel-state").replaceChildren(state, paused, ...(why ? [why] : []));
    }
    showActions(job, mine);
    const facts = [
      ["Priority", String(job.priority)],
      ["Attempt", String(job.attempt)],
      ["Created", moment(job.created)],
      ["Started", job.started ? moment(job.started) : "not yet"],
      ["Ended", job.ended ? moment(job.ended) : "not yet"],
      ["Took", job.started && job.ended ? span(job.ended - job.started) : "–"],
      ["Progress", progressWords(job) || "unknown"],
      ["Time left", leftWords(job)],
      ["Oldest unit", job.state === "active" && detail?.id === open ? oldestWords(detail.oldest_unit) : "–"],
      ["Best so far", job.best === null || job.best === undefined ? "none" : brief(job.best, 120) + (job.improved ? ` (${ago(job.improved)})` : ""), true],
      ["Tags", (job.tags || []).join(", ") || "none", true],
    ];
    const list = $("facts");
    if (list.children.length !== 2 * facts.length) {
      list.replaceChildren(...facts.flatMap(([name, , wide]) => [el("dt", {}, name), el("dd", { class: wide ? "wide" : "" })]));
    }
    facts.forEach(([, text], place) => put(list.children[2 * place + 1], text));
  }

  function showActions(job, mine) {
    const wanted = !mine ? [] : ENDED.has(job.state) ? ["Archive"] : ["Abort", "Send a message"];
    const bar = $("actions");
    if ([...bar.children].map((button) => button.textContent).join() === wanted.join()) return;
    const held = bar.contains(document.activeElement);
    const work = { Archive: archiveJob, Abort: abortJob, "Send a message": controlJob };
    bar.replaceChildren(...wanted.map((word) => {
      const button = el("button", { type: "button" }, word);
      button.addEventListener("click", () => work[word](job.id));
      return button;
    }));
    if (held) $("panel-title").focus();
  }

  async function showResult(id) {
    const done = ENDED.has(detail.state) && detail.mine;
    if (!done) { $("result-part").hidden = true; return; }
    let text = detail.trace || "";
    put($("result-title"), detail.state === "complete" ? "Result" : "What went wrong");
    if (detail.state === "complete") {
      const found = await ask(aboutJob(id, "/result"));
      if (open !== id) return;
      text = JSON.stringify(found.result, null, 1) ?? "null";
    }
    $("result-part").hidden = !text;
    put($("result"), text.length > 20000 ? `${text.slice(0, 20000)}\n…` : text);
  }

  /** Take in a message, once; numbers begin anew with the server, so the time belongs to its name. */
  function hear(message) {
    if (message.kind === "Progress" || message.kind === "Join") return;
    const key = ENDS.has(message.kind) ? "end" : `${message.number} ${message.time}`;
    if (known.has(key)) return;
    known.add(key);
    if (message.kind === "Improved") best.set(key, { time: message.time, value: message.partial });
    for (const kept of [known, best]) if (kept.size > 4 * MESSAGES) kept.delete(kept.keys().next().value);
    const later = heard.findLastIndex((old) => old.time <= message.time);
    heard.splice(later + 1, 0, message);
    if (heard.length > MESSAGES) heard.splice(0, heard.length - MESSAGES);
    if (ENDS.has(message.kind)) stream?.end();
    soon(showMessages);
  }

  function wordsOf(message) {
    switch (message.kind) {
      case "Log": return message.text ?? "";
      case "State": return `${message.state}${message.reason ? `: ${message.reason}` : ""}`;
      case "Improved": return brief(message.partial, 200);
      case "Completed": return brief(message.final, 200);
      case "Error": return message.error ?? "";
      case "Aborted": case "Cancelled": return message.reason ?? "";
      case "Start": return `attempt ${message.attempt}${message.restored ? ", from a checkpoint" : ""}`;
      case "Kept": return `${message.name}, ${count(message.size)} bytes`;
      default: {
        const { kind, job, number, time, ...fields } = message;
        return brief(fields, 200);
      }
    }
  }

  function showMessages() {
    const list = $("messages");
    const shown = tab === "log" ? heard.filter((message) => message.kind === "Log") : heard;
    const atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 30;
    list.replaceChildren(...shown.map((message) => {
      const bad = message.kind === "Error" || message.level === "error";
      const day = new Date(message.time * 1000);
      return el("li", { class: bad ? "error" : "" },
        el("time", { datetime: day.toISOString(), title: moment(message.time) }, clock(day)),
        el("span", { class: "kind" }, message.kind === "Log" ? message.level || "log" : message.kind),
        el("span", { class: "text" }, wordsOf(message)));
    }));
    if (!shown.length) list.append(el("li", { class: "none" }, tab === "log" ? "It has logged nothing." : "Nothing was said yet."));
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  function chooseTab(name, focus = true) {
    tab = name;
    for (const each of ["messages", "log"]) {
      const button = $(`tab-${each}`), chosen = each === name;
      button.setAttribute("aria-selected", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
      if (chosen && focus) button.focus();
    }
    $("messages").setAttribute("aria-labelledby", `tab-${name}`);
    showMessages();
    $("messages").scrollTop = $("messages").scrollHeight;
  }

  // ---- the plot of its improvements --------------------------------------------------------------------------------

  /** The numbers in a value: "" for itself, else by their names. */
  function numbersIn(value) {
    if (typeof value === "number" && Number.isFinite(value)) return { "": value };
    const found = {};
    if (value && typeof value === "object") {
      for (const [key, each] of Object.entries(value).slice(0, 50)) {
        if (typeof each === "number" && Number.isFinite(each)) found[key] = each;
      }
    }
    return found;
  }

  function showPlot() {
    const told = [...best.values()].sort((a, b) => a.time - b.time);
    const keys = [...new Set(told.flatMap(({ value }) => Object.keys(numbersIn(value))))];
    $("plot-part").hidden = !keys.length;
    if (!keys.length) return;
    const select = $("plot-key");
    if ([...select.options].map((option) => option.value).join("\n") !== keys.join("\n")) {
      const before = select.value;
      select.replaceChildren(...keys.map((key) => el("option", { value: key }, key || "value")));
      if (keys.includes(before)) select.value = before;
      select.hidden = keys.length < 2;
    }
    const key = select.value;
    const points = told.map(({ time, value }) => ({ time, y: numbersIn(value)[key] })).filter(({ y }) => y !== undefined);
    if (points.length) $("plot").replaceChildren(plot(points, key));
  }

  /** Round steps that divide a range into about `most` parts. */
  function ticks(low, high, most) {
    const raw = (high - low) / most || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw);
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
    return found;
  }

  /** Labels of levels: as many digits as tell them apart, and no more. */
  function levelWords(levels, log) {
    if (log) return levels.map((at) => figure(10 ** at));
    const step = levels.length > 1 ? levels[1] - levels[0] : Math.abs(levels[0]) || 1;
    const fine = Math.floor(Math.log10(step)), large = Math.max(...levels.map(Math.abs), step);
    if (large >= 1e7 || large < 1e-4) {
      const digits = Math.min(15, Math.max(0, Math.floor(Math.log10(large)) - fine));
      return levels.map((at) => (at ? at.toExponential(digits) : "0"));
    }
    return levels.map((at) => at.toFixed(Math.min(20, Math.max(0, -fine))));
  }

  function plot(points, key) {
    const width = Math.max(300, $("plot").clientWidth), height = 170, end = width - 12, top = 10, foot = height - 26;
    const values = points.map(({ y }) => y), lowest = Math.min(...values), highest = Math.max(...values);
    const log = lowest > 0 && highest / lowest > 100;
    const scale = (y) => (log ? Math.log10(y) : y);
    let low = scale(lowest), high = scale(highest);
    const margin = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
    low -= margin;
    high += margin;
    const levels = ticks(low, high, 4), labels = levelWords(levels, log);
    const start = Math.min(width / 2, Math.max(64, 16 + 7.5 * Math.max(0, ...labels.map((label) => label.length))));
    const last = points[points.length - 1], job = jobs.get(open);
    const until = job?.state === "active" ? now() : last.time;  // what is best stays so until the next
    const t0 = points[0].time, t1 = Math.max(until, last.time, t0 + 1e-3);
    const x = (time) => start + ((time - t0) / (t1 - t0)) * (end - start);
    const y = (value) => foot - ((scale(value) - low) / (high - low)) * (foot - top);
    const words = `${some(points.length, "improvement")} of ${key || "the value"}, from ${figure(points[0].y)} to ${figure(last.y)} in ${span(last.time - t0)}`;
    const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words });
    levels.forEach((at, place) => {
      const level = foot - ((at - low) / (high - low)) * (foot - top);
      made.append(svg("path", { class: "axis", d: `M${start} ${level.toFixed(1)}H${end}` }),
        svg("text", { x: start - 8, y: (level + 4).toFixed(1), "text-anchor": "end" }, labels[place]));
    });
    for (const at of t1 - t0 < 0.1 ? [0] : ticks(0, t1 - t0, 4)) {
      const place = x(t0 + at), anchor = !at ? "start" : place > end - 28 ? "end" : "middle";
      made.append(svg("text", { x: place.toFixed(1), y: height - 8, "text-anchor": anchor }, at ? finer(at) : "start"));
    }
    let d = `M${x(points[0].time).toFixed(1)} ${y(points[0].y).toFixed(1)}`;
    for (const point of points.slice(1)) d += `H${x(point.time).toFixed(1)}V${y(point.y).toFixed(1)}`;
    made.append(svg("path", { class: "curve", d: `${d}H${x(t1).toFixed(1)}` }));
    const dots = points.length > 60 ? [last] : points;
    for (const point of dots) {
      made.append(svg("circle", { class: "point", cx: x(point.time).toFixed(1), cy: y(point.y).toFixed(1), r: 2.5 },
        svg("title", {}, `${figure(point.y)} at ${moment(point.time)}`)));
    }
    return made;
  }

  const finer = (seconds) => (seconds < 10 ? `${Number(seconds.toPrecision(2))} s` : span(seconds));

  // ---- its conditions as a graph -----------------------------------------------------------------------------------

  /** What a part of a condition is, as far as the page can know: satisfied, pending, cancelled. */
  function judge(node) {
    if (node.op) {
      const states = (node.of || []).map(judge);
      if (node.op === "not") return { satisfied: "cancelled", cancelled: "satisfied" }[states[0]] || "pending";
      const [all, one] = node.op === "and" ? ["satisfied", "cancelled"] : ["cancelled", "satisfied"];
      if (states.includes(one)) return one;
      return states.every((state) => state === all) ? all : "pending";
    }
    const job = node.job && (jobs.get(node.job) || (detail.after || []).find((each) => each.id === node.job));
    if (job && (node.atom === "completed" || node.atom === "cancelled") && ENDED.has(job.state)) {
      return (job.state === "complete") === (node.atom === "completed") ? "satisfied" : "cancelled";
    }
    const line = (detail.explain || "").split("\n").find((each) => node.job && each.includes(`${node.job} `) && / is (satisfied|cancelled)/.test(each));
    return line ? / is (satisfied|cancelled)/.exec(line)[1] : "pending";
  }

  function atomWords(node) {
    switch (node.atom) {
      case "completed": return "completed";
      case "cancelled": return "failed";
      case "result": return `result ${node.expression ?? ""}`;
      case "message": return `says ${node.message ?? "something"}`;
      case "fetched": return "fetched";
      case "servers": return "there";
      default: return String(node.atom);
    }
  }

  const VERDICTS = { satisfied: "yes", pending: "not yet", cancelled: "never" };

  function atomTitle(node) {
    if (node.job) return nameOf(jobs.get(node.job) || { tags: [] }) || node.job;
    if (node.url) return node.url;
    return node.n !== undefined ? `${node.n} servers` : String(node.atom);
  }

  const WIDE = 156, NARROW = 56, HIGH = 40, GAP = 10, ACROSS = 32, MOST = 12;

  /** Places for a tree, its root at the right: each gets a depth and y; `widths` are those of the columns. */
  function layOut(node, depth, state) {
    const made = { node, depth, children: [] };
    state.widths[depth] = Math.max(state.widths[depth] || 0, node.op ? NARROW : WIDE);
    const parts = node.of || [];
    for (const part of parts.slice(0, MOST)) made.children.push(layOut(part, depth + 1, state));
    if (parts.length > MOST) made.children.push(layOut({ more: parts.length - MOST }, depth + 1, state));
    if (made.children.length) made.y = (made.children[0].y + made.children[made.children.length - 1].y) / 2;
    else { made.y = state.y; state.y += HIGH + GAP; }
    return made;
  }

  function clip(text, most) {
    return text.length > most ? `${text.slice(0, most - 1)}…` : text;
  }

  function showGraph() {
    const tree = detail.condition;
    $("graph-part").hidden = !tree;
    if (!tree) return;
    const state = { y: 4, widths: [] };
    const root = layOut(tree, 0, state);
    const width = state.widths.reduce((sum, each) => sum + each + ACROSS, 8 - ACROSS), height = state.y - GAP + 4;
    const lefts = [];                // of the columns, the deepest first on the page
    for (let depth = state.widths.length - 1, x = 4; depth >= 0; depth--) {
      lefts[depth] = x;
      x += state.widths[depth] + ACROSS;
    }
    const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "Conditions of this job" });
    drawNode(made, root, lefts);
    $("graph").replaceChildren(made);
    put($("explain"), detail.state === "waiting" ? detail.explain || "" : "");
  }

  function drawNode(made, place, lefts) {
    const { node } = place, x = lefts[place.depth], width = node.op ? NARROW : WIDE;
    for (const child of place.children) {
      const right = lefts[child.depth] + (child.node.op ? NARROW : WIDE);
      const a = child.y + HIGH / 2, b = place.y + HIGH / 2, middle = x - ACROSS / 2;
      made.append(svg("path", { class: "edge", d: `M${right} ${a}H${x - ACROSS}C${middle} ${a} ${middle} ${b} ${x} ${b}` }));
      drawNode(made, child, lefts);
    }
    if (node.more) {
      made.append(svg("text", { x: x + 12, y: place.y + HIGH / 2 + 4 }, `and ${node.more} more`));
      return;
    }
    const verdict = judge(node);
    const group = svg("g", { class: `node ${verdict}` });
    group.append(svg("rect", { x, y: place.y, width, height: HIGH, rx: 7 }));
    if (node.op) {
      const word = { and: "all of", or: "one of", not: "not" }[node.op] || node.op;
      group.append(svg("text", { x: x + width / 2, y: place.y + HIGH / 2 + 4, "text-anchor": "middle" }, word),
        svg("title", {}, `${word}: ${VERDICTS[verdict]}`));
      made.append(group);
      return;
    }
    const words = `${atomWords(node)}: ${VERDICTS[verdict]}`;
    group.append(svg("text", { x: x + 12, y: place.y + 17 }, clip(atomTitle(node), 21)),
      svg("text", { class: "mark", x: x + 12, y: place.y + 32 }, clip(words, 24)),
      svg("title", {}, `${atomTitle(node)}, ${words}`));
    made.append(node.job ? svg("a", { href: `#${encodeURIComponent(node.job)}`, "aria-label": `${atomTitle(node)}, ${words}` }, group) : group);
  }

  // ---- the machines ------------------------------------------------------------------------------------------------

  let machinesTimer = 0;
  async function showMachines() {
    clearTimeout(machinesTimer);
    const seen = !$("view-machines").hidden;
    if (!document.hidden) {
      try {
        const found = await ask("/hosts");
        put($("servers"), `${count(found.busy)} of ${some(found.busy + found.free, "server")} busy`);
        if (seen) listMachines(found);
      } catch {
        put($("servers"), "");       // the stream says what is wrong
      }
    }
    clearTimeout(machinesTimer);
    machinesTimer = setTimeout(showMachines, seen ? 2000 : 10_000);
  }

  function listMachines(found) {
    put($("machines-sum"), `${some(found.hosts.length, "host")}, ${some(found.busy + found.free, "server")}: ${count(found.busy)} busy, ${count(found.free)} free; ${count(found.running)} of ${some(found.places, "job")} at work`);
    $("hosts").replaceChildren(...found.hosts.map((host) => {
      const strip = el("div", { class: "strip", role: "img", "aria-label": `${host.busy} busy, ${host.free} free` });
      for (const server of host.servers.slice(0, 512)) {
        const kind = { acquired: "busy", free: "free" }[server.state] || "other";
        strip.append(el("span", { class: `server ${kind}`, title: `${server.name}, ${server.does}: ${kind === "other" ? server.state : kind}` }));
      }
      return el("tr", {}, el("th", { scope: "row" }, host.host), el("td", {}, host.state),
        el("td", { class: "number" }, count(host.busy)), el("td", { class: "number" }, count(host.free)), el("td", {}, strip));
    }));
  }

  function view(name) {
    for (const each of ["jobs", "machines"]) {
      $(`view-${each}`).hidden = each !== name;
      $(`show-${each}`).setAttribute("aria-pressed", String(each === name));
    }
    if (name === "machines") showMachines();
    else refresh();
  }

  // ---- questions ---------------------------------------------------------------------------------------------------

  /** Ask something in a dialog. `check` gets the fields by name, does the work, and throws words for the reader. */
  function question({ title, text = "", yes, danger = false, no = "Cancel", fields = [], check }) {
    const dialog = $("ask"), form = $("ask-form");
    return new Promise((resolve) => {
      put($("ask-title"), title);
      put($("ask-text"), text);
      put($("ask-wrong"), "");
      put($("ask-yes"), yes);
      put($("ask-no"), no);
      $("ask-no").hidden = !no;
      $("ask-yes").className = danger ? "main danger" : "main";
      const inputs = {};
      $("ask-fields").replaceChildren(...fields.map(({ name, label, kind = "text", value = "", choices = [] }) => {
        const common = { autocomplete: "off", spellcheck: "false" };
        const input = kind === "area" ? el("textarea", common) : el("input", { type: kind, list: choices.length ? `list-${name}` : null, ...common });
        input.value = value;
        inputs[name] = input;
        const list = choices.length ? el("datalist", { id: `list-${name}` }, ...choices.map((each) => el("option", { value: each }))) : null;
        return el("label", {}, label, input, list);
      }));
      let answered = false;
      const end = (answer) => {
        if (answered) return;
        answered = true;
        for (const input of Object.values(inputs)) input.value = "";  // a token stays in no field
        form.onsubmit = dialog.onclose = $("ask-no").onclick = null;
        if (dialog.open) dialog.close();
        resolve(answer);
      };
      form.onsubmit = async (event) => {
        event.preventDefault();
        $("ask-yes").disabled = true;
        try {
          await check(Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value])));
          end(true);
        } catch (error) {
          put($("ask-wrong"), error.words || error.message);
        } finally {
          $("ask-yes").disabled = false;
        }
      };
      $("ask-no").onclick = () => end(false);
      dialog.onclose = () => end(false);
      if (dialog.open) dialog.close();
      dialog.showModal();
      (Object.values(inputs)[0] || $("ask-no")).focus();
    });
  }

  const titleOf = (id) => { const job = jobs.get(id); return job && nameOf(job) ? `${nameOf(job)} (${id})` : id; };

  async function abortJob(id) {
    const done = await question({
      title: "Abort this job?", text: `${titleOf(id)} is asked to end; after a grace time it is ended by force.`,
      yes: "Abort job", no: "Keep it", danger: true, fields: [{ name: "reason", label: "Reason (if you like)" }],
      check: ({ reason }) => ask(aboutJob(id, "/abort"), { reason: reason.trim() || `aborted from the page by ${me.user}` }),
    });
    if (done) toast(`${id} is asked to end`);
  }

  async function archiveJob(id) {
    const done = await question({
      title: "Archive this job?", text: `${titleOf(id)} leaves the list. Nothing of it is deleted; “grid jobs list --archived” shows it.`,
      yes: "Archive", check: () => ask(aboutJob(id, "/archive"), { archived: true }),
    });
    if (done) {
      toast(`${id} is archived`);
      if (open === id) closePanel();
    }
  }

  async function controlJob(id) {
    const done = await question({
      title: "Send a message", text: `To ${titleOf(id)}. Pause, Resume and Checkpoint every job knows; its service may know others.`,
      yes: "Send",
      fields: [
        { name: "kind", label: "Kind of message", choices: ["Pause", "Resume", "Checkpoint"] },
        { name: "fields", label: "Values, as JSON", kind: "area", value: "{}" },
      ],
      check: ({ kind, fields }) => {
        let values;
        try { values = JSON.parse(fields || "{}"); } catch { throw new Error("The values are no JSON."); }
        if (!values || typeof values !== "object" || Array.isArray(values)) throw new Error('Give values by name, like {"kelvin": 300}.');
        if (!kind.trim()) throw new Error("Say which kind of message.");
        return ask(aboutJob(id, "/control"), { kind: kind.trim(), fields: values });
      },
    });
    if (done) {
      toast(`Sent to ${id}`);
      setTimeout(() => { if (open === id) askAbout(id); }, 600);
    }
  }

  /** Have the reader type a token that holds. */
  async function wantToken(why) {
    await question({
      title: "Token", text: why, yes: "Go on", no: "",
      fields: [{ name: "token", label: "Token, from “grid token create”", kind: "password" }],
      check: async ({ token: typed }) => {
        const before = token;
        token = typed.trim();
        try {
          me = await ask("/me");
          sessionStorage.setItem("grid-token", token);
        } catch (error) {
          token = before;
          throw error;
        }
      },
    });
    if (!me.user) await wantToken(why);  // Escape leads nowhere
  }

  // ---- the start ---------------------------------------------------------------------------------------------------

  let list = null, goneSince = 0;

  function connection(state, more) {
    const words = { live: "Live", gone: "No connection", refused: "Refused", waiting: "Connecting" };
    $("connection").dataset.state = state;
    put($("connection-text"), words[state] || state);
    const banner = $("banner");
    if (state === "live") {
      if (goneSince) toast("The server is back");
      goneSince = 0;
      banner.hidden = true;
    } else if (state === "gone") {
      goneSince ||= Date.now();
      banner.hidden = false;
      put(banner, "The server does not answer. What you see may be old; the page tries again by itself.");
    } else if (state === "refused") {
      banner.hidden = false;
      put(banner, more.words);
      if (more.status === 401) begin("Your token holds no longer. Type another one.");
    }
  }

  function change(message) {
    if (message.kind === "Jobs") {
      const there = new Set(message.jobs.map((job) => job.id));
      for (const id of jobs.keys()) if (!there.has(id)) jobs.delete(id);
      message.jobs.forEach(keep);
      loaded = true;
      refresh(true);
      if (open && stream) askAbout(open);
      else if (open) follow(open);
    } else if (message.kind === "JobChanged") {
      const { summary } = message;
      const before = jobs.get(summary.id);
      if (message.change === "removed") jobs.delete(summary.id);
      else keep(summary);
      if (message.time && Math.abs(message.time - now()) > 5) clockOffset = message.time - Date.now() / 1000;
      if (summary.id === open) {
        showFacts();
        if (!before || before.state !== summary.state) askAbout(open);
      } else if (open && detail?.after?.some((each) => each.id === summary.id) && before?.state !== summary.state) {
        askAbout(open);
      }
      refresh();
    }
  }

  async function begin(why = "") {
    list?.close();
    list = null;
    me = { user: "", scopes: [] };
    for (let pause = 0.5; !me.user; pause = Math.min(LONGEST_PAUSE_S, pause * 2)) {
      try {
        if (why) throw new Refused(401, {});
        me = await ask("/me");
      } catch (error) {
        if (error instanceof Refused && error.status === 401) {
          sessionStorage.removeItem("grid-token");
          token = "";
          await wantToken(why || "This job server shows its jobs to those who have a token.");
        } else {
          connection("gone");
          await new Promise((resolve) => setTimeout(resolve, pause * 1000));
        }
      }
    }
    const may = me.scopes.includes("admin") ? "admin" : me.scopes.includes("control") ? "" : "may look only";
    put($("me"), may ? `${me.user}, ${may}` : me.user);
    $("sign-out").hidden = !token;
    list = new Stream("/events", change, connection);
    showMachines();
    openFromAddress();
  }

  function openFromAddress() {
    let id = "";
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { /* somebody's own */ }
    if (id && id !== "jobs" && id !== open) { here = id; show(id); }
  }

  makeHeads();
  makeStates();
  body.append(above, below);
  scroll.addEventListener("scroll", () => { if (!planned) planned = requestAnimationFrame(draw); }, { passive: true });
  new ResizeObserver(() => refresh()).observe(scroll);
  new ResizeObserver(() => soon(showPlot)).observe($("plot"));
  table.addEventListener("keydown", tableKey);
  table.addEventListener("focus", () => {  // nothing may move: a click that lands here is not over yet
    if (!jobs.has(here)) here = order[Math.ceil(scroll.scrollTop / ROW)] || "";
    refresh();
  });
  $("search").addEventListener("input", () => { scroll.scrollTop = 0; refresh(true); announce(); });
  $("mine").addEventListener("change", () => { scroll.scrollTop = 0; refresh(true); announce(); });
  $("plot-key").addEventListener("change", showPlot);
  $("panel-close").addEventListener("click", closePanel);
  $("show-jobs").addEventListener("click", () => view("jobs"));
  $("show-machines").addEventListener("click", () => view("machines"));
  $("sign-out").addEventListener("click", () => { sessionStorage.removeItem("grid-token"); location.replace("/"); });
  for (const name of ["messages", "log"]) {
    $(`tab-${name}`).addEventListener("click", () => chooseTab(name));
    $(`tab-${name}`).addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") chooseTab(name === "log" ? "messages" : "log");
    });
  }
  document.addEventListener("keydown", (event) => {
    if ($("ask").open) return;
    if (event.key === "Escape" && !$("panel").hidden && event.target !== $("search")) closePanel();
    else if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) {
      event.preventDefault();
      view("jobs");
      $("search").focus();
    }
  });
  addEventListener("hashchange", openFromAddress);
  // A browser has six connections to a server for all its tabs: one that nobody looks at must not hold any.
  let resting = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(resting);
    if (document.hidden) resting = setTimeout(() => Stream.all.forEach((each) => each.rest()), HIDDEN_MS);
    else Stream.all.forEach((each) => each.goOn());
  });
  setInterval(() => {                // times go on by themselves
    if (document.hidden) return;
    if (!planned) planned = requestAnimationFrame(draw);
    if (!open) return;
    showFacts();
    if (jobs.get(open)?.state === "active") showPlot();
  }, 1000);
  begin();
})();
