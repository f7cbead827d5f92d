// The WebSocket transport: driving frames up, finished frames and messages down, and coming back after a cut.
import { Capture } from "./capture.js";
import { sleep } from "./dom.js";
import { packDriving, unpackFinished } from "./wire.js";

const PROTOCOL = "personalive.v1";
const MAX_BUFFERED_BYTES = 64 * 1024;
const FIRST_RETRY_MS = 300;
const MAX_RETRY_MS = 4_000;

/**
 * A transport has connect(), attachCamera(video, stream), close() and the callback onframe. This one also carries the
 * session's messages: onmessage(type, message), onlost(), onback(), and ongone(reason) once there is no coming back.
 */
export class SocketTransport {
  /**
   * @param {{path: string, role: "driver"|"viewer", key: string, frames?: boolean,
   *   isAlive: () => Promise<boolean>}} options `frames` false: messages only; `isAlive` asks whether the session is
   */
  constructor({ path, role, key, frames = true, isAlive }) {
    const url = new URL(`${path}/socket`, location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("role", role);
    if (!frames) url.searchParams.set("frames", "false");
    Object.assign(this, { url, key, frames, isAlive });
    this.socket = null;
    this.capture = null;
    this.closed = new AbortController();
    this.sequence = 0;
    this.lastCaptureUs = 0;
    this.sending = true;
    this.onframe = (_header, _jpeg) => {};
    this.onmessage = (_type, _message) => {};
    this.onlost = () => {};
    this.onback = () => {};
    this.ongone = (_reason) => {};
  }

  /** Resolves when the socket is served; from then on it comes back by itself. */
  async connect() {
    await this.open();
    this.keep();
  }

  open() {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(this.url, [PROTOCOL, `key.${this.key}`]);
      socket.binaryType = "arraybuffer";
      socket.onopen = () => {
        if (this.closed.signal.aborted) { socket.close(); return; } // closed while it was opening
        this.socket = socket;
      };
      socket.onclose = () => { this.cut?.(); reject(new Error("The connection was closed.")); };
      // A socket that is refused opens too, says why and closes: to be tried again later, not at once.
      socket.onmessage = ({ data }) => { if (this.receive(data) !== "error") resolve(socket); };
    });
  }

  /** @returns {string} what kind of message it was */
  receive(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type === "ended") this.leave(message.reason);
      else this.onmessage(message.type, message);
      return message.type;
    }
    const frame = unpackFinished(data);
    if (frame) this.onframe(frame.header, frame.jpeg);
    return "frame";
  }

  async keep() {
    while (!this.closed.signal.aborted) {
      if (this.socket?.readyState === WebSocket.OPEN) await new Promise((resolve) => { this.cut = resolve; });
      if (this.closed.signal.aborted) return;
      this.onlost();
      if (!(await this.comeBack())) return;
      this.onback();
    }
  }

  /** Tries until the socket is open again (true) or the session or this transport has ended (false). */
  async comeBack() {
    const opened = () => this.open().then(() => true, () => false);
    for (let wait = FIRST_RETRY_MS; !(await opened()); wait = Math.min(wait * 2, MAX_RETRY_MS)) {
      if (this.closed.signal.aborted) return false;
      if (!(await this.isAlive())) { this.leave("It was without a connection for too long."); return false; }
      await sleep(wait * (0.75 + Math.random() / 2), this.closed.signal).catch(() => {});
      if (this.closed.signal.aborted) return false;
    }
    return true;
  }

  leave(reason) {
    if (this.closed.signal.aborted) return;
    this.close();
    this.ongone(reason);
  }

  /**
   * Sends this camera's frames from now on; null: none.
   * @param {HTMLVideoElement|null} video
   */
  attachCamera(video) {
    this.capture?.stop();
    this.capture = null;
    if (!video || !this.frames) return;
    this.capture = new Capture(video, { ready: () => this.canSend(), onframe: (jpeg, atMs) => this.sendFrame(jpeg, atMs) });
  }

  canSend() {
    const socket = this.socket;
    return this.sending && socket?.readyState === WebSocket.OPEN && socket.bufferedAmount <= MAX_BUFFERED_BYTES;
  }

  /**
   * @param {Blob} jpeg
   * @param {number} captureMs on performance.now()'s clock
   */
  sendFrame(jpeg, captureMs) {
    if (!this.canSend()) return;
    this.sequence += 1;
    this.lastCaptureUs = Math.max(this.lastCaptureUs, captureMs * 1000);
    this.socket.send(packDriving(this.sequence, this.lastCaptureUs, jpeg));
  }

  /** @param {import("./wire.js").FrameHeader} header a frame that was shown or dropped */
  acknowledge(header) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "ack", index: header.index }));
  }

  close() {
    this.closed.abort();
    this.attachCamera(null);
    this.socket?.close();
    this.cut?.();
  }
}
