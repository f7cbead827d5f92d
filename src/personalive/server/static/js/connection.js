// One session's connection. The driver's socket always carries the messages; frames go by it or by WebRTC.
import { ApiError } from "./api.js";
import { SocketTransport } from "./socket.js";
import { WebRtcTransport } from "./webrtc.js";
/** @import { Session } from "./api.js" */
/** @import { Painter } from "./painter.js" */
/** @import { Message } from "./socket.js" */

/** @typedef {"automatic"|"webrtc"|"websocket"} Mode how a session's frames travel */
/**
 * @typedef {object} ConnectionOptions
 * @property {Session} session
 * @property {Painter} painter
 * @property {Mode} mode
 * @property {{webrtc: boolean, ice_servers: string[]}} server
 * @property {(name: string) => void} ontransport the transport now in use
 * @property {(text: string) => void} onnotice
 * @property {(message: Message) => void} onmessage
 * @property {() => void} onlost
 * @property {() => void} onback
 * @property {(reason: string) => void} onended
 */

const NO_WEBRTC = "WebRTC did not connect. The WebSocket is used instead.";

/** On one machine no packet is lost, and the WebSocket is the faster of the two and carries the clock. */
function isThisMachine() {
  return ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
}

/** A socket, and WebRTC where it was chosen and works. */
export class Connection {
  /** @param {ConnectionOptions} options */
  constructor(options) {
    this.options = options;
    /** @type {SocketTransport|null} */ this.socket = null;
    /** @type {WebRtcTransport|null} */ this.webrtc = null;
    /** @type {{video: HTMLVideoElement|null, stream: MediaStream|null}} */
    this.camera = { video: null, stream: null };
    this.lostAtMs = 0;
    this.isClosed = false;
  }

  /** Connects; falls back to the WebSocket where WebRTC does not connect. */
  async open() {
    const { mode, server, painter, onnotice, ontransport } = this.options;
    painter.onsettled = (header) => this.socket?.acknowledge(header);
    const webrtc = (mode === "webrtc" || (mode === "automatic" && !isThisMachine())) && server.webrtc;
    if (mode === "webrtc" && !webrtc) onnotice("This server has no WebRTC. The WebSocket is used.");
    await this.openSocket({ frames: !webrtc });
    if (webrtc) await this.tryWebRtc();
    else ontransport("WebSocket");
  }

  /** @param {{frames: boolean}} options */
  async openSocket({ frames }) {
    const before = this.socket;
    before?.close();
    const { session: { path, key }, painter, onmessage, onlost, onback, onended } = this.options;
    const socket = new SocketTransport({
      path, key, frames, onmessage, onback,
      role: "driver",
      isAlive: () => this.isAlive(),
      onframe: (header, jpeg) => painter.offer(header, jpeg),
      onlost: () => { this.lostAtMs = performance.now(); onlost(); },
      onended: (reason) => { this.close(); onended(reason); },
    });
    // Sequence numbers must grow over the whole session, also over a second socket.
    if (before) Object.assign(socket, { sequence: before.sequence, lastCaptureUs: before.lastCaptureUs, sending: before.sending });
    this.socket = socket;
    await socket.connect();
    socket.attachCamera(this.camera.video);
  }

  /** @returns {Promise<boolean>} false: the session has ended, so there is nothing to reconnect to */
  async isAlive() {
    try {
      await this.options.session.state();
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.kind === "not_found" || error.kind === "wrong_token") return false;
      // No answer: a session without any connection for this long has ended, whatever the cause.
      return performance.now() - this.lostAtMs < this.options.session.idleMs;
    }
  }

  async tryWebRtc() {
    const { session, server, painter, ontransport } = this.options;
    ontransport("WebRTC, connecting");
    const webrtc = new WebRtcTransport({
      api: session.api, path: session.path, iceServers: server.ice_servers,
      onframe: (video) => painter.drawVideo(video),
      onlost: () => this.fallBack("WebRTC was cut off. The WebSocket is used instead."),
    });
    this.webrtc = webrtc;
    try {
      await Promise.all([webrtc.connect(), webrtc.attachCamera(this.camera.stream)]);
      ontransport("WebRTC");
    } catch {
      // Whatever stood in the way (a firewall, a codec, a refusal), the socket is the way round it.
      if (this.webrtc === webrtc) await this.fallBack(NO_WEBRTC);
    }
  }

  /** Connects anew by WebRTC, which ended with the server that the session was on. */
  async renewWebRtc() {
    if (!this.webrtc) return;
    this.webrtc.close(false);
    await this.tryWebRtc();
  }

  /** @param {string} text */
  async fallBack(text) {
    this.webrtc?.close(false);
    this.webrtc = null;
    if (this.isClosed) return;
    this.options.onnotice(text);
    try {
      await this.openSocket({ frames: true });
      this.options.ontransport("WebSocket");
    } catch {
      this.close();
      this.options.onended("The server could not be reached.");
    }
  }

  /**
   * Drives from this camera from now on; nulls: from none.
   * @param {HTMLVideoElement|null} video
   * @param {MediaStream|null} stream
   */
  async attachCamera(video, stream) {
    this.camera = { video, stream };
    this.socket?.attachCamera(video);
    await this.webrtc?.attachCamera(stream).catch(() => this.fallBack(NO_WEBRTC));
  }

  /** @param {boolean} sending false while paused: the camera's frames stay here */
  setSending(sending) {
    if (this.socket) this.socket.sending = sending;
    this.camera.stream?.getVideoTracks().forEach((track) => { track.enabled = sending || !this.webrtc; });
  }

  /** Closes it, as the session ends. */
  close() {
    this.isClosed = true;
    this.webrtc?.close(true);
    this.webrtc = null;
    this.socket?.close();
    this.options.painter.onsettled = () => {};
    this.options.ontransport("none");
  }
}
