// The life of a stream: start, hot-swap, pause, stop, and its notices. The parts know nothing of each other.
import { ApiError, openSession } from "./api.js";
import { CameraError } from "./camera.js";
import { Connection } from "./connection.js";
import { loadViewKey } from "./store.js";
/** @import { Api, Session, SessionState, Stats, Status } from "./api.js" */
/** @import { Camera } from "./camera.js" */
/** @import { Mode } from "./connection.js" */
/** @import { ControlsPanel } from "./controls.js" */
/** @import { DrivingChooser, Media } from "./driving.js" */
/** @import { Notices } from "./notices.js" */
/** @import { Painter } from "./painter.js" */
/** @import { Portrait } from "./portrait.js" */
/** @import { Message } from "./socket.js" */
/** @import { LatencyWindow } from "./timing.js" */
/** @import { FrameHeader } from "./wire.js" */

/** @typedef {"idle"|"starting"|"queued"|SessionState["stage"]|"ended"} Stage */
/**
 * @typedef {object} Parts
 * @property {Api} api
 * @property {Camera} camera
 * @property {ControlsPanel} controls
 * @property {DrivingChooser} driving
 * @property {LatencyWindow} latency
 * @property {Notices} notices
 * @property {Painter} painter
 */
/**
 * @typedef {object} Events
 * @property {(stage: Stage) => void} onstage
 * @property {(portrait: Portrait|null) => void} onportrait the one in use
 * @property {(state: SessionState) => void} onstate
 * @property {(stats: Stats) => void} onstats
 * @property {(name: string) => void} ontransport
 * @property {() => void} onrestart the user asked to start again
 */

/** One user's stream. */
export class App {
  /** @param {Parts} parts @param {Events} events */
  constructor({ api, camera, controls, driving, latency, notices, painter }, events) {
    this.api = api;
    this.camera = camera;
    this.controls = controls;
    this.driving = driving;
    this.latency = latency;
    this.notices = notices;
    this.painter = painter;
    this.events = events;
    /** @type {Pick<Status, "webrtc"|"ice_servers"|"limits"|"credentials">} */
    this.server = { webrtc: false, ice_servers: [], limits: {}, credentials: false };
    /** @type {Portrait|null} */ this.portrait = null; // the one chosen
    /** @type {Portrait|null} */ this.accepted = null; // the last one that the server could use
    /** @type {Session|null} */ this.session = null;
    /** @type {Connection|null} */ this.connection = null;
    /** @type {SessionState|null} */ this.state = null;
    /** @type {Media|null} */ this.sent = null; // the clip or motion file that the session holds
    /** @type {AbortController|null} */ this.opening = null;
    this.portraitsSent = 0;
    painter.ondrawn = (header, nowMs) => latency.add(nowMs, this.isMeasured(header) ? header : null);
    camera.onlost = () => this.loseCamera();
  }

  get isRunning() {
    return this.session !== null || this.opening !== null;
  }

  /** @param {FrameHeader|null} header */
  isMeasured(header) {
    // Only frames that this page's camera drove carry a time of this page's clock.
    return header !== null && header.sequence > 0 && this.driving.source === "camera";
  }

  /**
   * Opens the camera and a session, and sends what was chosen.
   * @param {Mode} mode
   */
  async start(mode) {
    if (this.isRunning) return;
    const opening = new AbortController();
    const { signal } = opening;
    this.opening = opening;
    this.events.onstage("starting");
    this.notices.clear("camera", "session", "start", "portrait", "transport", "driving");
    try {
      await this.openSource();
      signal.throwIfAborted();
      const session = await openSession(this.api, { viewKey: loadViewKey(), signal, onwait: (refusal) => this.showQueue(refusal) });
      if (signal.aborted) { await session.end(); return; }
      this.notices.clear("queue");
      await this.run(session, mode);
    } catch (error) {
      if (!signal.aborted) this.failToStart(/** @type {Error} */ (error));
    } finally {
      if (this.opening === opening) this.opening = null;
    }
  }

  /** @param {Session} session @param {Mode} mode */
  async run(session, mode) {
    this.session = session;
    this.painter.reset();
    this.latency.clear();
    this.events.onstage(this.portrait ? "waiting" : "empty");
    this.guard(session.control({ mirror: this.driving.source === "camera", ...this.controls.changed }), "controls");
    const { notices, painter, server, events } = this;
    this.connection = new Connection({
      session, mode, painter, server,
      ontransport: events.ontransport,
      onnotice: (text) => notices.show("transport", text, { brief: true }),
      onmessage: (message) => this.receive(message),
      onlost: () => notices.show("connection", "The connection is lost. Trying to get it back.", { kind: "problem", progress: null }),
      onback: () => notices.show("connection", "The connection is back.", { brief: true }),
      onended: (reason) => this.end(reason),
    });
    // Before the socket: the portrait takes longest, and the server may prepare it meanwhile.
    if (this.portrait) this.sendPortrait(session, this.portrait);
    const sent = this.sendDriving(session, this.connection);
    await Promise.all([this.connection.open(), sent]);
  }

