// Choosing what drives: the camera, a clip, a motion file, or OBS by WHIP. Holds the choice; the app acts on it.
import { byId, element } from "./dom.js";

/** @typedef {"camera"|"clip"|"template"|"obs"} Source */

/** The card "Driven by". */
export class DrivingChooser {
  /** @param {{onsource: (source: Source) => void, onfile: () => void, oncamera: () => void}} events */
  constructor(events) {
    this.events = events;
    /** @type {Source} */
    this.source = "camera";
    this.files = { clip: null, template: null };
    for (const radio of document.getElementsByName("source")) {
      radio.addEventListener("change", () => { this.show(radio.value); events.onsource(this.source); });
    }
    for (const kind of ["clip", "template"]) this.listen(kind);
    byId("camera-select").addEventListener("change", () => events.oncamera());
  }

  listen(kind) {
    const input = byId(`${kind}-input`);
    input.addEventListener("change", () => { if (input.files[0]) this.take(kind, input.files[0]); input.value = ""; });
    byId(`${kind}-loop`).addEventListener("change", () => { if (this.files[kind]) this.events.onfile(); });
  }

  /** Uses this file from now on. */
  take(kind, file) {
    this.files[kind] = file;
    byId(`${kind}-name`).textContent = file.name;
    document.querySelector(`input[name="source"][value="${kind}"]`).checked = true;
    this.show(kind);
    this.events.onfile();
  }

  show(source) {
    this.source = source;
    for (const part of document.querySelectorAll(".source")) part.hidden = part.dataset.source !== source;
  }

  /** The clip or motion file to drive from, or null where none is needed or chosen. */
  file() {
    return this.files[this.source] ?? null;
  }

  /** Whether the file is to be repeated. */
  get loop() {
    return byId(`${this.source}-loop`).checked;
  }

  /** The chosen camera; "" for the browser's own choice. */
  get cameraId() {
    return byId("camera-select").value;
  }

  /**
   * Offers the cameras there are, where there is a choice.
   * @param {MediaDeviceInfo[]} cameras
   * @param {string} inUse device id
   */
  showCameras(cameras, inUse) {
    byId("camera-choice").hidden = cameras.length < 2;
    const options = cameras.map(({ deviceId, label }, i) => element("option", { value: deviceId, textContent: label || `Camera ${i + 1}` }));
    byId("camera-select").replaceChildren(...options);
    byId("camera-select").value = inUse;
  }

  /**
   * Shows where OBS sends to; null: no session, or no WebRTC.
   * @param {import("./session.js").Session|null} session
   * @param {boolean} webrtc
   */
  showAddress(session, webrtc) {
    const usable = Boolean(session && webrtc);
    byId("obs-address").hidden = !usable;
    byId("whip-url").value = usable ? session.whipUrl : "";
    byId("whip-key").value = usable ? session.key : "";
    byId("obs-hint").textContent = webrtc
      ? "Start, then copy the address and the key into OBS: Settings, Stream, service WHIP."
      : "This server has no WebRTC, so OBS cannot send to it. Use the virtual camera of OBS as the camera instead.";
  }
}
