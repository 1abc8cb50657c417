/* The numbers of improvements on two axes.
 *
 * Lives here: which numbers a value has, scales, ticks and their labels. Pure.
 * Elsewhere:  drawing them (`plot.js`).
 */

import { figure } from "./words.js";

/** The numbers in a value: "" for itself, else by their names. */
export function numbersIn(value) {
  if (typeof value === "number" && Number.isFinite(value)) return { "": value };
  const found = {};
  if (value && typeof value === "object") {
    for (const [key, each] of Object.entries(value).slice(0, 50)) {
      if (typeof each === "number" && Number.isFinite(each)) found[key] = each;
    }
  }
  return found;
}

/** Round steps that divide a range into about `most` parts. */
export function ticks(low, high, most) {
  const raw = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

/** Labels of levels: as many digits as tell them apart, and no more. */
function levelWords(levels, isLog) {
  if (isLog) return levels.map((at) => figure(10 ** at));
  const step = levels.length > 1 ? levels[1] - levels[0] : Math.abs(levels[0]) || 1;
  const fine = Math.floor(Math.log10(step)), large = Math.max(...levels.map(Math.abs), step);
  if (large >= 1e7 || large < 1e-4) {
    const digits = Math.min(15, Math.max(0, Math.floor(Math.log10(large)) - fine));
    return levels.map((at) => (at ? at.toExponential(digits) : "0"));
  }
  return levels.map((at) => at.toFixed(Math.min(20, Math.max(0, -fine))));
}

/** The axis of values, logarithmic where they span more than two orders of magnitude.
 *
 * `levels`: each with its place, from 0 at the foot to 1 at the top, and its label. `place(value)`: of one value.
 */
export function valueAxis(values) {
  const lowest = Math.min(...values), highest = Math.max(...values);
  const isLog = lowest > 0 && highest / lowest > 100;
  const scale = (value) => (isLog ? Math.log10(value) : value);
  const margin = (scale(highest) - scale(lowest)) * 0.08 || Math.abs(scale(highest)) * 0.1 || 1;
  const low = scale(lowest) - margin, high = scale(highest) + margin;
  const levels = ticks(low, high, 4), labels = levelWords(levels, isLog);
  return {
    levels: levels.map((at, number) => ({ place: (at - low) / (high - low), label: labels[number] })),
    place: (value) => (scale(value) - low) / (high - low),
  };
}
