/* Server-sent events out of a body that comes in pieces.
 *
 * Lives here: `Events`. Pure.
 * Elsewhere:  asking for them, and coming back (`server.js`).
 */

export class Events {
  #parts = [];  // of a line whose end has yet to come
  #id = "";
  #data = "";

  /** The events that a further piece of text completes: `id` and `message`, one after the other. */
  *take(text) {
    const lines = text.split("\n");
    const rest = lines.pop();
    for (const end of lines) {
      const line = [...this.#parts, end].join("");
      this.#parts = [];
      if (line.startsWith("id: ")) this.#id = line.slice(4);
      else if (line.startsWith("data: ")) this.#data = line.slice(6);
      else if (!line && this.#data) {
        const message = JSON.parse(this.#data);
        this.#data = "";
        yield { id: this.#id, message };
      }
    }
    this.#parts.push(rest);
  }
}
