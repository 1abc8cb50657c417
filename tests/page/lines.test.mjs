// Server-sent events out of a body that comes in pieces.
import assert from "node:assert/strict";
import test from "node:test";

import { Events } from "../../grid/web/page/lines.js";

const BODY = 'id: 7-1\ndata: {"kind": "Jobs"}\n\n: alive\n\nid: 7-2\ndata: {"kind": "Log", "text": "ä\\nb"}\n\nid: 7-3\ndata: {"ki';

test("the same events come of every way to cut the body", () => {
  const wanted = [{ id: "7-1", message: { kind: "Jobs" } }, { id: "7-2", message: { kind: "Log", text: "ä\nb" } }];
  for (let size = 1; size <= BODY.length; size++) {
    const events = new Events(), found = [];
    for (let at = 0; at < BODY.length; at += size) found.push(...events.take(BODY.slice(at, at + size)));
    assert.deepEqual(found, wanted, `pieces of ${size}`);
  }
});

test("a line that is not finished waits for its end", () => {
  const events = new Events();
  assert.deepEqual([...events.take("data: 1")], []);
  assert.deepEqual([...events.take("2\n")], []);
  assert.deepEqual([...events.take("\n")], [{ id: "", message: 12 }]);
});
