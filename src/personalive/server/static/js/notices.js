// Notices over the result: one per subject, replaced or cleared by its key, read out by screen readers.
import { element, icon } from "./dom.js";

const BRIEF_MS = 5_000;

/** @typedef {{label: string, run: () => void}} Action */

/** The list of notices that are shown. */
export class Notices {
  /** @param {HTMLElement} host an aria-live region */
  constructor(host) {
    this.host = host;
    /** @type {Map<string, {node: HTMLElement, text: string, timer: number}>} */ this.shown = new Map();
  }

  /**
   * Shows a notice, or changes the one with the same key.
   * @param {string} key
   * @param {string} text
   * @param {{kind?: "note"|"problem", brief?: boolean, progress?: number|null, action?: Action}} [options]
   *   `brief` disappears by itself; `progress` 0..1, null where the share is unknown
   */
  show(key, text, { kind = "note", brief = false, progress, action } = {}) {
    const same = this.shown.get(key);
    const node = same?.node ?? element("div", { className: "notice" });
    clearTimeout(same?.timer);
    Object.assign(node.dataset, { kind, key });
    // Only a changed sentence is worth reading out again.
    if (same?.text !== text) node.replaceChildren(element("p", { textContent: text }), ...this.buttons(key, action));
    node.querySelector("progress")?.remove();
    if (progress !== undefined) {
      const value = progress === null ? {} : { value: progress };
      node.append(element("progress", { ...value, attributes: { "aria-label": "Progress" } }));
    }
    if (!same) this.host.append(node);
    const timer = brief ? setTimeout(() => this.clear(key), BRIEF_MS) : 0;
    this.shown.set(key, { node, text, timer });
  }

  /** @param {string} key @param {Action} [action] */
  buttons(key, action) {
    const close = element("button", { type: "button", className: "quiet icon", attributes: { "aria-label": "Dismiss" } }, icon("close"));
    close.addEventListener("click", () => this.clear(key));
    if (!action) return [close];
    const act = element("button", { type: "button", className: "small", textContent: action.label });
    act.addEventListener("click", () => { this.clear(key); action.run(); });
    return [act, close];
  }

  /** @param {...string} keys */
  clear(...keys) {
    for (const key of keys) {
      const entry = this.shown.get(key);
      clearTimeout(entry?.timer);
      entry?.node.remove();
      this.shown.delete(key);
    }
  }
}
