// What the server says of itself: loading with progress, ready, failed. Asked again until it is ready.
import { ApiError } from "./api.js";
import { byId, sleep } from "./dom.js";

const ASK_AGAIN_MS = 1_000;

function describe(status) {
  if (status.state !== "ready") return status.message ?? "";
  const size = status.image_size_px ? `${status.image_size_px} px` : null;
  return [status.model, `${status.device} by ${status.backend}`, size].filter(Boolean).join(" · ");
}

function write(state, text) {
  const line = byId("server-status");
  line.dataset.state = state;
  if (line.textContent !== text) line.textContent = text;
}

function tell(status, notices) {
  write(status.state, describe(status));
  if (status.state === "loading") {
    const what = status.message.charAt(0).toUpperCase() + status.message.slice(1);
    const text = `${what}. You can choose a portrait meanwhile.`;
    notices.show("loading", text, { progress: status.progress ?? null });
  } else {
    notices.clear("loading", "unreachable");
  }
  if (status.state === "failed") notices.show("failed", status.message, { kind: "problem" });
}

/**
 * Follows the server until it is ready or has failed.
 * @param {import("./api.js").Api} api
 * @param {import("./notices.js").Notices} notices
 * @param {(status: Record<string, any>) => void} onstatus
 */
export async function followStatus(api, notices, onstatus) {
  for (;;) {
    try {
      const status = await api.json("GET", "/api/status");
      notices.clear("unreachable");
      tell(status, notices);
      onstatus(status);
      if (status.state !== "loading") return;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      notices.show("unreachable", error.message, { kind: "problem" });
    }
    await sleep(ASK_AGAIN_MS);
  }
}
