// Settings that the browser stores. Storage may be forbidden (private windows, policies): then nothing is stored.

/** @template T @param {() => T} action @returns {T|null} */
function attempt(action) {
  try {
    return action();
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  }
}

/**
 * A value stored across visits, or null.
 * @param {string} name
 */
export const load = (name) => attempt(() => localStorage.getItem(`personalive.${name}`));

/**
 * Stores a value across visits.
 * @param {string} name
 * @param {string} value
 */
export const save = (name, value) => attempt(() => localStorage.setItem(`personalive.${name}`, value));

const TOKEN = "personalive.token";
/** @type {string|null} */ let token = null;

/** The server's token, or null. It lives as long as the tab. */
export const loadToken = () => token ?? attempt(() => sessionStorage.getItem(TOKEN));

/** @param {string} value */
export function saveToken(value) {
  token = value;
  attempt(() => sessionStorage.setItem(TOKEN, value));
}

/** Moves the token out of the address (`#token=...`), so that it is not copied or shown with it. */
export function takeTokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  saveToken(given);
  history.replaceState(null, "", location.pathname + location.search);
}

const VIEW_KEY = "view-key";
/** @type {string|null} */ let viewKey = null;

/** The key of this browser's clean view: always the same, so that its link is set up once. */
export function loadViewKey() {
  viewKey ??= load(VIEW_KEY) ?? renewViewKey();
  return viewKey;
}

/** Makes another key: the old link shows no session that begins from now on. */
export function renewViewKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(18));
  viewKey = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
  save(VIEW_KEY, viewKey);
  return viewKey;
}