  /** @param {Message} message */
  receive(message) {
    if (message.type === "state") this.showState(message.state);
    else if (message.type === "stats") this.events.onstats(message.stats);
    else if (message.type === "moved") this.goOn(message.reason);
    else if (message.type === "error") this.notices.show("server", message.error.message, { kind: "problem" });
  }

  /**
   * The session goes on on another server, which has its portrait and controls: what else it needs is sent again.
   * @param {string} reason
   */
  async goOn(reason) {
    this.notices.show("connection", `The stream was moved: ${reason}.`, { brief: true });
    this.sent = null;
    if (!this.session || !this.connection) return;
    await this.connection.renewWebRtc();
    await this.sendDriving(this.session, this.connection);
  }

  /** @param {SessionState} state */
  showState(state) {
    this.state = state;
    this.painter.setGeneration(state.generation);
    this.controls.show(state.controls);
    this.connection?.setSending(state.playing);
    if (state.face === false && state.playing && this.driving.source !== "template") {
      this.notices.show("face", "No face in view. The video continues when your face is seen: look at the camera, with light from the front.");
    } else {
      this.notices.clear("face");
    }
    if (state.message) this.notices.show("server", state.message);
    else this.notices.clear("server");
    this.events.onstage(state.stage);
    this.events.onstate(state);
  }

  /** Opens the camera where it drives, else closes it. */
  async openSource() {
    if (this.driving.source !== "camera") { this.camera.close(); return; }
    const stream = await this.camera.open(this.driving.cameraId);
    this.notices.clear("camera");
    const inUse = stream.getVideoTracks()[0].getSettings().deviceId;
    this.driving.showCameras(await this.camera.list(), inUse);
  }

  /**
   * Sets what drives, and sends the file where it is one.
   * @param {Session} session
   * @param {Connection} connection
   */
  async sendDriving(session, connection) {
    const { source, media } = this.driving;
    const { video, stream } = source === "camera" ? this.camera : { video: null, stream: null };
    await connection.attachCamera(video, stream);
    this.driving.showAddress(session, this.server.webrtc);
    if (source === "camera" || source === "obs") {
      await this.guard(session.change({ driver: "camera" }), "driving");
    } else if (media) {
      await this.sendMedia(session, source, media);
    } else {
      this.notices.show("driving", source === "clip" ? "Choose a clip to drive from." : "Choose a motion file to drive from.");
    }
  }

  /** @param {Session} session @param {"clip"|"template"} kind @param {Media} media */
  async sendMedia(session, kind, media) {
    const { loop } = this.driving;
    if (media === this.sent) { await this.guard(session.change({ driver: kind, loop }), "driving"); return; }
    if (this.isTooLarge("driving", media.file, this.server.limits[`${kind}_bytes`])) return;
    this.notices.show("driving", `Sending ${media.name}.`, { progress: null });
    const answer = await this.guard(session.putDriving(kind, media, loop), "driving");
    if (!answer || session !== this.session) return;
    this.sent = media;
    this.notices.clear("driving");
  }

  /** Plays the clip or motion file from its beginning. */
  async replay() {
    if (this.session && this.connection) await this.sendDriving(this.session, this.connection);
  }

  /** The user changed whether the clip or motion file repeats. */
  async changeLoop() {
    const { media, loop, source } = this.driving;
    if (!this.session || !media || media !== this.sent) return; // it is sent with the file
    const ended = loop && this.state?.stage === "waiting";
    await this.guard(this.session.change(ended ? { driver: source, loop } : { loop }), "driving");
  }

  /** The user chose another source, or another file or camera of it. */
  async changeDriving() {
    this.notices.clear("camera", "driving", "face");
    this.latency.clear();
    if (!this.session) {
      if (!this.opening) this.camera.close();
      return;
    }
    const mirror = this.driving.source === "camera";
    if (!("mirror" in this.controls.changed)) this.guard(this.session.control({ mirror }), "controls");
    try {
      await this.openSource();
      if (this.session && this.connection) await this.sendDriving(this.session, this.connection);
      else this.camera.close(); // stopped while the camera was opening
    } catch (error) {
      if (!(error instanceof CameraError)) throw error;
      this.showCameraProblem(error.message);
    }
  }

