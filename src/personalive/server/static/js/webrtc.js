// The WebRTC transport: the camera goes up by WHIP, the result comes down by WHEP. Messages stay on the socket.

const GATHER_LIMIT_MS = 2_000;
const CONNECT_LIMIT_MS = 4_000;

function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    setTimeout(resolve, GATHER_LIMIT_MS);
    peer.addEventListener("icegatheringstatechange", () => { if (peer.iceGatheringState === "complete") resolve(); });
  });
}

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
  constructor(api, path, iceServers) {
    this.api = api;
    this.path = path;
    this.location = null;
    this.closed = false;
    this.peer = new RTCPeerConnection({ iceServers: iceServers.map((urls) => ({ urls })) });
    this.onlost = () => {};
  }

  async connect() {
    const up = connected(this.peer);
    up.catch(() => {}); // reported by the await below, or not wanted any more
    await this.peer.setLocalDescription(await this.peer.createOffer());
    await gathered(this.peer);
    const response = await this.api.request("POST", this.path, { body: this.peer.localDescription.sdp, type: "application/sdp" });
    this.location = response.headers.get("Location");
    if (this.closed) { this.end(); return; }
    await this.peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
    await up;
    this.peer.addEventListener("connectionstatechange", () => {
      if (this.peer.connectionState === "failed" && !this.closed) this.onlost();
    });
  }

  end() {
    if (this.location) this.api.request("DELETE", this.location, { keepalive: true }).catch(() => {});
    this.location = null;
  }

  /** @param {{tell?: boolean}} [how] tell: whether the server has to be told; with a session its peers end anyway */
  close({ tell = true } = {}) {
    this.closed = true;
    this.peer.close();
    if (tell) this.end();
  }
}

/** Transport by WHIP and WHEP; onframe(video) is called for each picture that came. */
export class WebRtcTransport {
  /** @param {{api: import("./api.js").Api, path: string, iceServers: string[]}} options */
  constructor({ api, path, iceServers }) {
    Object.assign(this, { api, path, iceServers });
    this.up = null;
    this.down = null;
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, autoplay: true });
    this.onframe = (_video) => {};
    this.onlost = () => {};
  }

  /** Resolves when the result's direction is connected; rejects after four seconds. */
  async connect() {
    this.down = new Leg(this.api, `${this.path}/whep`, this.iceServers);
    this.down.onlost = () => this.onlost();
    this.down.peer.addTransceiver("video", { direction: "recvonly" });
    this.down.peer.addEventListener("track", ({ track }) => {
      this.video.srcObject = new MediaStream([track]);
      this.video.play().catch(() => {}); // closed again before it could begin
      this.watch();
    });
    await this.down.connect();
  }

  watch() {
    this.video.requestVideoFrameCallback(() => {
      if (!this.down) return;
      this.onframe(this.video);
      this.watch();
    });
  }

  /**
   * Sends this camera from now on; null: none. Resolves when it is connected.
   * @param {HTMLVideoElement|null} _video
   * @param {MediaStream|null} stream
   */
  async attachCamera(_video, stream) {
    this.up?.close();
    this.up = null;
    if (!stream) return;
    const leg = new Leg(this.api, `${this.path}/whip`, this.iceServers);
    this.up = leg;
    leg.onlost = () => this.onlost();
    leg.peer.addTransceiver(stream.getVideoTracks()[0], { direction: "sendonly", streams: [stream] });
    await leg.connect();
  }

  /** @param {{tell?: boolean}} [how] tell: whether the session goes on */
  close(how) {
    this.up?.close(how);
    this.down?.close(how);
    this.up = this.down = null;
    this.video.srcObject = null;
  }
}
