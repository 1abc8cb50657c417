/* The panel of the open job: facts, actions, result, what it waits for, what it says.
 *
 * It asks for all about the job, and follows its stream. What the job said before is asked for only after the stream has
 * begun: so nothing is missed, and what is heard twice is known (`heard.js`).
 *
 * Lives here: the panel, and asking about the job in it.
 * Elsewhere:  which job is open (`state.js`), parts of the panel (`messages.js`, `improvements.js`, `graph.js`).
 */

import { abortJob, archiveJob, controlJob } from "./actions.js";
import { $, el, put, soon, toast } from "./dom.js";
import { graph } from "./graph.js";
import { Heard, isEnd } from "./heard.js";
import { showPlot } from "./improvements.js";
import { ENDED, leftWords, nameOf, oldestWords, progressWords, stateClass } from "./job.js";
import { sayOfMessages, showMessages } from "./messages.js";
import { Refused, Stream, aboutJob, ask, now } from "./server.js";
import { state } from "./state.js";
import { ago, brief, moment, span } from "./words.js";

const PARTS = ["plot-part", "graph-part", "result-part"];
const MOST_OF_RESULT = 20_000;     // characters

let shown = "";                    // id of the job that the rest here is of
let stream = null;
let heard = new Heard();
let questions = 0;                 // asked about it: the answer to the latest one counts

/** What the reader has chosen is another job, or none; `focus` moves the reader to it. */
async function open(focus) {
  const id = state.open;
  if (shown !== id) {
    stream?.close();
    stream = null;
    shown = id;
    if (id) clear();
    history.replaceState(null, "", id ? `#${encodeURIComponent(id)}` : location.pathname);
  }
  $("panel").hidden = !id;
  if (!id) return;
  showFacts();
  if (focus) $("panel-title").focus();
  if (!stream) await follow(id);
}

function clear() {
  heard = new Heard();
  sayOfMessages("");
  showMessages(heard.messages);
  for (const part of PARTS) $(part).hidden = true;
}

/** No job is open any more; the reader, if in the panel, is back in the table. */
export function closePanel() {
  const isInside = $("panel").contains(document.activeElement);
  state.choose("");
  if (isInside) $("jobs").focus();
}

// ---- asking ----------------------------------------------------------------------------------------------------------

async function follow(id) {
  await askAbout(id);
  if (state.open !== id || stream || !state.detail) return;
  if (!state.detail.mine) {
    sayOfMessages("Only its owner can read more");
    return;
  }
  const words = { live: "", gone: "Waiting for the server", over: "It has ended", refused: "Not for this token" };
  stream = new Stream(aboutJob(id, "/events"), (message) => {
    if (state.open !== id) return;
    if (message.kind === "Join") recall(id);
    hear(message);
    if (message.kind === "Improved") soon(showImprovements);
  }, (how) => { if (state.open === id) sayOfMessages(words[how]); });
}

/** What the server remembers of what the job said. */
async function recall(id) {
  try {
    const [told, log] = await Promise.all([ask(aboutJob(id, "/improvements")), ask(aboutJob(id, "/log"))]);
    if (state.open !== id) return;
    [...told.messages, ...log.messages].forEach(hear);
    showImprovements();
  } catch (error) {
    if (!(error instanceof Refused)) sayOfMessages("Waiting for the server");
  }
}

function hear(message) {
  if (!heard.take(message)) return;
  if (isEnd(message)) stream?.end();
  soon(showHeard);
}

async function askAbout(id) {
  const question = ++questions;
  try {
    const found = await ask(aboutJob(id));
    if (state.open !== id || question !== questions) return;
    state.learn(found);
    showFacts();
    showGraph();
    await showResult(id);
  } catch (error) {
    if (state.open !== id) return;
    if (error instanceof Refused && error.status === 404) put($("panel-state"), "There is no such job (any more).");
    else if (error instanceof Refused) toast(error.words);
  }
}

/** The server told its whole list, perhaps after a pause: what the panel shows may be old. */
function lookAgain(isNew) {
  if (!isNew || !state.open) return;
  if (stream) askAbout(state.open);
  else follow(state.open);
}

/** A job is another: the open one, or one that it waits for. */
function change(job, before) {
  if (!state.open) return;
  const isMoved = before?.state !== job.state;
  if (job.id === state.open) {
    showFacts();
    if (isMoved) askAbout(state.open);
  } else if (isMoved && state.detail?.after?.some((each) => each.id === job.id)) {
    askAbout(state.open);
  }
}

