// Scales, ticks and their labels.
import assert from "node:assert/strict";
import test from "node:test";

import { numbersIn, ticks, valueAxis } from "../../grid/web/page/axes.js";

test("ticks are round, within the range, and about as many as wanted", () => {
  assert.deepEqual(ticks(0, 10, 4), [0, 5, 10]);
  assert.deepEqual(ticks(-1, 1, 4), [-1, -0.5, 0, 0.5, 1]);
  assert.deepEqual(ticks(5, 5, 4), [5]);
  for (const [low, high] of [[0, 1], [1e-9, 3e-9], [-7e12, 2e13], [0.1, 0.3], [99, 101]]) {
    const found = ticks(low, high, 4), step = found[1] - found[0];
    assert.ok(found.length >= 2 && found.length <= 6, `${low} to ${high}: ${found}`);
    assert.ok(found.every((at) => at >= low - step * 1e-6 && at <= high + step * 1e-6));
  }
});

test("labels have as many digits as tell levels apart", () => {
  const labels = (values) => valueAxis(values).levels.map(({ label }) => label);
  for (const values of [[1, 2], [1.0001, 1.0002], [1e9, 2e9], [1e-9, 2e-9], [-5, 5], [3], [1e12, 1e12 + 1]]) {
    const found = labels(values);
    assert.equal(new Set(found).size, found.length, `${values}: ${found}`);
    assert.ok(found.every((label) => label.length <= 22), `${values}: ${found}`);
  }
  assert.ok(labels([0, 4]).includes("2"));
});

test("values over more than two orders of magnitude are on a logarithmic scale", () => {
  const { place } = valueAxis([1, 10, 1000]);
  assert.ok(Math.abs(place(10) - place(1) - (place(1000) - place(10)) / 2) < 1e-9);
  const linear = valueAxis([0, 10, 1000]).place;  // nothing at or below zero has a logarithm
  assert.ok(linear(10) - linear(0) < 0.02);
});

test("all values lie within the axis", () => {
  for (const values of [[1, 2, 3], [7, 7], [-3, 0], [1e-3, 1e3], [0]]) {
    const { place } = valueAxis(values);
    assert.ok(values.every((value) => place(value) > 0 && place(value) < 1), String(values));
  }
});

test("the numbers of a value are itself or its named ones, and nothing else", () => {
  assert.deepEqual(numbersIn(3), { "": 3 });
  assert.deepEqual(numbersIn({ rss: 0.5, k: 3, name: "x", bad: NaN, deep: { a: 1 } }), { rss: 0.5, k: 3 });
  assert.deepEqual(numbersIn([1, 2]), { 0: 1, 1: 2 });
  for (const value of [null, undefined, "7", NaN, Infinity, true]) assert.deepEqual(numbersIn(value), {});
  assert.equal(Object.keys(numbersIn(Object.fromEntries(Array.from({ length: 99 }, (_, n) => [`k${n}`, n])))).length, 50);
});
