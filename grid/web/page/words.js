/* Numbers, times and values in a few characters.
 *
 * Lives here: words for seconds, moments, figures and values. Pure: the time is an argument, in seconds since 1970.
 */

export const count = (n) => n.toLocaleString("en");
export const some = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

/** Seconds in one unit, for reading at a glance. */
export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

/** The same, with parts of a second where there are few. */
export const finer = (seconds) => (seconds < 10 ? `${Number(seconds.toPrecision(2))} s` : span(seconds));

export const ago = (time, now) => `${span(now - time)} ago`;

export const clock = (time) => new Date(time * 1000).toLocaleTimeString(undefined, { hourCycle: "h23" });

/** A time of today without its day. */
export function moment(time, now) {
  const day = new Date(time * 1000);
  if (day.toDateString() === new Date(now * 1000).toDateString()) return clock(time);
  return `${day.toLocaleDateString(undefined, { dateStyle: "medium" })}, ${clock(time)}`;
}

export function figure(n) {
  if (Number.isInteger(n) && Math.abs(n) < 1e9) return String(n);
  const size = Math.abs(n);
  return size !== 0 && (size < 1e-3 || size >= 1e7) ? n.toExponential(3) : String(Number(n.toPrecision(6)));
}

/** A text of at most `most` characters. */
export const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** A value of a job in a few characters. */
export function brief(value, most = 40) {
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
