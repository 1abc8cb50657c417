/* What the reader may do with a job: each action asks first.
 *
 * Lives here: abort, archive, send a message.
 * Elsewhere:  which of them there are for a job (`panel.js`), the dialog (`questions.js`).
 */

import { toast } from "./dom.js";
import { titleOf } from "./job.js";
import { question } from "./questions.js";
import { aboutJob, ask } from "./server.js";
import { state } from "./state.js";

const title = (id) => titleOf(id, state.job(id));

/** All of these tell whether they were done. */
export async function abortJob(id) {
  const isDone = await question({
    title: "Abort this job?", text: `${title(id)} is asked to end; after a grace time it is ended by force.`,
    yes: "Abort job", no: "Keep it", danger: true, fields: [{ name: "reason", label: "Reason (if you like)" }],
    check: ({ reason }) => ask(aboutJob(id, "/abort"), { reason: reason.trim() || `aborted from the page by ${state.me.user}` }),
  });
  if (isDone) toast(`${id} is asked to end`);
  return isDone;
}

export async function archiveJob(id) {
  const isDone = await question({
    title: "Archive this job?", text: `${title(id)} leaves the list. Nothing of it is deleted; “grid jobs list --archived” shows it.`,
    yes: "Archive", check: () => ask(aboutJob(id, "/archive"), { archived: true }),
  });
  if (isDone) toast(`${id} is archived`);
  return isDone;
}

export async function controlJob(id) {
  const isDone = await question({
    title: "Send a message", text: `To ${title(id)}. Pause, Resume and Checkpoint every job knows; its service may know others.`,
    yes: "Send",
    fields: [
      { name: "kind", label: "Kind of message", choices: ["Pause", "Resume", "Checkpoint"] },
      { name: "fields", label: "Values, as JSON", kind: "area", value: "{}" },
    ],
    check: ({ kind, fields }) => {
      let values;
      try { values = JSON.parse(fields || "{}"); } catch { throw new Error("The values are no JSON."); }
      if (!values || typeof values !== "object" || Array.isArray(values)) throw new Error('Give values by name, like {"kelvin": 300}.');
      if (!kind.trim()) throw new Error("Say which kind of message.");
      return ask(aboutJob(id, "/control"), { kind: kind.trim(), fields: values });
    },
  });
  if (isDone) toast(`Sent to ${id}`);
  return isDone;
}
