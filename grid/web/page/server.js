/* The server: asking it, and its streams.
 *
 * The token is kept in sessionStorage, so it ends with the tab, and travels in a header, never in an address.
 *
 * Lives here: requests, the token, the server's clock, `Stream`.
 * Elsewhere:  where a token is asked for (`entry.js`), events out of a stream's bytes (`lines.js`).
 */

import { Events } from "./lines.js";

const API = "/api/v1";
const SILENCE_MS = 30_000;         // the server says "alive" every 10 s; without that the connection is dead
export const LONGEST_PAUSE_S = 10;

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.error || `the server answers ${status}`);
    this.status = status;
    this.hint = answer.hint || "";
  }
  get words() { return this.hint ? `${this.message}. ${this.hint}` : this.message; }
}

// ---- its clock -------------------------------------------------------------------------------------------------------

let clockOffset = 0;               // the server's clock less ours, in seconds
export const now = () => Date.now() / 1000 + clockOffset;

/** The server says that it is `time` (seconds since 1970); what is less off than `most` seconds is the way. */
export function setClock(time, most) {
  if (time && Math.abs(time - now()) > most) clockOffset = time - Date.now() / 1000;
}

// ---- the token -------------------------------------------------------------------------------------------------------

const KEY = "grid-token";
let token = globalThis.sessionStorage?.getItem(KEY) || "";

export const hasToken = () => token !== "";

export function forgetToken() {
  sessionStorage.removeItem(KEY);
  token = "";
}

/** Who the reader is with that token, which is kept if it holds. Raises Refused. */
export async function tryToken(typed) {
  const before = token;
  token = typed;
  try {
    const me = await ask("/me");
    sessionStorage.setItem(KEY, token);
    return me;
  } catch (error) {
    token = before;
    throw error;
  }
}

// ---- requests --------------------------------------------------------------------------------------------------------

function headers(more = {}) {
  return token ? { Authorization: `Bearer ${token}`, ...more } : more;
}

async function refusal(answer) {
  let told = {};
  try { told = await answer.json(); } catch { /* not one of its own answers */ }
  return new Refused(answer.status, told);
}

/** Ask the server; a body makes it a POST. Raises Refused. */
export async function ask(path, body) {
  const options = { headers: headers(), cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(API + path, options);
  setClock(Date.parse(answer.headers.get("date") || "") / 1000, 2);
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

export const aboutJob = (job, part = "") => `/jobs/${encodeURIComponent(job)}${part}`;

// ---- streams ---------------------------------------------------------------------------------------------------------

/** Server-sent events by fetch: EventSource could not send the token. Comes back by itself, where it was.
 *
 * `onMessage(message)`; `onState(state, more)` with the states live, gone (and the pause in seconds), refused (and the
 * error), over.
 */
export class Stream {
  static #all = new Set();

  #path;
  #onMessage;
  #onState;
  #last = "";
  #isClosed = false;
  #isOver = false;
  #isResting = false;
  #controller;
  #silence;
  #wake;

  constructor(path, onMessage, onState) {
    this.#path = path;
    this.#onMessage = onMessage;
    this.#onState = onState;
    Stream.#all.add(this);
    this.#run();
  }

  /** Have all streams let go of their connections for a while. */
  static restAll() {
    for (const each of Stream.#all) {
      each.#isResting = true;
      each.#controller?.abort();
    }
  }

  static goOnAll() {
    for (const each of Stream.#all) {
      each.#isResting = false;
      each.#wake?.();
    }
  }

  close() {
    this.#isClosed = true;
    Stream.#all.delete(this);
    this.#controller?.abort();
    this.#wake?.();
  }

  /** Nothing more will come. */
  end() {
    this.#isOver = true;
    this.#controller?.abort();
  }

  async #run() {
    let pause = 0.5;
    while (!this.#isClosed && !this.#isOver) {
      try {
        this.#controller = new AbortController();
        this.#watch();
        const more = { Accept: "text/event-stream", ...(this.#last ? { "Last-Event-ID": this.#last } : {}) };
        const options = { headers: headers(more), signal: this.#controller.signal, cache: "no-store" };
        const answer = await fetch(API + this.#path, options);
        if (!answer.ok) throw await refusal(answer);
        this.#onState("live");
        pause = 0.5;
        await this.#read(answer.body.getReader());
      } catch (error) {
        if (this.#isClosed) return;
        if (error instanceof Refused && error.status < 500) {
          this.close();
          this.#onState("refused", error);
          return;
        }
      } finally {
        clearTimeout(this.#silence);
      }
      if (this.#isClosed || this.#isOver) break;
      if (this.#isResting) {
        await new Promise((resolve) => { this.#wake = resolve; });
        continue;
      }
      this.#onState("gone", pause);
      await new Promise((resolve) => { this.#wake = resolve; setTimeout(resolve, pause * 1000); });
      pause = Math.min(LONGEST_PAUSE_S, pause * 2);
    }
    Stream.#all.delete(this);
    if (!this.#isClosed) this.#onState("over");
  }

  #watch() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#controller.abort(), SILENCE_MS);
  }

  async #read(reader) {
    const decoder = new TextDecoder(), events = new Events();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.#watch();
      for (const { id, message } of events.take(decoder.decode(value, { stream: true }))) {
        if (message.kind === "Gap") { this.#last = ""; return; }  // something was missed: begin anew
        this.#last = id;
        if (this.#isClosed) return;
        this.#onMessage(message);
      }
    }
  }
}
