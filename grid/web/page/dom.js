/* Elements of the document. Texts of jobs are put in as text only (`textContent`, `append`): there is no place where
 * one could become markup.
 *
 * Lives here: finding, making and filling elements; the two lines that speak to the reader.
 */

export const $ = (id) => document.getElementById(id);

/** An element; attributes by name, children are elements or texts. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Text of an element, touched only if it differs: screen readers and layout are left in peace. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let toastTimer = 0;
export function toast(text) {
  put($("toast"), text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => put($("toast"), ""), 6000);
}

/** For those who do not see that the list has changed. */
export function tell(text) {
  put($("said"), text);
}

const later = new Set();
/** Do that once, in a moment, however often it is asked for until then. */
export function soon(work) {
  if (later.has(work)) return;
  later.add(work);
  setTimeout(() => { later.delete(work); work(); }, 250);
}
