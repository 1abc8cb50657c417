/* A question to the reader, in a dialog.
 *
 * Lives here: `question`.
 * Elsewhere:  what is asked (`actions.js`, `entry.js`).
 */

import { $, el, put } from "./dom.js";

/** Ask something. `check` gets the fields by name, does the work, and throws words for the reader. Whether it was done. */
export function question({ title, text = "", yes, danger = false, no = "Cancel", fields = [], check }) {
  const dialog = $("ask"), form = $("ask-form");
  return new Promise((resolve) => {
    put($("ask-title"), title);
    put($("ask-text"), text);
    put($("ask-wrong"), "");
    put($("ask-yes"), yes);
    put($("ask-no"), no);
    $("ask-no").hidden = !no;
    $("ask-yes").className = danger ? "main danger" : "main";
    const inputs = {};
    $("ask-fields").replaceChildren(...fields.map(({ name, label, kind = "text", value = "", choices = [] }) => {
      const common = { autocomplete: "off", spellcheck: "false" };
      const input = kind === "area" ? el("textarea", common) : el("input", { type: kind, list: choices.length ? `list-${name}` : null, ...common });
      input.value = value;
      inputs[name] = input;
      const list = choices.length ? el("datalist", { id: `list-${name}` }, ...choices.map((each) => el("option", { value: each }))) : null;
      return el("label", {}, label, input, list);
    }));
    let answered = false;
    const end = (answer) => {
      if (answered) return;
      answered = true;
      for (const input of Object.values(inputs)) input.value = "";  // a token stays in no field
      form.onsubmit = dialog.onclose = $("ask-no").onclick = null;
      if (dialog.open) dialog.close();
      resolve(answer);
    };
    form.onsubmit = async (event) => {
      event.preventDefault();
      $("ask-yes").disabled = true;
      try {
        await check(Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value])));
        end(true);
      } catch (error) {
        put($("ask-wrong"), error.words || error.message);
      } finally {
        $("ask-yes").disabled = false;
      }
    };
    $("ask-no").onclick = () => end(false);
    dialog.onclose = () => end(false);
    if (dialog.open) dialog.close();
    dialog.showModal();
    (Object.values(inputs)[0] || $("ask-no")).focus();
  });
}
