// One session on the server: opening it (waiting in line where the server is full), its addresses, its end.
import { ApiError } from "./api.js";
import { sleep } from "./dom.js";

const RETRY_S = 2;

/** The addresses of one session, authorised by its key. */
export class Session {
  /**
   * @param {import("./api.js").Api} api
   * @param {{id: string, key: string, view_key: string, image_size_px: number, idle_s: number}} info
   */
  constructor(api, info) {
    this.api = api.withKey(info.key);
    this.id = info.id;
    this.key = info.key;
    this.idleMs = info.idle_s * 1000;
    this.imageSizePx = info.image_size_px;
    this.path = `/api/sessions/${encodeURIComponent(info.id)}`;
    this.whipUrl = `${location.origin}${this.path}/whip`;
  }

  /** The session's state, as in the message `state`. */
  state() { return this.api.json("GET", this.path); }

  /** @param {{playing?: boolean, driver?: string, loop?: boolean}} changes naming a clip again starts it from its beginning */
  change(changes) { return this.api.json("PATCH", this.path, { json: changes }); }

  /** @param {{file?: Blob, gallery?: string}} portrait @returns {Promise<{note: string|null, generation: number}>} */
  putPortrait({ file, gallery }) {
    if (!file) return this.api.json("PUT", `${this.path}/portrait?gallery=${encodeURIComponent(gallery)}`);
    return this.api.json("PUT", `${this.path}/portrait`, { body: file, type: file.type || "application/octet-stream" });
  }

  /**
   * Drives from a clip or a motion file from now on.
   * @param {"clip"|"template"} kind
   * @param {import("./driving.js").Film} film
   * @param {boolean} loop
   * @returns {Promise<{duration_s: number, fps: number}>}
   */
  putDriving(kind, { file, gallery }, loop) {
    if (!file) return this.api.json("PUT", `${this.path}/${kind}?loop=${loop}&gallery=${encodeURIComponent(gallery)}`);
    return this.api.json("PUT", `${this.path}/${kind}?loop=${loop}`, { body: file, type: "application/octet-stream" });
  }

  /** @param {boolean} recording */
  recordMotion(recording) { return this.api.request("POST", `${this.path}/template`, { json: { recording } }); }

  /** The recorded motion, a safetensors file. */
  motion() { return this.api.blob(`${this.path}/template`); }

  /** @param {Record<string, any>} changes @returns {Promise<Record<string, any>>} all controls */
  control(changes) { return this.api.json("PATCH", `${this.path}/controls`, { json: changes }); }

  neutral() { return this.api.request("POST", `${this.path}/neutral`); }

  /** Ends the session. It goes out even while the page is being closed. */
  async end() {
    await this.api.request("DELETE", this.path, { keepalive: true }).catch((error) => {
      // Ended already, or the server is gone: what was wanted is so.
      if (!(error instanceof ApiError)) throw error;
    });
  }
}

/**
 * Opens a session; while the server is full or loading it asks again by itself, keeping its place in line.
 * @param {import("./api.js").Api} api
 * @param {{viewKey: string, onwait: (error: ApiError) => void, signal: AbortSignal}} options
 * @returns {Promise<Session>}
 */
export async function openSession(api, { viewKey, onwait, signal }) {
  let ticket = null;
  for (;;) {
    try {
      // Not aborted half-way: a session that was opened must be known, or nobody could end it.
      const info = await api.json("POST", "/api/sessions", { json: { ticket, view_key: viewKey } });
      return new Session(api, info);
    } catch (error) {
      if (!["server_full", "not_ready", "rate_limited"].includes(error.kind)) throw error;
      ticket = error.ticket ?? ticket;
      onwait(error);
      await sleep((error.retryAfterS ?? RETRY_S) * 1000, signal);
    }
  }
}
