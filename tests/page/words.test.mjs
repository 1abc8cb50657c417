// Numbers, times and values in a few characters.
import assert from "node:assert/strict";
import test from "node:test";

import { ago, brief, clip, figure, finer, moment, some, span } from "../../grid/web/page/words.js";

test("seconds are told in one unit", () => {
  const wanted = { "-3": "0 s", 89: "89 s", 90: "2 min", 5399: "90 min", 5400: "2 h", 129600: "2 d" };
  for (const [seconds, words] of Object.entries(wanted)) assert.equal(span(Number(seconds)), words);
  assert.equal(finer(0.123), "0.12 s");
  assert.equal(finer(12), "12 s");
  assert.equal(ago(100, 160), "60 s ago");
});

test("figures keep what can be read", () => {
  const wanted = [[3, "3"], [-0.5, "-0.5"], [1 / 3, "0.333333"], [1e-5, "1.000e-5"], [2e9, "2.000e+9"], [0, "0"], [12345678.5, "1.235e+7"]];
  for (const [n, words] of wanted) assert.equal(figure(n), words);
});

test("values are short, whatever they are", () => {
  assert.equal(brief(null), "");
  assert.equal(brief({ rss: 0.5, at: [1, "x"] }), "rss 0.5, at [1, x]");
  assert.equal(brief(true), "true");
  assert.equal(brief("a".repeat(50)).length, 41);
  assert.equal(clip("abcdef", 4), "abc…");
  assert.equal(clip("abcd", 4), "abcd");
});

test("a time of another day has its day", () => {
  const noon = new Date(2024, 4, 6, 12).getTime() / 1000;
  assert.ok(!moment(noon, noon + 60).includes(","));
  assert.ok(moment(noon, noon + 3 * 86400).includes(", "));
});

test("one is one", () => {
  assert.equal(some(1, "job"), "1 job");
  assert.equal(some(1200, "job"), "1,200 jobs");
});
