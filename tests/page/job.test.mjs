// What the summary of a job says to a reader.
import assert from "node:assert/strict";
import test from "node:test";

import { fraction, known, left, leftWords, nameOf, oldestWords, progressWords, stateClass, tagsOf, titleOf } from "../../grid/web/page/job.js";

const active = (progress, more = {}) => ({ id: "job-7", state: "active", attempt: 1, started: 1000, progress, ...more });

test("the time left rests on the pace that was seen, and before that on the mean since the start", () => {
  const first = known(active([10, 100]), undefined, 1100);
  assert.equal(left(first, 1100), 900);
  assert.equal(leftWords(first, 1100), "15 min at its mean pace since the start");
  const later = known(active([20, 100]), first, 1110);
  assert.equal(left(later, 1110), 80);
  assert.equal(leftWords(later, 1110), "80 s at the pace of the last 10 s");
});

test("a new attempt, and progress that goes back, begin the pace anew", () => {
  const first = known(active([50, 100]), undefined, 1100);
  const again = known(active([60, 100], { attempt: 2 }), first, 1200);
  assert.deepEqual(again._pace, { k: 60, time: 1200, attempt: 2 });
  const back = known(active([5, 100], { attempt: 2 }), again, 1300);
  assert.deepEqual(back._pace, { k: 5, time: 1300, attempt: 2 });
});

test("nobody knows the time left of a job that does not run, or says no end", () => {
  for (const job of [active([3]), active(null), active(["a", 5]), active([5, 5]), active([0, 9]), { ...active([1, 2]), state: "complete" }]) {
    assert.equal(left(job, 2000), null);
    assert.equal(leftWords(job, 2000), "–");
  }
});

test("progress is a part and words, whatever a job says", () => {
  assert.equal(fraction(active([30, 20])), 1);
  assert.equal(fraction(active([-1, 20])), 0);
  assert.equal(fraction(active([1, 0])), null);
  assert.equal(progressWords(active([3, 12, "steps"])), "3 of 12 steps");
  assert.equal(progressWords(active([3])), "3");
  assert.equal(progressWords(active(["<b>"])), "");
});

test("the name is a tag and the others are tags", () => {
  const job = { id: "job-3", state: "odd", tags: ["name=fit", "night", "b"] };
  assert.equal(nameOf(job), "fit");
  assert.equal(tagsOf(job), "night, b");
  assert.equal(titleOf("job-3", job), "fit (job-3)");
  assert.equal(titleOf("job-4", undefined), "job-4");
  assert.equal(stateClass(job), "state ");
  assert.equal(stateClass({ state: "error" }), "state error");
});

test("the oldest unit has its age and its host", () => {
  assert.equal(oldestWords({ unit: 7, age: 61, host: "n1" }), "unit 7, for 61 s on n1");
  assert.equal(oldestWords(null), "none is under way");
});
