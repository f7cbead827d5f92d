// Recordings with sound, snapshots, recorded motion, and the link to the clean view.
import { ApiError } from "./api.js";
import { buttonById, byId, download, inputById, onClick, setLabel } from "./dom.js";
import { Recording, Sound } from "./recorder.js";
import { loadViewKey, renewViewKey } from "./store.js";
/** @import { Stats } from "./api.js" */
/** @import { App } from "./app.js" */

/** The buttons below the result and the card "Share and record". */
export class SharePanel {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.canvas = byId("result", HTMLCanvasElement);
    /** @type {Recording|null} */ this.recording = null;
    /** @type {Sound|null} */ this.sound = null;
    this.running = false;
    this.recordsMotion = false;
    this.serverLatencyMs = 0;
    onClick("record", () => this.toggleRecording());
    onClick("sound", () => this.toggleSound());
    onClick("snapshot", () => this.snapshot());
    onClick("motion-record", () => this.toggleMotion());
    onClick("view-renew", () => { renewViewKey(); this.showLink(); });
    byId("view-black").addEventListener("change", () => this.showLink());
    this.showLink();
  }

  /** @param {boolean} running whether there is a session */
  showRunning(running) {
    this.running = running;
    if (!running) { this.stopRecording(); this.showMotion(false); }
    for (const id of ["record", "snapshot", "motion-record"]) buttonById(id).disabled = !running;
    this.showRecording();
  }

  showLink() {
    const background = inputById("view-black").checked ? "&background=black" : "";
    inputById("view-link").value = `${location.origin}/view#key=${loadViewKey()}${background}`;
  }

  showRecording() {
    const { recording } = this;
    setLabel("record", recording ? `Stop ${recording.elapsed()}` : "Record", recording !== null);
    buttonById("sound").disabled = recording !== null;
    this.app.painter.held = recording !== null; // players want all frames of a video to have one size
  }

  toggleRecording() {
    if (this.recording) this.stopRecording();
    else this.recording = new Recording(this.canvas, this.sound, (video) => this.save(video, "recording"));
    this.showRecording();
  }

  stopRecording() {
    this.recording?.stop();
    this.recording = null;
  }

  async toggleSound() {
    this.app.notices.clear("sound");
    if (this.sound) {
      this.sound.close();
      this.sound = null;
    } else {
      this.sound = await Sound.open().catch((error) => {
        if (!(error instanceof DOMException)) throw error;
        const text = "The microphone could not be opened. Allow it in the browser's site settings, or record without sound.";
        this.app.notices.show("sound", text, { kind: "problem" });
        return null;
      });
    }
    setLabel("sound", this.sound ? "Sound on" : "Sound off", this.sound !== null);
  }

  snapshot() {
    if (this.running) this.canvas.toBlob((png) => { if (png) this.save(png, "snapshot"); });
  }

  /**
   * Downloads what the canvas showed, with content credentials of the server; without them where it cannot give any.
   * @param {Blob} blob @param {string} what
   */
  async save(blob, what) {
    const { api, notices, server } = this.app;
    const now = new Date();
    const extension = blob.type.split("/")[1];
    notices.clear("credentials");
    const signed = server.credentials ? await api.sign(blob).catch((error) => {
      if (!(error instanceof ApiError)) throw error;
      notices.show("credentials", `The ${what} has no content credentials: ${error.message}`, { kind: "problem" });
      return null;
    }) : null;
    const inside = signed?.type === blob.type;
    download(inside ? signed : blob, extension, undefined, now);
    if (signed && !inside) download(signed, "c2pa", undefined, now);
  }

  async toggleMotion() {
    const { app } = this;
    const { session } = app;
    if (!session) return;
    const recording = !this.recordsMotion;
    if ((await app.guard(session.recordMotion(recording), "motion")) === null) return;
    this.showMotion(recording);
    if (recording) return;
    const motion = await app.guard(session.motion(), "motion");
    if (motion) download(motion, "safetensors", "motion");
  }

  /** @param {boolean} recording whether the server records the motion now */
  showMotion(recording) {
    this.recordsMotion = recording;
    setLabel("motion-record", recording ? "Stop and download" : "Record motion", recording);
  }

  /** @param {Stats} stats the server's */
  showStats(stats) {
    this.serverLatencyMs = Object.values(stats.latency_ms ?? {}).reduce((sum, stage) => sum + (stage.p50 ?? 0), 0);
  }

  /**
   * Keeps the sound in time with the video, and updates the time of the recording.
   * @param {number|null} latencyMs measured motion-to-photon; null: the sum of the server's stages stands in for it
   */
  tick(latencyMs) {
    this.sound?.setDelay(latencyMs ?? this.serverLatencyMs);
    if (this.recording) this.showRecording();
  }
}
