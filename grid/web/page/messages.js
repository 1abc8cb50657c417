/* The list of what a job has said, and its two tabs.
 *
 * Lives here: showing messages, choosing between all and the log.
 * Elsewhere:  which there are (`heard.js`), where they come from (`panel.js`).
 */

import { $, el, put } from "./dom.js";
import { wordsOf } from "./heard.js";
import { now } from "./server.js";
import { clock, moment } from "./words.js";

const TABS = ["messages", "log"];

let tab = "messages";
let shown = [];                    // all that the job has said

/** Have the list show these; where the reader is at its end, it stays there. */
export function showMessages(messages) {
  shown = messages;
  const list = $("messages");
  const wanted = tab === "log" ? shown.filter((message) => message.kind === "Log") : shown;
  const isAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 30;
  list.replaceChildren(...wanted.map((message) => {
    const isBad = message.kind === "Error" || message.level === "error";
    const { time } = message;
    return el("li", { class: isBad ? "error" : "" },
      el("time", { datetime: new Date(time * 1000).toISOString(), title: moment(time, now()) }, clock(time)),
      el("span", { class: "kind" }, message.kind === "Log" ? message.level || "log" : message.kind),
      el("span", { class: "text" }, wordsOf(message)));
  }));
  if (!wanted.length) list.append(el("li", { class: "none" }, tab === "log" ? "It has logged nothing." : "Nothing was said yet."));
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

/** What is known of the messages beside them, such as that they are for their owner only. */
export function sayOfMessages(words) {
  put($("stream-state"), words);
}

function chooseTab(name) {
  tab = name;
  for (const each of TABS) {
    const button = $(`tab-${each}`), isChosen = each === name;
    button.setAttribute("aria-selected", String(isChosen));
    button.tabIndex = isChosen ? 0 : -1;
    if (isChosen) button.focus();
  }
  $("messages").setAttribute("aria-labelledby", `tab-${name}`);
  showMessages(shown);
  $("messages").scrollTop = $("messages").scrollHeight;
}

export function startMessages() {
  for (const name of TABS) {
    $(`tab-${name}`).addEventListener("click", () => chooseTab(name));
    $(`tab-${name}`).addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") chooseTab(name === "log" ? "messages" : "log");
    });
  }
}
