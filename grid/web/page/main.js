/* The page of a job server.
 *
 * It follows the stream of the list of jobs and shows what it says; of one job, the reader's choice, also its own
 * stream. Modules import one way, from here down to plain values:
 *
 *     main  ->  entry, panel, table, machines         what is on the screen, and coming in
 *           ->  messages, improvements, plot, graph, actions, questions
 *           ->  state, server, dom                    what is shared; the server; elements
 *           ->  list, job, heard, axes, conditions, lines, words        pure: tested by node
 *
 * Lives here: the start, the two views, keys and clocks that belong to no part.
 */

import { $ } from "./dom.js";
import { begin, openFromAddress } from "./entry.js";
import { showMachines } from "./machines.js";
import { startMessages } from "./messages.js";
import { closePanel, refreshPanel, startPanel } from "./panel.js";
import { Stream, forgetToken } from "./server.js";
import { redraw, refresh, startTable } from "./table.js";

const HIDDEN_MS = 20_000;          // a tab that is hidden so long lets go of its connections

function view(name) {
  for (const each of ["jobs", "machines"]) {
    $(`view-${each}`).hidden = each !== name;
    $(`show-${each}`).setAttribute("aria-pressed", String(each === name));
  }
  if (name === "machines") showMachines();
  else refresh();
}

startTable();
startMessages();
startPanel();
$("show-jobs").addEventListener("click", () => view("jobs"));
$("show-machines").addEventListener("click", () => view("machines"));
$("sign-out").addEventListener("click", () => { forgetToken(); location.replace("/"); });
document.addEventListener("keydown", (event) => {
  if ($("ask").open) return;
  if (event.key === "Escape" && !$("panel").hidden && event.target !== $("search")) closePanel();
  else if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) {
    event.preventDefault();
    view("jobs");
    $("search").focus();
  }
});
addEventListener("hashchange", openFromAddress);
// A browser has six connections to a server for all its tabs: one that nobody looks at must not hold any.
let resting = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(resting);
  if (document.hidden) resting = setTimeout(Stream.restAll, HIDDEN_MS);
  else Stream.goOnAll();
});
setInterval(() => {                // times go on by themselves
  if (document.hidden) return;
  redraw();
  refreshPanel();
}, 1000);
begin();
