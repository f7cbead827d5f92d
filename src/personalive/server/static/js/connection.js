// Chooses how pictures travel. The driver's socket always carries the messages; pictures go by it or by WebRTC.
import { ApiError } from "./api.js";
import { SocketTransport } from "./socket.js";
import { WebRtcTransport } from "./webrtc.js";

/** Ways that a session's pictures may travel. @typedef {"automatic"|"webrtc"|"websocket"} Mode */

/** On one machine nothing is lost on the way, and the WebSocket is the quicker of the two and carries the clock. */
function isThisMachine() {
  return ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
}

/** One session's connection: a socket, and WebRTC where it was chosen and works. */
export class Connection {
  /**
   * @param {{session: import("./session.js").Session, painter: import("./painter.js").Painter, mode: Mode,
   *   status: {webrtc: boolean, ice_servers: string[]}}} options
   */
  constructor({ session, painter, mode, status }) {
    Object.assign(this, { session, painter, mode, status });
    this.socket = null;
    this.webrtc = null;
    this.camera = { video: null, stream: null };
    this.lostAtMs = null;
    this.isClosed = false;
    this.onused = (_text) => {};
    this.onnotice = (_key, _text) => {};
    this.onmessage = (_type, _message) => {};
    this.onlost = () => {};
    this.onback = () => {};
    this.ongone = (_reason) => {};
  }

  /** Connects; falls back to the WebSocket where WebRTC does not come up. */
  async open() {
    this.painter.onsettled = (header) => this.socket?.acknowledge(header);
    const wanted = (this.mode === "webrtc" || (this.mode === "automatic" && !isThisMachine())) && this.status.webrtc;
    if (this.mode === "webrtc" && !wanted) this.onnotice("transport", "This server has no WebRTC. The WebSocket is used.");
    await this.openSocket({ frames: !wanted });
    if (wanted) await this.tryWebRtc();
    else this.onused("WebSocket");
  }

  async openSocket({ frames }) {
    const before = this.socket;
    before?.close();
    const { path, key } = this.session;
    const socket = new SocketTransport({ path, key, role: "driver", frames, isAlive: () => this.isAlive() });
    this.socket = socket;
    // Sequence numbers must grow over the whole session, also over a second socket.
    if (before) Object.assign(socket, { sequence: before.sequence, lastCaptureUs: before.lastCaptureUs, sending: before.sending });
    socket.onframe = (header, jpeg) => this.painter.offer(header, jpeg);
    socket.onmessage = (type, message) => this.onmessage(type, message);
    socket.onlost = () => { this.lostAtMs = performance.now(); this.onlost(); };
    socket.onback = () => { this.lostAtMs = null; this.onback(); };
    socket.ongone = (reason) => { this.close(); this.ongone(reason); };
    await socket.connect();
    socket.attachCamera(this.camera.video);
  }

  /** Whether the session is there to come back to. */
  async isAlive() {
    try {
      await this.session.state();
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.kind === "not_found" || error.kind === "wrong_token") return false;
      // No answer: a session that nobody was connected to for this long has ended, whatever is the matter.
      return performance.now() - this.lostAtMs < this.session.idleMs;
    }
  }

  async tryWebRtc() {
    this.onused("WebRTC, connecting");
    const webrtc = new WebRtcTransport({ api: this.session.api, path: this.session.path, iceServers: this.status.ice_servers ?? [] });
    this.webrtc = webrtc;
    webrtc.onframe = (video) => this.painter.drawVideo(video);
    webrtc.onlost = () => this.fallBack("WebRTC was cut off. The WebSocket is used instead.");
    try {
      await Promise.all([webrtc.connect(), webrtc.attachCamera(this.camera.video, this.camera.stream)]);
      this.onused("WebRTC");
    } catch {
      // Whatever stood in the way (a firewall, a codec, a refusal), the socket is the way round it.
      if (this.webrtc === webrtc) await this.fallBack("WebRTC did not connect. The WebSocket is used instead.");
    }
  }

  async fallBack(text) {
    this.webrtc?.close();
    this.webrtc = null;
    if (this.isClosed) return;
    this.onnotice("transport", text);
    try {
      await this.openSocket({ frames: true });
      this.onused("WebSocket");
    } catch {
      this.close();
      this.ongone("The server could not be reached.");
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
    await this.webrtc?.attachCamera(video, stream).catch(() => this.fallBack("WebRTC did not connect. The WebSocket is used instead."));
  }

  /** @param {boolean} sending false while paused: the camera's pictures stay here */
  setSending(sending) {
    if (this.socket) this.socket.sending = sending;
    this.camera.stream?.getVideoTracks().forEach((track) => { track.enabled = sending || !this.webrtc; });
  }

  /** Ends it, as the session ends. */
  close() {
    this.isClosed = true;
    this.webrtc?.close({ tell: false });
    this.webrtc = null;
    this.socket?.close();
    this.painter.onsettled = () => {};
    this.onused("none");
  }
}
