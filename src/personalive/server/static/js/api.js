// The server's HTTP API (docs/protocol.md): requests, the messages of refusals, and one session's addresses.
import { sleep } from "./dom.js";
/** @import { Media } from "./driving.js" */
/** @import { Portrait } from "./portrait.js" */

/** @typedef {number|string|boolean|null} ControlValue */
/** @typedef {Record<string, ControlValue>} Controls some or all of a session's controls, by name */
/** @typedef {{min?: number, max?: number, default: ControlValue}} ControlRange */
/** @typedef {{p50: number|null, p95: number|null}} Percentiles */

/**
 * @typedef {object} Status the answer of GET /api/status
 * @property {"loading"|"ready"|"failed"} state
 * @property {string|null} message
 * @property {number|null} progress of loading, 0..1
 * @property {string|null} model
 * @property {string|null} device
 * @property {string|null} backend
 * @property {number|null} image_size_px
 * @property {boolean} drawn_heads_only
 * @property {Record<string, number>} limits of uploads
 * @property {Record<string, ControlRange>} controls
 * @property {boolean} webrtc
 * @property {boolean} credentials whether the server signs recordings and snapshots
 * @property {string[]} ice_servers
 */

/**
 * @typedef {object} SessionState
 * @property {boolean} playing
 * @property {"empty"|"waiting"|"live"|"paused"} stage
 * @property {number} generation grows with every portrait
 * @property {Controls} controls
 * @property {boolean} recording
 * @property {boolean|null} face null: not known
 * @property {string|null} message
 */

/**
 * @typedef {object} Stats
 * @property {number|null} [frames_per_s]
 * @property {number|null} [camera_fps]
 * @property {number} [dropped_driving]
 * @property {number} [dropped_viewer]
 * @property {number|null} [floor_ms]
 * @property {Record<string, Percentiles>} [latency_ms] by stage
 */

/** @typedef {{kind: string, message: string, retry_after_s?: number, ticket?: string|null, position?: number|null}} Refusal */

const RETRY_S = 2; // where a refusal does not say when to ask again

/** A refusal by the server, or no answer (kind "unreachable"). */
export class ApiError extends Error {
  /** @param {Refusal} refusal */
  constructor({ kind, message, retry_after_s: retryAfterS = RETRY_S, ticket = null, position = null }) {
    super(message);
    this.kind = kind;
    this.retryAfterS = retryAfterS;
    this.ticket = ticket;
    this.position = position;
  }
}

/** @typedef {{json?: object, body?: BodyInit, type?: string, keepalive?: boolean}} RequestOptions */

/** HTTP requests with a bearer token: the server's, or a session's key. */
export class Api {
  /**
   * @param {() => string|null} bearer
   * @param {(() => Promise<void>)|null} onWrongToken gets another token, then the request is tried again
   */
  constructor(bearer, onWrongToken = null) {
    this.bearer = bearer;
    this.onWrongToken = onWrongToken;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} [options]
   * @returns {Promise<Response>}
   * @throws {ApiError}
   */
  async request(method, path, { json, body, type, keepalive } = {}) {
    const headers = new Headers();
    const bearer = this.bearer();
    if (bearer) headers.set("Authorization", `Bearer ${bearer}`);
    if (json || type) headers.set("Content-Type", type ?? "application/json");
    const init = { method, headers, keepalive, body: json ? JSON.stringify(json) : body };
    const response = await fetch(path, { cache: "no-store", ...init }).catch(() => {
      throw new ApiError({ kind: "unreachable", message: "The server does not answer. Is it still running?" });
    });
    if (response.ok) return response;
    const answer = await response.json().catch(() => null);
    const refusal = answer?.error ?? { kind: "internal", message: `The server answered ${response.status}.` };
    if (refusal.kind !== "wrong_token" || !this.onWrongToken) throw new ApiError(refusal);
    await this.onWrongToken();
    return this.request(method, path, { json, body, type, keepalive });
  }

