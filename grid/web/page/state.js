/* What the page knows, and what its reader has chosen: all that modules share and that changes.
 *
 * Only the methods here change it. Who wants to hear of a change says so by `on(kind, listener)`:
 *   "jobs"   the list is another, or (atOnce) an altogether new one
 *   "job"    (summary, before) one job is another; `before` is what it was, if it was listed
 *   "open"   (focus) the reader has chosen a job, or none; `focus`: and wants to be there
 *   "detail" the server told all about the open job
 *
 * Lives here: `State`, the one that all modules share. It knows no document and no server.
 * Elsewhere:  what one module alone has stays in it: the rows of the table, the messages of the panel, the token.
 */

import { known } from "./job.js";

const NOBODY = { user: "", scopes: [] };

export class State {
  #jobs = new Map();
  #listeners = new Map();
  #me = NOBODY;
  #open = "";
  #detail = null;
  #isLoaded = false;

  on(kind, listener) {
    this.#listeners.set(kind, [...(this.#listeners.get(kind) || []), listener]);
  }

  #tell(kind, ...facts) {
    for (const listener of this.#listeners.get(kind) || []) listener(...facts);
  }

  /** Who the reader is at the server: `user` and `scopes`. */
  get me() { return this.#me; }
  signIn(me) { this.#me = me; }
  signOut() { this.#me = NOBODY; }

  /** Summaries of all jobs of the list. */
  get jobs() { return this.#jobs.values(); }
  get size() { return this.#jobs.size; }
  job(id) { return this.#jobs.get(id); }

  /** Whether the server told its list once. */
  get isLoaded() { return this.#isLoaded; }

  /** Id of the job in the panel, or "". */
  get open() { return this.#open; }
  /** All about it as the server said, or null. */
  get detail() { return this.#detail; }

  /** All jobs that there are. */
  load(summaries, now) {
    const listed = new Set(summaries.map((job) => job.id));
    for (const id of this.#jobs.keys()) if (!listed.has(id)) this.#jobs.delete(id);
    for (const summary of summaries) this.#take(summary, now);
    this.#isLoaded = true;
    this.#tell("jobs", true);
  }

  /** One job is another now, or (`isRemoved`) in the list no more. */
  change(summary, isRemoved, now) {
    const before = this.#jobs.get(summary.id);
    if (isRemoved) this.#jobs.delete(summary.id);
    else this.#take(summary, now);
    this.#tell("job", summary, before);
    this.#tell("jobs", false);
  }

  #take(summary, now) {
    this.#jobs.set(summary.id, known(summary, this.#jobs.get(summary.id), now));
  }

  /** The reader has chosen a job; "" for none. */
  choose(id, focus = false) {
    if (this.#open !== id) this.#detail = null;
    this.#open = id;
    this.#tell("open", focus);
  }

  /** All about the open job. */
  learn(detail) {
    this.#detail = detail;
    this.#tell("detail");
  }
}

export const state = new State();
