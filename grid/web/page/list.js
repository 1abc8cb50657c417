/* Which jobs the list has, and in which order.
 *
 * Lives here: the columns, what the words of the search mean, filter and order. Pure: the time is an argument.
 * Elsewhere:  one job (`job.js`), showing them (`table.js`).
 */

import { STATES, fraction, left, nameOf, shortService, tagsOf } from "./job.js";
import { ago, span } from "./words.js";

/** `value` is what a column sorts by, `text` what it shows, where it shows a text and no more; `down`: largest first. */
export const COLUMNS = [
  { key: "state", title: "State", value: (job) => STATES.indexOf(job.state) },
  { key: "name", title: "Job", value: (job) => nameOf(job) || job._number },
  { key: "owner", title: "Owner", value: (job) => job.owner, text: (job) => job.owner },
  { key: "service", title: "Service", value: shortService, text: shortService },
  { key: "tags", title: "Tags", value: tagsOf, text: tagsOf },
  { key: "priority", title: "Priority", value: (job) => job.priority, text: (job) => String(job.priority), number: true, down: true },
  { key: "progress", title: "Progress", value: (job) => fraction(job) ?? -1, down: true },
  { key: "best", title: "Last improvement", value: (job) => job.improved || 0, down: true },
  {
    key: "left", title: "Time left", number: true, value: (job, now) => left(job, now) ?? Infinity,
    text: (job, now) => { const seconds = left(job, now); return seconds === null ? "" : span(seconds); },
  },
  { key: "created", title: "Created", number: true, down: true, value: (job) => job.created, text: (job, now) => ago(job.created, now) },
];

export const columnOf = (key) => COLUMNS.find((column) => column.key === key);

/** What the words of the search say, as a function of a job. */
export function reading(text) {
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

/** Ids of the jobs that fit, in order, and how many of each state fit but for their state.
 *
 * `wanted`: `words` of the search, `owner` (null: any), `state` (empty: any), the column's `key`, and `down`.
 */
export function arranged(jobs, wanted, now) {
  const fits = reading(wanted.words);
  const found = [], counts = { all: 0 };
  for (const job of jobs) {
    if ((wanted.owner !== null && job.owner !== wanted.owner) || !fits(job)) continue;
    counts.all += 1;
    counts[job.state] = (counts[job.state] || 0) + 1;
    if (!wanted.state || job.state === wanted.state) found.push(job);
  }
  const { value } = columnOf(wanted.key);
  const sign = wanted.down ? -1 : 1;
  const keyed = found.map((job) => ({ job, by: value(job, now) }));
  keyed.sort((a, b) => sign * compare(a.by, b.by) || b.job._number - a.job._number || compare(b.job.id, a.job.id));
  return { order: keyed.map(({ job }) => job.id), counts };
}

export function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? 1 : -1;  // texts before numbers
  if (typeof a === "string") return a.localeCompare(b, undefined, { numeric: true });
  return a === b ? 0 : a < b ? -1 : 1;
}