  /**
   * The user chose a portrait: shown at once where nothing runs, else sent.
   * @param {Portrait} portrait
   */
  async setPortrait(portrait) {
    this.notices.clear("portrait");
    if (this.isTooLarge("portrait", portrait.file, this.server.limits.portrait_bytes)) return;
    this.portrait = portrait;
    if (this.session) { await this.sendPortrait(this.session, portrait); return; }
    const image = await createImageBitmap(portrait.image).catch(() => null);
    if (image && !this.session) this.painter.drawStill(image);
    image?.close();
  }

  /** @param {Session} session @param {Portrait} portrait */
  async sendPortrait(session, portrait) {
    this.portraitsSent += 1;
    const number = this.portraitsSent;
    const answer = await this.guard(session.putPortrait(portrait), "portrait");
    if (number !== this.portraitsSent || session !== this.session) return; // a later portrait took its place, or all is over
    this.portrait = answer ? portrait : this.accepted;
    this.accepted = this.portrait;
    this.events.onportrait(this.portrait);
    if (!answer) return;
    this.painter.setGeneration(answer.generation);
    if (answer.note) this.notices.show("portrait", answer.note);
    else this.notices.clear("portrait");
  }

  async togglePlaying() {
    if (!this.session || !this.state) return;
    const playing = !this.state.playing;
    this.connection?.setSending(playing);
    const state = await this.guard(this.session.change({ playing }), "session");
    if (state && this.connection) this.showState(state);
  }

  /** Ends the stream: the camera is turned off, and the server deletes all that was uploaded. */
  async stop() {
    const { session } = this;
    this.opening?.abort();
    this.release("idle");
    this.notices.clear("queue", "connection", "face", "server", "portrait", "driving", "transport", "controls", "session");
    await session?.end();
  }

  /** @param {"idle"|"ended"} stage */
  release(stage) {
    this.connection?.close();
    this.camera.close();
    this.session = this.connection = this.state = this.sent = this.opening = null;
    this.driving.showAddress(null, this.server.webrtc);
    this.painter.reset();
    this.latency.clear();
    this.events.onstage(stage);
  }

  /** @param {string} reason why the server ended the session */
  end(reason) {
    this.release("ended");
    this.notices.clear("connection", "face", "server", "portrait");
    this.showProblem("session", `The session has ended. ${reason}`, "Start again", this.events.onrestart);
  }

  /** @param {Error} error */
  failToStart(error) {
    const { session } = this;
    this.release("idle");
    session?.end();
    this.notices.clear("queue", "driving");
    if (error instanceof CameraError) this.showCameraProblem(error.message);
    else this.showProblem("start", error.message, "Try again", this.events.onrestart);
  }

  loseCamera() {
    this.connection?.attachCamera(null, null);
    this.showCameraProblem("The camera was disconnected.");
  }

  /** @param {string} text */
  showCameraProblem(text) {
    this.showProblem("camera", text, "Try again", () => (this.session ? this.changeDriving() : this.events.onrestart()));
  }

  /**
   * @param {string} key
   * @param {string} text
   * @param {string} label of the button
   * @param {() => unknown} run
   */
  showProblem(key, text, label, run) {
    this.notices.show(key, text, { kind: "problem", action: { label, run } });
  }

  /**
   * @param {string} key of the notice
   * @param {File} [file]
   * @param {number} [limit] bytes
   */
  isTooLarge(key, file, limit = Infinity) {
    if (!file || file.size <= limit) return false;
    const megabytes = (/** @type {number} */ bytes) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
    const text = `${file.name} has ${megabytes(file.size)} MB; this server takes up to ${megabytes(limit)} MB.`;
    this.notices.show(key, text, { kind: "problem" });
    return true;
  }

  /** @param {ApiError} refusal */
  showQueue(refusal) {
    this.events.onstage("queued");
    const place = refusal.position === null ? "" : ` You are number ${refusal.position} in line.`;
    const text = refusal.kind === "server_full" ? `The server is full.${place} It starts by itself when it is your turn.` : refusal.message;
    this.notices.show("queue", text, { progress: null, action: { label: "Cancel", run: () => this.stop() } });
  }

  /**
   * Waits for a request; a refusal becomes a notice.
   * @template T
   * @param {Promise<T>} request
   * @param {string} key of the notice
   * @returns {Promise<T|null>}
   */
  async guard(request, key) {
    const { session } = this;
    try {
      return await request;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // Refusals of a session that was left do not matter any more.
      if (session && session === this.session) this.notices.show(key, error.message, { kind: "problem" });
      return null;
    }
  }
}