// ---- showing ---------------------------------------------------------------------------------------------------------

const showHeard = () => showMessages(heard.messages);

const isActive = () => state.job(state.open)?.state === "active";

function showImprovements() {
  showPlot(heard.improvements, isActive());
}

function showFacts() {
  const { detail } = state, job = state.job(state.open) || detail;
  put($("panel-title"), job ? nameOf(job) || job.id : state.open);
  if (!job) return;
  put($("panel-what"), `${job.id} · ${job.service} ${job.version} · ${job.owner}`);
  const why = job.reason ? el("span", { class: "why" }, job.reason) : null;
  const paused = detail?.paused && job.state === "active" ? " (paused)" : "";
  if ($("panel-state").textContent !== job.state + paused + (job.reason || "")) {
    $("panel-state").replaceChildren(el("span", { class: stateClass(job) }, job.state), paused, ...(why ? [why] : []));
  }
  showActions(job, detail?.controllable);
  const time = now();
  const facts = [
    ["Priority", String(job.priority)],
    ["Attempt", String(job.attempt)],
    ["Created", moment(job.created, time)],
    ["Started", job.started ? moment(job.started, time) : "not yet"],
    ["Ended", job.ended ? moment(job.ended, time) : "not yet"],
    ["Took", job.started && job.ended ? span(job.ended - job.started) : "–"],
    ["Progress", progressWords(job) || "unknown"],
    ["Time left", leftWords(job, time)],
    ["Oldest unit", job.state === "active" && detail ? oldestWords(detail.oldest_unit) : "–"],
    ["Best so far", job.best === null || job.best === undefined ? "none" : brief(job.best, 120) + (job.improved ? ` (${ago(job.improved, time)})` : ""), true],
    ["Tags", (job.tags || []).join(", ") || "none", true],
  ];
  const list = $("facts");
  if (list.children.length !== 2 * facts.length) {
    list.replaceChildren(...facts.flatMap(([name, , isWide]) => [el("dt", {}, name), el("dd", { class: isWide ? "wide" : "" })]));
  }
  facts.forEach(([, text], place) => put(list.children[2 * place + 1], text));
}

const WORK = {
  Abort: abortJob,
  "Send a message": async (id) => {
    if (await controlJob(id)) setTimeout(() => { if (state.open === id) askAbout(id); }, 600);
  },
  Archive: async (id) => {
    if (await archiveJob(id) && state.open === id) closePanel();
  },
};

function showActions(job, mayControl) {
  const wanted = !mayControl ? [] : ENDED.has(job.state) ? ["Archive"] : ["Abort", "Send a message"];
  const bar = $("actions");
  if ([...bar.children].map((button) => button.textContent).join() === wanted.join()) return;
  const isHeld = bar.contains(document.activeElement);
  bar.replaceChildren(...wanted.map((word) => {
    const button = el("button", { type: "button" }, word);
    button.addEventListener("click", () => WORK[word](state.open));
    return button;
  }));
  if (isHeld) $("panel-title").focus();
}

function showGraph() {
  const { condition, explain, state: how } = state.detail;
  $("graph-part").hidden = !condition;
  if (!condition) return;
  $("graph").replaceChildren(graph(condition, (id) => state.job(id)));
  put($("explain"), how === "waiting" ? explain || "" : "");
}

async function showResult(id) {
  const { detail } = state;
  if (!ENDED.has(detail.state) || !detail.mine) { $("result-part").hidden = true; return; }
  let text = detail.trace || "";
  put($("result-title"), detail.state === "complete" ? "Result" : "What went wrong");
  if (detail.state === "complete") {
    const found = await ask(aboutJob(id, "/result"));
    if (state.open !== id) return;
    text = JSON.stringify(found.result, null, 1) ?? "null";
  }
  $("result-part").hidden = !text;
  put($("result"), text.length > MOST_OF_RESULT ? `${text.slice(0, MOST_OF_RESULT)}\n…` : text);
}

/** Times go on by themselves: what is shown of the open job is brought up to now. */
export function refreshPanel() {
  if (!state.open) return;
  showFacts();
  if (isActive()) showImprovements();
}

export function startPanel() {
  state.on("open", open);
  state.on("jobs", lookAgain);
  state.on("job", change);
  new ResizeObserver(() => soon(showImprovements)).observe($("plot"));
  $("plot-key").addEventListener("change", showImprovements);
  $("panel-close").addEventListener("click", closePanel);
}
