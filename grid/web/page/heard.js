/* What one job has said: each message once, by time, and its improvements.
 *
 * Lives here: `Heard`, the words of a message. Pure.
 * Elsewhere:  showing them (`messages.js`), plotting them (`plot.js`).
 */

import { brief, count } from "./words.js";

const MOST = 500;                  // messages that are kept
const ENDS = new Set(["Completed", "Error", "Aborted", "Cancelled"]);

export const isEnd = (message) => ENDS.has(message.kind);

export class Heard {
  #messages = [];
  #keys = new Set();
  #improvements = new Map();

  get messages() { return this.#messages; }

  /** Its partial results, the oldest first: `time` and `value`. */
  get improvements() { return [...this.#improvements.values()].sort((a, b) => a.time - b.time); }

  /** Take in a message; false if it was heard before, or is none to be shown.
   *
   * A message may come twice, by the stream and out of what the server remembers. Numbers begin anew with the server,
   * so the time belongs to its name.
   */
  take(message) {
    if (message.kind === "Progress" || message.kind === "Join") return false;
    const key = isEnd(message) ? "end" : `${message.number} ${message.time}`;
    if (this.#keys.has(key)) return false;
    this.#keys.add(key);
    if (message.kind === "Improved") this.#improvements.set(key, { time: message.time, value: message.partial });
    for (const kept of [this.#keys, this.#improvements]) if (kept.size > 4 * MOST) kept.delete(kept.keys().next().value);
    const later = this.#messages.findLastIndex((old) => old.time <= message.time);
    this.#messages.splice(later + 1, 0, message);
    if (this.#messages.length > MOST) this.#messages.splice(0, this.#messages.length - MOST);
    return true;
  }
}

export function wordsOf(message) {
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
