// What the person keeps or shares: recording with sound, snapshots, recorded motion, the link to the clean view.
import { byId, download, fileTime } from "./dom.js";
import { Recorder, Sound, snapshot } from "./recorder.js";
import { readViewKey, renewViewKey } from "./store.js";

/** The buttons below the result and the card "Share and keep". */
export class KeepPanel {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.canvas = byId("result");
    this.recorder = new Recorder(this.canvas);
    this.sound = new Sound();
    this.serverStats = null;
    this.running = false;
    this.motion = false;
    byId("record").addEventListener("click", () => this.toggleRecording());
    byId("sound").addEventListener("click", () => this.toggleSound());
    byId("snapshot").addEventListener("click", () => this.snapshot());
    byId("motion-record").addEventListener("click", () => this.toggleMotion());
    byId("view-black").addEventListener("change", () => this.showLink());
    byId("view-renew").addEventListener("click", () => { renewViewKey(); this.showLink(); });
    this.showLink();
  }

  /** @param {boolean} running whether there is a session */
  showRunning(running) {
    this.running = running;
    if (!running) { this.recorder.stop(); this.showMotion(false); }
    for (const id of ["record", "snapshot", "motion-record"]) byId(id).disabled = !running;
    this.showRecording();
  }

  showLink() {
    const background = byId("view-black").checked ? "&background=black" : "";
    byId("view-link").value = `${location.origin}/view#key=${readViewKey()}${background}`;
  }

  showRecording() {
    const { isRecording } = this.recorder;
    byId("record").setAttribute("aria-pressed", String(isRecording));
    byId("record").querySelector("span").textContent = isRecording ? `Stop ${this.recorder.elapsed()}` : "Record";
    byId("sound").disabled = isRecording;
  }

  toggleRecording() {
    if (this.recorder.isRecording) this.recorder.stop();
    else this.recorder.start(this.sound);
    this.showRecording();
  }

  async toggleSound() {
    if (this.sound.isOn) this.sound.close();
    else await this.openSound();
    byId("sound").setAttribute("aria-pressed", String(this.sound.isOn));
    byId("sound").querySelector("span").textContent = this.sound.isOn ? "Sound on" : "Sound off";
  }

  async openSound() {
    this.app.notices.clear("sound");
    await (navigator.mediaDevices ? this.sound.open() : Promise.reject(new DOMException("insecure", "SecurityError"))).catch((error) => {
      if (!(error instanceof DOMException)) throw error;
      this.app.notices.show("sound", "The microphone could not be opened. Allow it in the browser's site settings, or record without sound.", { kind: "problem" });
    });
  }

  snapshot() {
    if (this.running) snapshot(this.canvas);
  }

  async toggleMotion() {
    const { app } = this;
    const { session } = app;
    const recording = !this.motion;
    if ((await app.guard(session.recordMotion(recording), "motion")) === null) return;
    this.showMotion(recording);
    if (recording) return;
    const motion = await app.guard(session.motion(), "motion");
    if (motion) download(motion, `motion-${fileTime()}.safetensors`);
  }

  /** @param {boolean} recording whether the server keeps the motion now */
  showMotion(recording) {
    this.motion = Boolean(recording);
    byId("motion-record").setAttribute("aria-pressed", String(this.motion));
    byId("motion-record").querySelector("span").textContent = this.motion ? "Stop and download" : "Record motion";
  }

  /**
   * Keeps the sound in time with the picture, and the clock of the recording going.
   * @param {number|null} latencyMs measured motion-to-photon; null: the server's own stages stand in for it
   */
  tick(latencyMs) {
    const stages = Object.values(this.serverStats?.latency_ms ?? {});
    this.sound.setDelay(latencyMs ?? stages.reduce((sum, stage) => sum + (stage.p50 ?? 0), 0));
    if (this.recorder.isRecording) this.showRecording();
  }
}
