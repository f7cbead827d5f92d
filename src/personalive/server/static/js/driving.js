// Choosing what drives: the camera, a clip, a motion file, or OBS by WHIP. Holds the choice; the app acts on it.
import { byId, element } from "./dom.js";

/** @typedef {"camera"|"clip"|"template"|"obs"} Source */
/** @typedef {{name: string, file?: File, gallery?: string}} Film a clip or motion file: the person's own, or a bundled one */

/** The card "Driven by". */
export class DrivingChooser {
  /** @param {{onchange: () => void, onloop: () => void, onreplay: () => void}} events */
  constructor(events) {
    this.events = events;
    /** @type {Source} */
    this.source = "camera";
    /** @type {Record<string, Film|null>} */
    this.films = { clip: null, template: null };
    this.buttons = new Map(); // of bundled clips, by name
    for (const radio of document.getElementsByName("source")) {
      radio.addEventListener("change", () => { this.show(radio.value); events.onchange(); });
    }
    for (const kind of ["clip", "template"]) this.listen(kind);
    byId("camera-select").addEventListener("change", () => events.onchange());
  }

  listen(kind) {
    const input = byId(`${kind}-input`);
    input.addEventListener("change", () => { if (input.files[0]) this.takeFile(kind, input.files[0]); input.value = ""; });
    byId(`${kind}-loop`).addEventListener("change", () => this.events.onloop());
    byId(`${kind}-replay`).addEventListener("click", () => this.events.onreplay());
  }

  /** Uses this file from now on. */
  takeFile(kind, file) {
    this.take(kind, { file, name: file.name });
  }

  /**
   * Uses this from now on.
   * @param {"clip"|"template"} kind
   * @param {Film} film
   */
  take(kind, film) {
    this.films[kind] = film;
    if (film.file) byId(`${kind}-name`).textContent = film.name;
    if (kind === "clip") for (const [name, button] of this.buttons) button.setAttribute("aria-pressed", String(name === film.gallery));
    document.querySelector(`input[name="source"][value="${kind}"]`).checked = true;
    this.show(kind);
    this.events.onchange();
  }

  /**
   * Offers a bundled clip.
   * @param {{name: string, title: string}} item
   */
  offer({ name, title }) {
    const button = element("button", { type: "button", textContent: title, data: { testid: "gallery-clip" }, attributes: { "aria-pressed": "false" } });
    button.addEventListener("click", () => this.take("clip", { gallery: name, name: title }));
    this.buttons.set(name, button);
    byId("clip-gallery").append(element("li", {}, button));
  }

  show(source) {
    this.source = source;
    for (const part of document.querySelectorAll(".source")) part.hidden = part.dataset.source !== source;
  }

  /** The clip or motion file to drive from, or null where none is needed or chosen. */
  get film() {
    return this.films[this.source] ?? null;
  }

  /** Whether the clip or motion file is to be repeated. */
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