  /** @param {string} method @param {string} path @param {RequestOptions} [options] */
  async json(method, path, options) {
    return (await this.request(method, path, options)).json();
  }

  /**
   * A recording or snapshot with content credentials; of WebM, which cannot hold any, the credentials alone.
   * @param {Blob} blob
   */
  async sign(blob) {
    return (await this.request("PUT", "/api/credentials", { body: blob, type: blob.type })).blob();
  }

  /** @param {string} path */
  async blob(path) {
    return (await this.request("GET", path)).blob();
  }
}

/** One session's addresses, authorised by its key. */
export class Session {
  /** @param {{id: string, key: string, idle_s: number}} opened */
  constructor({ id, key, idle_s }) {
    this.api = new Api(() => key);
    this.key = key;
    this.idleMs = idle_s * 1000;
    this.path = `/api/sessions/${encodeURIComponent(id)}`;
    this.whipUrl = `${location.origin}${this.path}/whip`;
  }

  /** @returns {Promise<SessionState>} */
  state() { return this.api.json("GET", this.path); }

  /**
   * @param {{playing?: boolean, driver?: string, loop?: boolean}} changes naming a clip again starts it from its beginning
   * @returns {Promise<SessionState>}
   */
  change(changes) { return this.api.json("PATCH", this.path, { json: changes }); }

  /** @param {Portrait} portrait @returns {Promise<{note: string|null, generation: number}>} */
  putPortrait({ file, gallery }) { return this.put("portrait", {}, file, gallery); }

  /**
   * Drives from a clip or a motion file from now on.
   * @param {"clip"|"template"} kind
   * @param {Media} media
   * @param {boolean} loop
   * @returns {Promise<{duration_s: number, fps: number}>}
   */
  putDriving(kind, { file, gallery }, loop) { return this.put(kind, { loop: String(loop) }, file, gallery); }

  /**
   * Uploads a file, or names a bundled one.
   * @param {string} name
   * @param {Record<string, string>} query
   * @param {File} [file]
   * @param {string} [gallery]
   */
  put(name, query, file, gallery = "") {
    const search = new URLSearchParams(file ? query : { ...query, gallery });
    return this.api.json("PUT", `${this.path}/${name}?${search}`, { body: file, type: file && "application/octet-stream" });
  }

  /** @param {boolean} recording */
  recordMotion(recording) { return this.api.request("POST", `${this.path}/template`, { json: { recording } }); }

  /** The recorded motion, a safetensors file. */
  motion() { return this.api.blob(`${this.path}/template`); }

  /**
   * @param {Controls} changes
   * @returns {Promise<Controls>} all controls
   */
  control(changes) { return this.api.json("PATCH", `${this.path}/controls`, { json: changes }); }

  neutral() { return this.api.request("POST", `${this.path}/neutral`); }

  /** Ends the session, even while the page is being closed. */
  async end() {
    await this.api.request("DELETE", this.path, { keepalive: true }).catch((error) => {
      // The session has ended already, or the server is gone.
      if (!(error instanceof ApiError)) throw error;
    });
  }
}

/**
 * Opens a session; while the server is full or loading, tries again and keeps its place in the queue.
 * @param {Api} api
 * @param {{viewKey: string, onwait: (error: ApiError) => void, signal: AbortSignal}} options
 * @returns {Promise<Session>}
 */
export async function openSession(api, { viewKey, onwait, signal }) {
  let ticket = null;
  for (;;) {
    try {
      // Not aborted half-way: a session whose answer is lost could be ended by nobody.
      return new Session(await api.json("POST", "/api/sessions", { json: { ticket, view_key: viewKey } }));
    } catch (error) {
      if (!(error instanceof ApiError) || !["server_full", "not_ready", "rate_limited"].includes(error.kind)) throw error;
      ticket = error.ticket ?? ticket;
      onwait(error);
      await sleep(error.retryAfterS * 1000, signal);
    }
  }
}
