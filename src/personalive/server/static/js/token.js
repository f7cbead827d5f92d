// Asks the person for the server's token where the one at hand is missing or wrong.
import { byId } from "./dom.js";
import { keepToken, readToken } from "./store.js";

let asking = null;

/** Resolves when a token was given. Several requests that fail together ask once. */
export function askForToken() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    const input = byId("token");
    byId("token-why").textContent = readToken()
      ? "The one at hand is not the right one. It was printed when the server started."
      : "It was printed when the server started.";
    input.value = "";
    dialog.oncancel = (event) => event.preventDefault(); // without a token nothing works
    dialog.onclose = () => {
      keepToken(input.value.trim());
      asking = null;
      resolve();
    };
    dialog.showModal();
  });
  return asking;
}
