/* Coming in: the reader's token, and the stream of the list, which is the connection that the page's head tells of.
 *
 * Lives here: `begin`, asking for a token, what happens when the server does not answer or the token holds no longer.
 * Elsewhere:  keeping the token (`server.js`), what the stream says (`state.js`).
 */

import { $, put, toast } from "./dom.js";
import { showMachines } from "./machines.js";
import { question } from "./questions.js";
import { LONGEST_PAUSE_S, Refused, Stream, ask, forgetToken, hasToken, now, setClock, tryToken } from "./server.js";
import { state } from "./state.js";

let list = null;                   // the stream of the list
let goneSince = 0;

/** Find out who the reader is, and follow the list. `why`: a token is asked for, because of that. */
export async function begin(why = "") {
  list?.close();
  list = null;
  state.signOut();
  if (why) await askForToken(why);
  for (let pause = 0.5; !state.me.user; pause = Math.min(LONGEST_PAUSE_S, pause * 2)) {
    try {
      state.signIn(await ask("/me"));
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        await askForToken("This job server shows its jobs to those who have a token.");
      } else {
        connection("gone");
        await new Promise((resolve) => setTimeout(resolve, pause * 1000));
      }
    }
  }
  const { user, scopes } = state.me;
  const may = scopes.includes("admin") ? "admin" : scopes.includes("control") ? "" : "may look only";
  put($("me"), may ? `${user}, ${may}` : user);
  $("sign-out").hidden = !hasToken();
  list = new Stream("/events", hear, connection);
  showMachines();
  openFromAddress();
}

/** Have the reader type a token that holds. */
async function askForToken(why) {
  forgetToken();
  while (!state.me.user) {         // Escape leads nowhere
    await question({
      title: "Token", text: why, yes: "Go on", no: "",
      fields: [{ name: "token", label: "Token, from “grid token create”", kind: "password" }],
      check: async ({ token }) => state.signIn(await tryToken(token.trim())),
    });
  }
}

function connection(how, more) {
  const words = { live: "Live", gone: "No connection", refused: "Refused" };
  $("connection").dataset.state = how;
  put($("connection-text"), words[how] || how);
  const banner = $("banner");
  if (how === "live") {
    if (goneSince) toast("The server is back");
    goneSince = 0;
    banner.hidden = true;
  } else if (how === "gone") {
    goneSince ||= Date.now();
    banner.hidden = false;
    put(banner, "The server does not answer. What you see may be old; the page tries again by itself.");
  } else if (how === "refused") {
    banner.hidden = false;
    put(banner, more.words);
    if (more.status === 401) begin("Your token holds no longer. Type another one.");
  }
}

function hear(message) {
  if (message.kind === "Jobs") {
    state.load(message.jobs, now());
  } else if (message.kind === "JobChanged") {
    setClock(message.time, 5);
    state.change(message.summary, message.change === "removed", now());
  }
}

/** The address names a job behind its #. */
export function openFromAddress() {
  let id = "";
  try { id = decodeURIComponent(location.hash.slice(1)); } catch { /* somebody's own */ }
  if (id && id !== "jobs" && id !== state.open) state.choose(id);
}
