// What the browser remembers. Storage may be forbidden (private windows, policies): then nothing is kept.

function attempt(action) {
  try {
    return action();
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  }
}

/**
 * A value kept across visits, or null.
 * @param {string} name
 */
export const recall = (name) => attempt(() => localStorage.getItem(`personalive.${name}`));

/**
 * Keeps a value across visits.
 * @param {string} name
 * @param {string} value
 */
export const remember = (name, value) => attempt(() => localStorage.setItem(`personalive.${name}`, value));

const TOKEN = "personalive.token";
let token = null;

/** The server's token, or null. It lives as long as the tab. */
export const readToken = () => token ?? attempt(() => sessionStorage.getItem(TOKEN));

/**
 * Keeps the server's token for this tab.
 * @param {string} value
 */
export function keepToken(value) {
  token = value;
  attempt(() => sessionStorage.setItem(TOKEN, value));
}

/** Takes the token out of the address (`#token=...`), so that it is not copied or shown with it. */
export function takeTokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  keepToken(given);
  history.replaceState(null, "", location.pathname + location.search);
}

const VIEW_KEY = "view-key";
let viewKey = null;

/** The key of this browser's clean view: always the same, so that its link is set up once. */
export function readViewKey() {
  viewKey ??= recall(VIEW_KEY) ?? renewViewKey();
  return viewKey;
}

/** Makes another one: who has the old link sees no session that begins from now on. */
export function renewViewKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(18));
  viewKey = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
  remember(VIEW_KEY, viewKey);
  return viewKey;
}
