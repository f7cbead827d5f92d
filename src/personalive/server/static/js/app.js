// The life of a stream: start, hot-swap, pause, stop, and what the person is told on the way. The parts know nothing of each other.
import { ApiError } from "./api.js";
import { CameraError } from "./camera.js";
import { Connection } from "./connection.js";
import { openSession } from "./session.js";
import { readViewKey } from "./store.js";

const FRAME_MEASURED = "Motion to photon, measured end to end over the last 10 s.";
const NOT_WEBRTC = "Motion to photon is measured on the WebSocket connection only; the stages are those of the server.";
const NOT_CAMERA = "Motion to photon is measured with this page's camera only; the stages are those of the server.";

/**
 * What goes on now, told to `onstage` and shown by the page:
 * idle, starting, queued, empty, waiting, live, paused (the last four are the server's) or ended.
 * @typedef {"idle"|"starting"|"queued"|"empty"|"waiting"|"live"|"paused"|"ended"} Stage
 */

/** One person's stream. */
export class App {
  /** @param {Record<string, any>} parts api, camera, painter, latency, notices, driving; controls and sound follow */
  constructor(parts) {
    Object.assign(this, parts);
    this.status = { webrtc: false, ice_servers: [], limits: {} };
    this.portrait = null; // the one chosen
    this.accepted = null; // the last one that the server could use
    this.session = null;
    this.connection = null;
    this.state = null;
    this.sent = null; // the clip or motion file that the session holds
    this.opening = null;
    this.generationAsked = 0;
    this.onstage = (_stage) => {};
    this.onportrait = (_portrait) => {}; // the one in use; null: none
    this.onstate = (_state) => {};
    this.onstats = (_stats) => {};
    this.onused = (_text) => {};
    this.onrestart = () => {}; // the person asked to start again
    this.painter.ondrawn = (header, nowMs) => this.latency.add(nowMs, this.isMeasured(header) ? header : null);
    this.camera.onlost = () => this.cameraLost();
  }

  get isRunning() {
    return this.session !== null || this.opening !== null;
  }

  isMeasured(header) {
    // Only frames that this page's camera drove carry a time of this page's clock.
    return header?.sequence > 0 && this.driving.source === "camera";
  }

  /** How the figures of the timing panel came to be. */
  get measuredHow() {
    if (this.connection?.webrtc) return NOT_WEBRTC;
    return this.driving.source === "camera" ? FRAME_MEASURED : NOT_CAMERA;
  }

  /**
   * Opens the camera and a session, and sends what was chosen.
   * @param {import("./connection.js").Mode} mode
   */
  async start(mode) {
    if (this.isRunning) return;
    const opening = new AbortController();
    this.opening = opening;
    this.onstage("starting");
    this.notices.clear("camera", "session", "start", "portrait", "transport", "driving");
    try {
      await this.openSource();
      opening.signal.throwIfAborted();
      const session = await openSession(this.api, { viewKey: readViewKey(), signal: opening.signal, onwait: (error) => this.tellWaiting(error) });
      if (opening.signal.aborted) { await session.end(); return; }
      this.notices.clear("queue");
      await this.run(session, mode);
    } catch (error) {
      if (!opening.signal.aborted) this.failToStart(error);
    } finally {
      if (this.opening === opening) this.opening = null;
    }
  }

  async run(session, mode) {
    this.session = session;
    this.painter.reset();
    this.latency.clear();
    this.onstage(this.portrait ? "waiting" : "empty");
    const mirror = this.driving.source === "camera";
    this.guard(session.control({ mirror, ...this.controls.wanted }), "controls");
    const connection = new Connection({ session, mode, painter: this.painter, status: this.status });
    this.connection = connection;
    this.listen(connection);
    // Before the socket: the portrait takes longest, and the server may prepare it meanwhile.
    if (this.portrait) this.sendPortrait();
    const sent = this.sendDriving();
    await Promise.all([connection.open(), sent]);
  }

