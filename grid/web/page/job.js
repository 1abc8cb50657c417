/* What the summary of a job says to a reader: its name, how far it is, how long it still needs.
 *
 * Lives here: the states, readings of one summary. Pure: the time is an argument, in seconds since 1970.
 * Elsewhere:  all jobs (`state.js`), which of them are listed and in which order (`list.js`).
 */

import { figure, span } from "./words.js";

export const STATES = ["active", "pending", "waiting", "complete", "error", "aborted", "cancelled"];
export const ENDED = new Set(["complete", "error", "aborted", "cancelled"]);

/** A summary with what the page knows besides: its number, and since when its progress is seen. */
export function known(summary, before, now) {
  summary._number = before ? before._number : Number((/(\d+)$/.exec(summary.id) || [0, 0])[1]);
  summary._pace = before?._pace;
  if (summary.progress && summary.state === "active" && typeof summary.progress[0] === "number") {
    const k = summary.progress[0], pace = summary._pace;
    if (!pace || pace.attempt !== summary.attempt || k < pace.k) {
      summary._pace = { k, time: now, attempt: summary.attempt };
    }
  }
  return summary;
}

export function nameOf(job) {
  if (job._name === undefined) {
    const tag = (job.tags || []).find((each) => each.startsWith("name="));
    job._name = tag ? tag.slice(5) : "";
  }
  return job._name;
}

/** Its name and id, as a question calls it; `job` may be unknown. */
export const titleOf = (id, job) => (job && nameOf(job) ? `${nameOf(job)} (${id})` : id);

export const stateClass = (job) => `state ${STATES.includes(job.state) ? job.state : ""}`;

export const shortService = (job) => job.service.split(".").pop();

export const tagsOf = (job) => (job.tags || []).filter((tag) => !tag.startsWith("name=")).join(", ");

/** How long an active job still needs, and what that rests on: the pace that was seen here, or else since its start. */
function estimate(job, now) {
  if (job.state !== "active" || !job.progress) return null;
  const [k, n] = job.progress;
  if (typeof k !== "number" || typeof n !== "number" || !(n > 0) || k >= n) return null;
  const pace = job._pace, seen = pace ? now - pace.time : 0;
  if (pace && seen > 5 && k > pace.k) return { seconds: ((n - k) * seen) / (k - pace.k), by: `at the pace of the last ${span(seen)}` };
  const since = now - job.started;
  return k > 0 && since > 0 ? { seconds: ((n - k) * since) / k, by: "at its mean pace since the start" } : null;
}

/** Seconds that it still needs; null: nobody knows. */
export const left = (job, now) => estimate(job, now)?.seconds ?? null;

export function leftWords(job, now) {
  const found = estimate(job, now);
  return found ? `${span(found.seconds)} ${found.by}` : "–";
}

export function oldestWords(unit) {
  return unit ? `unit ${unit.unit}, for ${span(unit.age)} on ${unit.host}` : "none is under way";
}

export function fraction(job) {
  if (!job.progress) return null;
  const [k, n] = job.progress;
  return typeof k === "number" && typeof n === "number" && n > 0 ? Math.min(1, Math.max(0, k / n)) : null;
}

export function progressWords(job) {
  if (!job.progress) return "";
  const [k, n, units] = job.progress;
  if (typeof k !== "number") return "";
  return `${figure(k)}${typeof n === "number" ? ` of ${figure(n)}` : ""}${units ? ` ${units}` : ""}`;
}
