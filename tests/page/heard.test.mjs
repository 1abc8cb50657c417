// What one job has said: each message once, by time.
import assert from "node:assert/strict";
import test from "node:test";

import { Heard, isEnd, wordsOf } from "../../grid/web/page/heard.js";

const log = (number, time) => ({ kind: "Log", number, time, text: `line ${number}` });

test("a message that comes twice is taken once, and all stand by their time", () => {
  const heard = new Heard();
  assert.equal(heard.take(log(5, 50)), true);
  for (const message of [log(1, 10), log(5, 50), log(2, 20)]) heard.take(message);
  assert.deepEqual(heard.messages.map(({ number }) => number), [1, 2, 5]);
  assert.equal(heard.take(log(2, 20)), false);
  assert.equal(heard.take(log(2, 60)), true);  // the server was started again and counts anew
});

test("an end comes once, whichever way it was told", () => {
  const heard = new Heard();
  assert.ok(isEnd({ kind: "Completed" }) && !isEnd({ kind: "Log" }));
  assert.equal(heard.take({ kind: "Completed", number: 9, time: 9, final: 1 }), true);
  assert.equal(heard.take({ kind: "Completed", number: 0, time: 9.5, final: 1 }), false);
});

test("progress and greetings are no messages for the list", () => {
  const heard = new Heard();
  for (const kind of ["Progress", "Join"]) assert.equal(heard.take({ kind, number: 1, time: 1 }), false);
  assert.equal(heard.messages.length, 0);
});

test("five hundred messages are kept, and four times as many improvements", () => {
  const heard = new Heard();
  for (let n = 0; n < 3000; n++) heard.take({ kind: "Improved", number: n, time: n, partial: n });
  assert.equal(heard.messages.length, 500);
  assert.equal(heard.messages[0].number, 2500);
  assert.equal(heard.improvements.length, 2000);
  assert.deepEqual(heard.improvements.at(-1), { time: 2999, value: 2999 });
});

test("every kind of message has words, also one that nobody knows", () => {
  for (const [message, words] of [
    [{ kind: "Log", text: "hello" }, "hello"],
    [{ kind: "State", state: "active", reason: "why" }, "active: why"],
    [{ kind: "Improved", partial: { rss: 0.5 } }, "rss 0.5"],
    [{ kind: "Completed", final: [1, 2] }, "[1, 2]"],
    [{ kind: "Error", error: "no" }, "no"],
    [{ kind: "Aborted" }, ""],
    [{ kind: "Start", attempt: 2, restored: true }, "attempt 2, from a checkpoint"],
    [{ kind: "Kept", name: "f", size: 1234 }, "f, 1,234 bytes"],
    [{ kind: "Found", job: "j", number: 1, time: 2, kelvin: 300 }, "kelvin 300"],
  ]) assert.equal(wordsOf(message), words);
});