  listen(connection) {
    connection.onused = (text) => this.onused(text);
    connection.onnotice = (key, text) => this.notices.show(key, text, { brief: true });
    connection.onmessage = (type, message) => this.receive(type, message);
    connection.onlost = () => this.notices.show("connection", "The connection is lost. Trying to get it back.", { kind: "problem", progress: null });
    connection.onback = () => this.notices.show("connection", "The connection is back.", { brief: true });
    connection.ongone = (reason) => this.gone(reason);
  }

  receive(type, message) {
    if (type === "state") this.showState(message.state);
    else if (type === "stats") this.onstats(message.stats);
    else if (type === "error") this.notices.show("server", message.error.message, { kind: "problem" });
  }

  showState(state) {
    this.state = state;
    this.painter.setGeneration(state.generation);
    this.controls.show(state.controls);
    this.connection.setSending(state.playing);
    if (state.face === false && state.playing && this.driving.source !== "template") {
      this.notices.show("face", "No face in view. The picture goes on when yours is seen: look at the camera, with light from the front.");
    } else {
      this.notices.clear("face");
    }
    if (state.message) this.notices.show("server", state.message);
    else this.notices.clear("server");
    this.onstage(state.stage);
    this.onstate(state);
  }

  /** Opens what drives on this side: the camera, or none. */
  async openSource() {
    if (this.driving.source !== "camera") { this.camera.close(); return; }
    const stream = await this.camera.open(this.driving.cameraId);
    this.notices.clear("camera");
    const inUse = stream.getVideoTracks()[0].getSettings().deviceId;
    this.driving.showCameras(await this.camera.list(), inUse);
  }

  /** Tells the server what drives, and sends the file where it is one. */
  async sendDriving() {
    const { session, connection, driving } = this;
    const { source, film } = driving;
    await connection.attachCamera(source === "camera" ? this.camera.video : null, source === "camera" ? this.camera.stream : null);
    driving.showAddress(session, this.status.webrtc);
    if (source === "camera" || source === "obs") {
      await this.guard(session.change({ driver: "camera" }), "driving");
    } else if (film) {
      await this.sendFilm(source, film);
    } else {
      this.notices.show("driving", source === "clip" ? "Choose a clip to drive from." : "Choose a motion file to drive from.");
    }
  }

  async sendFilm(kind, film) {
    const { session } = this;
    const { loop } = this.driving;
    if (film === this.sent) { await this.guard(session.change({ driver: kind, loop }), "driving"); return; }
    const limit = this.status.limits[`${kind}_bytes`];
    if (film.file?.size > limit) { this.tellTooLarge("driving", film.file, limit); return; }
    this.notices.show("driving", `Sending ${film.name}.`, { progress: null });
    const answer = await this.guard(session.putDriving(kind, film, loop), "driving");
    if (!answer || session !== this.session) return;
    this.sent = film;
    this.notices.clear("driving");
  }

  /** The clip or motion file plays again from its beginning. */
  async replay() {
    if (this.session) await this.sendDriving();
  }

  /** Whether the clip or motion file begins again at its end was changed. */
  async changeLoop() {
    const { film, loop, source } = this.driving;
    if (!this.session || !film || film !== this.sent) return; // it is sent with the film
    const ended = loop && this.state?.stage === "waiting";
    await this.guard(this.session.change(ended ? { driver: source, loop } : { loop }), "driving");
  }

  /** Another source was chosen, or another film or camera of it. */
  async changeDriving() {
    this.notices.clear("camera", "driving", "face");
    this.latency.clear();
    if (!this.session) {
      if (!this.opening) this.camera.close();
      return;
    }
    const mirror = this.driving.source === "camera";
    if (!("mirror" in this.controls.wanted)) this.guard(this.session.control({ mirror }), "controls");
    try {
      await this.openSource();
      if (this.session) await this.sendDriving();
      else this.camera.close(); // stopped while the camera was asked for
    } catch (error) {
      if (!(error instanceof CameraError)) throw error;
      this.tellCamera(error.message);
    }
  }

