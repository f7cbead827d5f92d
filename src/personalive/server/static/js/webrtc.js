// The WebRTC transport: the camera goes up by WHIP, the result comes down by WHEP. Messages stay on the socket.
/** @import { Api } from "./api.js" */

const GATHER_LIMIT_MS = 2_000;
const CONNECT_LIMIT_MS = 4_000;

/** @param {RTCPeerConnection} peer @returns {Promise<void>} */
function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    setTimeout(resolve, GATHER_LIMIT_MS);
    peer.addEventListener("icegatheringstatechange", () => { if (peer.iceGatheringState === "complete") resolve(); });
  });
}

/** @param {RTCPeerConnection} peer @returns {Promise<void>} */
function connected(peer) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("WebRTC did not connect in time.")), CONNECT_LIMIT_MS);
    peer.addEventListener("connectionstatechange", () => {
      if (peer.connectionState === "connected") { clearTimeout(timer); resolve(); }
      if (["failed", "closed"].includes(peer.connectionState)) { clearTimeout(timer); reject(new Error("WebRTC did not connect.")); }
    });
  });
}

/** One direction: a peer connection and the address that ends it. */
class Leg {
  /** @param {Api} api @param {string} path @param {string[]} iceServers @param {() => void} onlost */
  constructor(api, path, iceServers, onlost) {
    this.api = api;
    this.path = path;
    this.onlost = onlost;
    /** @type {string|null} */ this.location = null;
    this.closed = false;
    this.peer = new RTCPeerConnection({ iceServers: iceServers.map((urls) => ({ urls })) });
  }

  async connect() {
    const isConnected = connected(this.peer);
    isConnected.catch(() => {}); // reported by the await below, or no longer needed
    await this.peer.setLocalDescription(await this.peer.createOffer());
    await gathered(this.peer);
    const response = await this.api.request("POST", this.path, { body: this.peer.localDescription?.sdp, type: "application/sdp" });
    this.location = response.headers.get("Location");
    if (this.closed) { this.end(); return; }
    await this.peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
    await isConnected;
    this.peer.addEventListener("connectionstatechange", () => {
      if (this.peer.connectionState === "failed" && !this.closed) this.onlost();
    });
  }

  end() {
    if (this.location) this.api.request("DELETE", this.location, { keepalive: true }).catch(() => {});
    this.location = null;
  }

  /** @param {boolean} sessionEnds the server then closes its side by itself */
  close(sessionEnds) {
    this.closed = true;
    this.peer.close();
    if (!sessionEnds) this.end();
  }
}

/** Frames by WHIP and WHEP. */
export class WebRtcTransport {
  /**
   * @param {{api: Api, path: string, iceServers: string[],
   *   onframe: (video: HTMLVideoElement) => void, onlost: () => void}} options
   */
  constructor({ api, path, iceServers, onframe, onlost }) {
    /** @param {string} name */
    this.leg = (name) => new Leg(api, `${path}/${name}`, iceServers, onlost);
    this.onframe = onframe;
    /** @type {Leg|null} */ this.up = null;
    /** @type {Leg|null} */ this.down = null;
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true, autoplay: true });
  }

  /** Resolves when the result's direction is connected; rejects after four seconds. */
  async connect() {
    const down = this.leg("whep");
    this.down = down;
    down.peer.addTransceiver("video", { direction: "recvonly" });
    down.peer.addEventListener("track", ({ track }) => {
      this.video.srcObject = new MediaStream([track]);
      this.video.play().catch(() => {}); // closed again before it began
      this.watch();
    });
    await down.connect();
  }

  watch() {
    this.video.requestVideoFrameCallback(() => {
      if (!this.down) return;
      this.onframe(this.video);
      this.watch();
    });
  }

  /**
   * Sends this camera from now on; resolves when it is connected.
   * @param {MediaStream|null} stream
   */
  async attachCamera(stream) {
    this.up?.close(false);
    this.up = null;
    if (!stream) return;
    const up = this.leg("whip");
    this.up = up;
    up.peer.addTransceiver(stream.getVideoTracks()[0], { direction: "sendonly", streams: [stream] });
    await up.connect();
  }

  /** @param {boolean} sessionEnds */
  close(sessionEnds) {
    this.up?.close(sessionEnds);
    this.down?.close(sessionEnds);
    this.up = this.down = null;
    this.video.srcObject = null;
  }
}
