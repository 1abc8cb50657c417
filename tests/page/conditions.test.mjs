// Conditions as a graph: states come from the server, words and places from here.
import assert from "node:assert/strict";
import test from "node:test";

import { layOut, widthOf, wordsOf } from "../../grid/web/page/conditions.js";

const nobody = () => undefined;
const atom = (n, state = "pending") => ({ atom: "completed", job: `job-${n}`, state });

test("a part is said to be what the server says that it is", () => {
  assert.deepEqual(wordsOf(atom(1, "satisfied"), nobody), { title: "job-1", words: "completed: yes" });
  assert.deepEqual(wordsOf(atom(1, "cancelled"), nobody), { title: "job-1", words: "completed: never" });
  assert.deepEqual(wordsOf(atom(1), nobody), { title: "job-1", words: "completed: not yet" });
  // its job may have ended since: what was decided is not judged again here
  const ended = () => ({ id: "job-1", state: "error", tags: [] });
  assert.equal(wordsOf(atom(1, "satisfied"), ended).words, "completed: yes");
  assert.deepEqual(wordsOf({ op: "and", state: "satisfied", of: [atom(1)] }, nobody), { title: "all of", words: "all of: yes" });
});

test("every kind of part has words", () => {
  const named = (id) => ({ id, tags: ["name=reduction"] });
  const words = [
    [{ atom: "result", job: "a", expression: "x < 5" }, "reduction", "result x < 5: not yet"],
    [{ atom: "message", job: "a", message: "Found" }, "reduction", "says Found: not yet"],
    [{ atom: "cancelled", job: "a" }, "reduction", "failed: not yet"],
    [{ atom: "fetched", url: "http://h/f" }, "http://h/f", "fetched: not yet"],
    [{ atom: "servers", n: 4 }, "4 servers", "there: not yet"],
    [{ atom: "elsewhere", server: "http://h" }, "elsewhere", "elsewhere: not yet"],
    [{ op: "or", of: [] }, "one of", "one of: not yet"],
    [{ op: "not", of: [] }, "not", "not: not yet"],
  ];
  for (const [node, title, said] of words) assert.deepEqual(wordsOf({ ...node, state: "pending" }, named), { title, words: said });
});

test("a tree has its root at the right, and nothing overlaps", () => {
  const tree = { op: "and", of: [atom(1), { op: "or", of: [atom(2), { op: "not", of: [atom(3)] }] }, atom(4)] };
  const { root, width, height } = layOut(tree);
  const parts = [];
  const walk = (part) => { parts.push(part); part.children.forEach(walk); };
  walk(root);
  assert.equal(parts.length, 7);
  for (const part of parts) {
    assert.ok(part.x >= 0 && part.x + widthOf(part.node) <= width && part.y >= 0 && part.y + 40 <= height);
    for (const child of part.children) assert.ok(child.x + widthOf(child.node) < part.x);
    for (const other of parts) {
      const isApart = other === part || other.x !== part.x || Math.abs(other.y - part.y) >= 40;
      assert.ok(isApart, "two parts of a column overlap");
    }
  }
  assert.equal(root.y, (root.children[0].y + root.children[2].y) / 2);
});

test("of many parts some are shown, and how many more there are", () => {
  const { root } = layOut({ op: "and", of: Array.from({ length: 40 }, (_, n) => atom(n)) });
  assert.equal(root.children.length, 13);
  assert.deepEqual(root.children[12].node, { more: 28 });
});
