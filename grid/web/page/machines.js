/* The hosts and their servers, asked for every few seconds.
 *
 * Lives here: the table of machines, and the number of busy servers in the page's head.
 */

import { $, el, put } from "./dom.js";
import { ask } from "./server.js";
import { count, some } from "./words.js";

const SEEN_MS = 2000, UNSEEN_MS = 10_000;  // between two looks, while the table is on the screen or not

let timer = 0;

/** Look now, and from now on. */
export async function showMachines() {
  clearTimeout(timer);
  const isSeen = !$("view-machines").hidden;
  if (!document.hidden) {
    try {
      const found = await ask("/hosts");
      put($("servers"), `${count(found.busy)} of ${some(found.busy + found.free, "server")} busy`);
      if (isSeen) list(found);
    } catch {
      put($("servers"), "");       // the stream says what is wrong
    }
  }
  clearTimeout(timer);
  timer = setTimeout(showMachines, isSeen ? SEEN_MS : UNSEEN_MS);
}

function list(found) {
  put($("machines-sum"), `${some(found.hosts.length, "host")}, ${some(found.busy + found.free, "server")}: ${count(found.busy)} busy, ${count(found.free)} free; ${count(found.running)} of ${some(found.places, "job")} at work`);
  $("hosts").replaceChildren(...found.hosts.map((host) => {
    const strip = el("div", { class: "strip", role: "img", "aria-label": `${host.busy} busy, ${host.free} free` });
    for (const server of host.servers.slice(0, 512)) {
      const kind = { acquired: "busy", free: "free" }[server.state] || "other";
      strip.append(el("span", { class: `server ${kind}`, title: `${server.name}, ${server.does}: ${kind === "other" ? server.state : kind}` }));
    }
    return el("tr", {}, el("th", { scope: "row" }, host.host), el("td", {}, host.state),
      el("td", { class: "number" }, count(host.busy)), el("td", { class: "number" }, count(host.free)), el("td", {}, strip));
  }));
}
