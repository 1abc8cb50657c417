/* The plot of a job's improvements: one number over time, as steps.
 *
 * Lives here: `plot`, which makes a picture of points.
 * Elsewhere:  axes and their labels (`axes.js`), which number is shown (`improvements.js`).
 */

import { ticks, valueAxis } from "./axes.js";
import { svg } from "./dom.js";
import { figure, finer, moment, some, span } from "./words.js";

const HEIGHT = 170, TOP = 10, FOOT = HEIGHT - 26;

/** A picture of points (`time`, `y`), `width` pixels wide, up to the time `until`: what is best stays so until the next. */
export function plot(points, key, width, until, now) {
  const end = width - 12, axis = valueAxis(points.map(({ y }) => y));
  const start = Math.min(width / 2, Math.max(64, 16 + 7.5 * Math.max(0, ...axis.levels.map(({ label }) => label.length))));
  const first = points[0], last = points[points.length - 1];
  const t0 = first.time, t1 = Math.max(until, last.time, t0 + 1e-3);
  const x = (time) => start + ((time - t0) / (t1 - t0)) * (end - start);
  const height = (place) => FOOT - place * (FOOT - TOP);
  const y = (value) => height(axis.place(value));
  const words = `${some(points.length, "improvement")} of ${key || "the value"}, from ${figure(first.y)} to ${figure(last.y)} in ${span(last.time - t0)}`;
  const made = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": words });
  for (const { place, label } of axis.levels) {
    const level = height(place);
    made.append(svg("path", { class: "axis", d: `M${start} ${level.toFixed(1)}H${end}` }),
      svg("text", { x: start - 8, y: (level + 4).toFixed(1), "text-anchor": "end" }, label));
  }
  for (const at of t1 - t0 < 0.1 ? [0] : ticks(0, t1 - t0, 4)) {
    const place = x(t0 + at), anchor = !at ? "start" : place > end - 28 ? "end" : "middle";
    made.append(svg("text", { x: place.toFixed(1), y: HEIGHT - 8, "text-anchor": anchor }, at ? finer(at) : "start"));
  }
  let d = `M${x(first.time).toFixed(1)} ${y(first.y).toFixed(1)}`;
  for (const point of points.slice(1)) d += `H${x(point.time).toFixed(1)}V${y(point.y).toFixed(1)}`;
  made.append(svg("path", { class: "curve", d: `${d}H${x(t1).toFixed(1)}` }));
  for (const point of points.length > 60 ? [last] : points) {
    made.append(svg("circle", { class: "point", cx: x(point.time).toFixed(1), cy: y(point.y).toFixed(1), r: 2.5 },
      svg("title", {}, `${figure(point.y)} at ${moment(point.time, now)}`)));
  }
  return made;
}
