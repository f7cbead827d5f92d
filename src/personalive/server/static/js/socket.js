// The WebSocket transport: driving frames up, finished frames and messages down, reconnecting after a cut.
import { Capture } from "./camera.js";
import { sleep } from "./dom.js";
import { packDriving, unpackFinished } from "./wire.js";
/** @import { Refusal, SessionState, Stats } from "./api.js" */
/** @import { FrameHeader } from "./wire.js" */

const PROTOCOL = "personalive.v1";
const MAX_BUFFERED_BYTES = 64 * 1024;
const FIRST_RETRY_MS = 300;
const MAX_RETRY_MS = 4_000;

/**
 * The server's text messages, by type.
 * @typedef {{type: "state", state: SessionState}|{type: "stats", stats: Stats}
 *   |{type: "error", error: Refusal}|{type: "moved", reason: string}|{type: "ended", reason: string}} Message
 */
/**
 * @typedef {object} SocketOptions
 * @property {string} path
 * @property {"driver"|"viewer"} role
 * @property {string} key
 * @property {boolean} [frames] false: messages only
 * @property {() => Promise<boolean>} isAlive whether there is a session to reconnect to
 * @property {(header: FrameHeader, jpeg: Blob) => void} onframe
 * @property {(message: Message) => void} [onmessage]
 * @property {() => void} onlost
 * @property {() => void} onback the connection is there again
 * @property {(reason: string) => void} onended
 */

/** A session's messages and, unless `frames` is false, its frames. */
export class SocketTransport {
  /** @param {SocketOptions} options */
  constructor(options) {
    const { path, role, frames = true } = options;
    this.options = options;
    this.frames = frames;
    this.url = new URL(`${path}/socket`, location.href);
    this.url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.url.searchParams.set("role", role);
    this.url.searchParams.set("frames", String(frames));
    /** @type {WebSocket|null} */ this.socket = null;
    /** @type {Capture|null} */ this.capture = null;
    this.closed = new AbortController();
    this.sequence = 0;
    this.lastCaptureUs = 0;
    this.sending = true;
  }

  /**
   * Resolves when the socket is served; from then on it reconnects by itself.
   * @returns {Promise<void>}
   */
  connect() {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(this.url, [PROTOCOL, `key.${this.options.key}`]);
      let served = false;
      socket.binaryType = "arraybuffer";
      socket.onopen = () => {
        if (this.closed.signal.aborted) socket.close(); // closed while it was opening
        else this.socket = socket;
      };
      socket.onmessage = ({ data }) => {
        // A refused socket opens too, gives the reason and closes: it is tried again later, not at once.
        if (this.receive(data) === "error") return;
        served = true;
        resolve();
      };
      socket.onclose = () => {
        reject(new Error("The connection was closed."));
        if (served) this.reconnect();
      };
    });
  }

  /**
   * @param {string|ArrayBuffer} data
   * @returns {string} the type of the message
   */
  receive(data) {
    if (typeof data === "string") {
      /** @type {Message} */ const message = JSON.parse(data);
      if (message.type === "ended") this.end(message.reason);
      else this.options.onmessage?.(message);
      return message.type;
    }
    const frame = unpackFinished(data);
    if (frame) this.options.onframe(frame.header, frame.jpeg);
    return "frame";
  }

  /** Tries until the socket is served again, or the session or this transport has ended. */
  async reconnect() {
    const { signal } = this.closed;
    if (signal.aborted) return;
    this.options.onlost();
    const connected = () => this.connect().then(() => true, () => false);
    for (let waitMs = FIRST_RETRY_MS; !(await connected()); waitMs = Math.min(waitMs * 2, MAX_RETRY_MS)) {
      if (signal.aborted) return;
      if (!(await this.options.isAlive())) { this.end("It was without a connection for too long."); return; }
      await sleep(waitMs * (0.75 + Math.random() / 2), signal).catch(() => {});
      if (signal.aborted) return;
    }
    this.options.onback();
  }

  /** @param {string} reason */
  end(reason) {
    if (this.closed.signal.aborted) return;
    this.close();
    this.options.onended(reason);
  }

  /**
   * Sends this camera's frames from now on.
   * @param {HTMLVideoElement|null} video
   */
  attachCamera(video) {
    this.capture?.stop();
    this.capture = null;
    if (!video || !this.frames) return;
    this.capture = new Capture(video, { canSend: () => this.canSend(), onframe: (jpeg, atMs) => this.sendFrame(jpeg, atMs) });
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  canSend() {
    return this.sending && this.socket !== null && this.isOpen && this.socket.bufferedAmount <= MAX_BUFFERED_BYTES;
  }

  /**
   * @param {Blob} jpeg
   * @param {number} captureMs on performance.now()'s clock
   */
  sendFrame(jpeg, captureMs) {
    if (!this.canSend()) return;
    this.sequence += 1;
    this.lastCaptureUs = Math.max(this.lastCaptureUs, captureMs * 1000);
    this.socket?.send(packDriving(this.sequence, this.lastCaptureUs, jpeg));
  }

  /** @param {FrameHeader} header of a frame that was shown or dropped */
  acknowledge(header) {
    if (this.isOpen) this.socket?.send(JSON.stringify({ type: "ack", index: header.index }));
  }

  close() {
    this.closed.abort();
    this.attachCamera(null);
    this.socket?.close();
  }
}
