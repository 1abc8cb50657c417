// Which jobs the list has, and in which order.
import assert from "node:assert/strict";
import test from "node:test";

import { known } from "../../grid/web/page/job.js";
import { COLUMNS, arranged, columnOf, compare, reading } from "../../grid/web/page/list.js";

const job = (n, more = {}) => known({
  id: `job-${n}`, owner: "mara", service: "lab.fits.Fit", state: "complete", priority: 0, tags: [], created: n, reason: "", ...more,
}, undefined, 0);
const wanted = { words: "", owner: null, state: "", key: "created", down: true };

test("words of the search must all be somewhere, fields where they say", () => {
  const one = job(12, { tags: ["night", "name=Anneal"], owner: "Ole", reason: "no beam" });
  for (const words of ["", "night", "ANNEAL ole", "owner:ol tag:nig", "service:fit", "id:job-12", "state:compl beam"]) {
    assert.equal(reading(words)(one), true, words);
  }
  for (const words of ["day", "night mara", "tag:ole", "owner:night", "state:error"]) assert.equal(reading(words)(one), false, words);
});

test("counts are of all states, the order of the wanted one", () => {
  const jobs = [job(1), job(2, { state: "error" }), job(3, { owner: "ole" })];
  const found = arranged(jobs, { ...wanted, owner: "mara", state: "error" }, 10);
  assert.deepEqual(found, { order: ["job-2"], counts: { all: 2, complete: 1, error: 1 } });
});

test("jobs that are equal by the column come with the newest first, both ways", () => {
  const jobs = [job(9), job(10), job(11)];
  for (const down of [true, false]) {
    assert.deepEqual(arranged(jobs, { ...wanted, key: "priority", down }, 20).order, ["job-11", "job-10", "job-9"]);
  }
});

test("names sort as people count, those without by number and behind", () => {
  const jobs = [job(1, { tags: ["name=s10"] }), job(2, { tags: ["name=s9"] }), job(3), job(4)];
  assert.deepEqual(arranged(jobs, { ...wanted, key: "name", down: false }, 20).order, ["job-2", "job-1", "job-3", "job-4"]);
});

test("every column can be sorted by, and has a text for every job", () => {
  const odd = job(1, { tags: null, progress: ["x"], best: { a: [1] }, improved: null, started: null, state: "active" });
  for (const column of COLUMNS) {
    assert.equal(columnOf(column.key), column);
    assert.equal(arranged([odd, job(2)], { ...wanted, key: column.key }, 20).order.length, 2);
    if (column.text) assert.equal(typeof column.text(odd, 20), "string");
  }
});

test("texts come before numbers, numbers by size", () => {
  assert.equal(compare("a", 1), -1);
  assert.equal(compare(1, "a"), 1);
  assert.deepEqual([3, 1, 2].sort(compare), [1, 2, 3]);
  assert.equal(compare(2, 2), 0);
});
