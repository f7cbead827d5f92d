// Small helpers around the document.

/**
 * The element with this id.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [type] its class
 * @returns {T}
 */
export function byId(id, type) {
  const node = document.getElementById(id);
  if (!(node instanceof (type ?? HTMLElement))) throw new Error(`The page has no such element: ${id}`);
  return /** @type {T} */ (node);
}

/** @param {string} id */
export const inputById = (id) => byId(id, HTMLInputElement);

/** @param {string} id */
export const buttonById = (id) => byId(id, HTMLButtonElement);

/** @param {string} id @param {() => unknown} run */
export function onClick(id, run) {
  byId(id).addEventListener("click", () => run());
}

/**
 * Sets the text of a button that has an icon too, and whether it is pressed.
 * @param {string} id
 * @param {string} text
 * @param {boolean} [pressed]
 */
export function setLabel(id, text, pressed) {
  const button = byId(id);
  /** @type {HTMLElement} */ (button.querySelector("span")).textContent = text;
  if (pressed !== undefined) button.setAttribute("aria-pressed", String(pressed));
}

/**
 * A new element: properties are set, `data` becomes data attributes, children are appended.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Partial<Omit<HTMLElementTagNameMap[K], "data"|"attributes">>
 *   & {data?: Record<string, string>, attributes?: Record<string, string>}} [properties]
 * @param {...(Node|string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, { data, attributes, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  Object.assign(node.dataset, data);
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/**
 * An icon of icons.svg.
 * @param {string} name
 */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `/static/icons.svg#${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/**
 * Downloads a blob as personalive-TIME.EXTENSION.
 * @param {Blob} blob
 * @param {string} extension
 * @param {string} [prefix]
 * @param {Date} [now]
 */
export function download(blob, extension, prefix = "personalive", now = new Date()) {
  const local = new Date(now.getTime() - now.getTimezoneOffset() * 60_000);
  const time = local.toISOString().slice(0, 19).replace(/[T:]/g, "-");
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: `${prefix}-${time}.${extension}` }).click();
  // The browser reads the address after the click returns; a minute is ample.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * Waits; ends early, with an AbortError, when the signal is aborted.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => { clearTimeout(timer); reject(new DOMException("stopped", "AbortError")); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}
