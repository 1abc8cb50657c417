/* The picture of a job's conditions.
 *
 * Lives here: `graph`.
 * Elsewhere:  places and words (`conditions.js`).
 */

import { ACROSS, HIGH, layOut, widthOf, wordsOf } from "./conditions.js";
import { svg } from "./dom.js";
import { clip } from "./words.js";

/** A picture of a tree of conditions; `job(id)` is the summary of a job, if there is one. */
export function graph(tree, job) {
  const { root, width, height } = layOut(tree);
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "Conditions of this job" });
  draw(made, root, job);
  return made;
}

function draw(made, part, job) {
  const { node, x, y } = part, width = widthOf(node), middle = y + HIGH / 2;
  for (const child of part.children) {
    const right = child.x + widthOf(child.node), from = child.y + HIGH / 2, half = x - ACROSS / 2;
    made.append(svg("path", { class: "edge", d: `M${right} ${from}H${x - ACROSS}C${half} ${from} ${half} ${middle} ${x} ${middle}` }));
    draw(made, child, job);
  }
  if (node.more) {
    made.append(svg("text", { x: x + 12, y: middle + 4 }, `and ${node.more} more`));
    return;
  }
  const { title, words } = wordsOf(node, job);
  const group = svg("g", { class: `node ${node.state}` }, svg("rect", { x, y, width, height: HIGH, rx: 7 }));
  if (node.op) {
    group.append(svg("text", { x: x + width / 2, y: middle + 4, "text-anchor": "middle" }, title), svg("title", {}, words));
    made.append(group);
    return;
  }
  group.append(svg("text", { x: x + 12, y: y + 17 }, clip(title, 21)),
    svg("text", { class: "mark", x: x + 12, y: y + 32 }, clip(words, 24)),
    svg("title", {}, `${title}, ${words}`));
  made.append(node.job ? svg("a", { href: `#${encodeURIComponent(node.job)}`, "aria-label": `${title}, ${words}` }, group) : group);
}
