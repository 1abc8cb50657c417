// What the modules of the page share: one owner, who tells of each change.
import assert from "node:assert/strict";
import test from "node:test";

import { State } from "../../grid/web/page/state.js";

const job = (n, more = {}) => ({ id: `job-${n}`, state: "active", tags: [], ...more });

function listened() {
  const state = new State(), told = [];
  for (const kind of ["jobs", "job", "open", "detail"]) state.on(kind, (...facts) => told.push([kind, ...facts]));
  return { state, told };
}

test("a new list replaces the old one, and what is known of a job stays with it", () => {
  const { state, told } = listened();
  state.load([job(1, { progress: [1, 9], attempt: 1 }), job(2)], 100);
  assert.ok(state.isLoaded);
  state.load([job(1, { progress: [3, 9], attempt: 1 })], 200);
  assert.equal(state.size, 1);
  assert.equal(state.job("job-1")._pace.time, 100);
  assert.deepEqual(told, [["jobs", true], ["jobs", true]]);
});

test("a change of a job tells what it was before, and a removed one leaves", () => {
  const { state, told } = listened();
  const first = job(1), second = job(1, { state: "complete" });
  state.change(first, false, 1);
  state.change(second, false, 2);
  state.change(second, true, 3);
  assert.deepEqual(told.filter(([kind]) => kind === "job"), [["job", first, undefined], ["job", second, first], ["job", second, second]]);
  assert.equal(state.job("job-1"), undefined);
});

test("what is known of a job is forgotten when another is chosen, and only then", () => {
  const { state, told } = listened();
  state.choose("job-1", true);
  state.learn({ id: "job-1" });
  state.choose("job-1");
  assert.deepEqual(state.detail, { id: "job-1" });
  state.choose("");
  assert.equal(state.detail, null);
  assert.deepEqual(told, [["open", true], ["detail"], ["open", false], ["open", false]]);
});

test("who is not signed in is nobody, and nobody else changes it", () => {
  const { state } = listened();
  state.signIn({ user: "mara", scopes: ["read"] });
  state.signOut();
  assert.deepEqual(state.me, { user: "", scopes: [] });
  assert.throws(() => { state.open = "job-1"; }, TypeError);
});
