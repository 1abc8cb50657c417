/* The part of the panel with the plot: which number of the improvements it shows.
 *
 * Lives here: `showPlot`.
 * Elsewhere:  the picture (`plot.js`), the improvements (`heard.js`).
 */

import { numbersIn } from "./axes.js";
import { $, el } from "./dom.js";
import { plot } from "./plot.js";
import { now } from "./server.js";

/** Plot improvements (`time`, `value`); of an active job up to now. */
export function showPlot(improvements, isActive) {
  const keys = [...new Set(improvements.flatMap(({ value }) => Object.keys(numbersIn(value))))];
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
  const points = improvements.map(({ time, value }) => ({ time, y: numbersIn(value)[key] })).filter(({ y }) => y !== undefined);
  if (!points.length) return;
  const width = Math.max(300, $("plot").clientWidth);
  $("plot").replaceChildren(plot(points, key, width, isActive ? now() : 0, now()));
}
