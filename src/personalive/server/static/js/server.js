// The server as the user sees it: its status line and progress while it loads, and the prompt for its token.
import { ApiError } from "./api.js";
import { byId, inputById, sleep } from "./dom.js";
import { loadToken, saveToken } from "./store.js";
/** @import { Api, Status } from "./api.js" */
/** @import { Notices } from "./notices.js" */

const POLL_MS = 1_000;

/** @param {Status} status */
function describe(status) {
  if (status.state !== "ready") return status.message ?? "";
  const size = status.image_size_px ? `${status.image_size_px} px` : null;
  return [status.model, `${status.device} by ${status.backend}`, size].filter(Boolean).join(" · ");
}

/** @param {Status} status @param {Notices} notices */
function show(status, notices) {
  const line = byId("server-status");
  const text = describe(status);
  line.dataset.state = status.state;
  if (line.textContent !== text) line.textContent = text; // read out by screen readers once
  const message = status.message ?? "";
  notices.clear("unreachable");
  if (status.state === "loading") {
    const sentence = `${message.charAt(0).toUpperCase()}${message.slice(1)}. You can choose a portrait meanwhile.`;
    notices.show("loading", sentence, { progress: status.progress });
  } else {
    notices.clear("loading");
  }
  if (status.state === "failed") notices.show("failed", message, { kind: "problem" });
}

/**
 * Polls the server's status until it is ready or has failed.
 * @param {Api} api
 * @param {Notices} notices
 * @param {(status: Status) => void} onstatus
 */
export async function pollStatus(api, notices, onstatus) {
  for (;;) {
    try {
      /** @type {Status} */ const status = await api.json("GET", "/api/status");
      show(status, notices);
      onstatus(status);
      if (status.state !== "loading") return;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      notices.show("unreachable", error.message, { kind: "problem" });
    }
    await sleep(POLL_MS);
  }
}

/** @type {Promise<void>|null} */ let prompt = null;

/** Resolves when the user gave a token. Requests that fail together share one prompt. */
export function promptForToken() {
  prompt ??= new Promise((resolve) => {
    const dialog = byId("token-dialog", HTMLDialogElement);
    const input = inputById("token");
    const wrong = loadToken() ? "The present one is wrong. " : "";
    byId("token-why").textContent = `${wrong}It was printed when the server started.`;
    input.value = "";
    dialog.oncancel = (event) => event.preventDefault(); // nothing works without a token
    dialog.onclose = () => {
      saveToken(input.value.trim());
      prompt = null;
      resolve();
    };
    dialog.showModal();
  });
  return prompt;
}
