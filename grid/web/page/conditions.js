/* A job's conditions as a graph: what each part says, and where it stands.
 *
 * What each part is (`state`: satisfied, pending, cancelled) the server says in its tree; nothing is guessed here.
 *
 * Lives here: the words of a part, places for a tree. Pure.
 * Elsewhere:  drawing it (`graph.js`).
 */

import { nameOf } from "./job.js";

export const HIGH = 40, ACROSS = 32;  // of a node; between two columns; in pixels
const WIDE = 156, NARROW = 56, GAP = 10, MOST = 12, EDGE = 4;

export const widthOf = (node) => (node.op ? NARROW : WIDE);

/** What the reader is told about a part: its `title` (for atoms) and `words`, with its state. `job(id)`: a summary. */
export function wordsOf(node, job) {
  const verdict = { satisfied: "yes", cancelled: "never" }[node.state] || "not yet";
  if (node.op) {
    const word = { and: "all of", or: "one of", not: "not" }[node.op] || node.op;
    return { title: word, words: `${word}: ${verdict}` };
  }
  return { title: titleOf(node, job), words: `${atomWords(node)}: ${verdict}` };
}

function titleOf(node, job) {
  if (node.job) return nameOf(job(node.job) || { tags: [] }) || node.job;
  if (node.url) return node.url;
  return node.n !== undefined ? `${node.n} servers` : String(node.atom);
}

function atomWords(node) {
  switch (node.atom) {
    case "completed": return "completed";
    case "cancelled": return "failed";
    case "result": return `result ${node.expression ?? ""}`;
    case "message": return `says ${node.message ?? "something"}`;
    case "fetched": return "fetched";
    case "servers": return "there";
    default: return String(node.atom);
  }
}

/** Places for a tree, its root at the right: `width` and `height` of the whole, and the `root`.
 *
 * A placed part has its `node`, `x`, `y` and `children`; one with `node.more` stands for parts that are not shown.
 */
export function layOut(tree) {
  const widths = [];               // of the columns, the root's first
  let y = EDGE;
  const placed = (node, depth) => {
    const made = { node, depth, children: [] };
    widths[depth] = Math.max(widths[depth] || 0, widthOf(node));
    const parts = node.of || [];
    for (const part of parts.slice(0, MOST)) made.children.push(placed(part, depth + 1));
    if (parts.length > MOST) made.children.push(placed({ more: parts.length - MOST }, depth + 1));
    if (made.children.length) made.y = (made.children[0].y + made.children[made.children.length - 1].y) / 2;
    else { made.y = y; y += HIGH + GAP; }
    return made;
  };
  const root = placed(tree, 0);
  const lefts = [];
  let x = EDGE;
  for (let depth = widths.length - 1; depth >= 0; depth--) {
    lefts[depth] = x;
    x += widths[depth] + ACROSS;
  }
  const moved = (part) => {
    part.x = lefts[part.depth];
    part.children.forEach(moved);
  };
  moved(root);
  return { root, width: x - ACROSS + EDGE, height: y - GAP + EDGE };
}