  /**
   * A portrait was chosen: shown at once where nothing runs, sent where something does.
   * @param {import("./portrait.js").Portrait} portrait
   */
  async setPortrait(portrait) {
    this.notices.clear("portrait");
    const limit = this.status.limits.portrait_bytes;
    if (portrait.file?.size > limit) { this.tellTooLarge("portrait", portrait.file, limit); return; }
    this.portrait = portrait;
    if (this.session) { await this.sendPortrait(); return; }
    const picture = await createImageBitmap(portrait.picture).catch(() => null);
    if (picture && !this.session) this.painter.still(picture);
    picture?.close();
  }

  async sendPortrait() {
    this.generationAsked += 1;
    const asked = this.generationAsked;
    this.notices.show("portrait", "Preparing the portrait.", { progress: null });
    const { portrait, session } = this;
    const answer = await this.guard(session.putPortrait(portrait), "portrait");
    if (asked !== this.generationAsked || session !== this.session) return; // a later portrait took its place, or all is over
    this.portrait = answer ? portrait : this.accepted;
    this.accepted = this.portrait;
    this.onportrait(this.portrait);
    if (!answer) return;
    this.painter.setGeneration(answer.generation);
    if (answer.note) this.notices.show("portrait", answer.note);
    else this.notices.clear("portrait");
  }

  /** Pauses, or goes on. */
  async togglePlaying() {
    if (!this.session || !this.state) return;
    const playing = !this.state.playing;
    this.connection.setSending(playing);
    const state = await this.guard(this.session.change({ playing }), "session");
    if (state && this.connection) this.showState(state);
  }

  /** Ends the stream: the camera is let go, and the server forgets all that was uploaded. */
  async stop() {
    const { session } = this;
    this.opening?.abort();
    this.letGo("idle");
    this.notices.clear("queue", "connection", "face", "server", "portrait", "driving", "transport", "controls", "session");
    await session?.end();
  }

  letGo(stage) {
    this.connection?.close();
    this.camera.close();
    this.session = this.connection = this.state = this.sent = this.opening = null;
    this.driving.showAddress(null, this.status.webrtc);
    this.painter.reset();
    this.latency.clear();
    this.onstage(stage);
  }

  gone(reason) {
    this.letGo("ended");
    this.notices.clear("connection", "face", "server", "portrait");
    const text = `The session has ended. ${reason}`;
    this.notices.show("session", text, { kind: "problem", action: { label: "Start again", run: () => this.onrestart() } });
  }

  cameraLost() {
    this.connection?.attachCamera(null, null);
    this.tellCamera("The camera was disconnected.");
  }

  tellCamera(text) {
    const run = () => (this.session ? this.changeDriving() : this.onrestart());
    this.notices.show("camera", text, { kind: "problem", action: { label: "Try again", run } });
  }

  tellTooLarge(key, file, limit) {
    const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
    const text = `${file.name} has ${megabytes(file.size)} MB; this server takes up to ${megabytes(limit)} MB.`;
    this.notices.show(key, text, { kind: "problem" });
  }

  tellWaiting(error) {
    this.onstage("queued");
    const place = error.position === null ? "" : ` You are number ${error.position} in line.`;
    const text = error.kind === "server_full" ? `The server is full.${place} It starts by itself when it is your turn.` : error.message;
    this.notices.show("queue", text, { progress: null, action: { label: "Cancel", run: () => this.stop() } });
  }

  failToStart(error) {
    const { session } = this;
    this.letGo("idle");
    session?.end();
    this.notices.clear("queue", "driving");
    if (error instanceof CameraError) { this.tellCamera(error.message); return; }
    this.notices.show("start", error.message, { kind: "problem", action: { label: "Try again", run: () => this.onrestart() } });
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
      // What a session that was left had to say does not matter any more.
      if (session && session === this.session) this.notices.show(key, error.message, { kind: "problem" });
      return null;
    }
  }
}
