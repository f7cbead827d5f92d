// Choosing what drives: the camera, a clip, a motion file, or OBS by WHIP. Holds the choice; the app acts on it.
import { byId, element, inputById, onClick } from "./dom.js";
/** @import { Session } from "./api.js" */

/** @typedef {"camera"|"clip"|"template"|"obs"} Source "template" is the protocol's name of a motion file */
/** @typedef {{name: string, file?: File, gallery?: string}} Media a clip or motion file: the user's own, or a bundled one */

/** The card "Driven by". */
export class DrivingChooser {
  /** @param {{onchange: () => void, onloop: () => void, onreplay: () => void}} events */
  constructor(events) {
    this.events = events;
    /** @type {Source} */ this.source = "camera";
    /** @type {{clip: Media|null, template: Media|null}} */ this.chosen = { clip: null, template: null };
    /** @type {Map<string, HTMLButtonElement>} of bundled clips, by name */ this.buttons = new Map();
    const radios = /** @type {NodeListOf<HTMLInputElement & {value: Source}>} */ (document.querySelectorAll("input[name=source]"));
    for (const radio of radios) radio.addEventListener("change", () => { this.show(radio.value); events.onchange(); });
    this.listen("clip");
    this.listen("template");
    this.cameras = byId("camera-select", HTMLSelectElement);
    this.cameras.addEventListener("change", () => events.onchange());
  }

  /** @param {"clip"|"template"} kind */
  listen(kind) {
    const input = inputById(`${kind}-input`);
    input.addEventListener("change", () => { if (input.files?.[0]) this.chooseFile(kind, input.files[0]); input.value = ""; });
    inputById(`${kind}-loop`).addEventListener("change", () => this.events.onloop());
    onClick(`${kind}-replay`, () => this.events.onreplay());
  }

  /** @param {"clip"|"template"} kind @param {File} file */
  chooseFile(kind, file) {
    byId(`${kind}-name`).textContent = file.name;
    this.choose(kind, { file, name: file.name });
  }

  /** @param {"clip"|"template"} kind @param {Media} media */
  choose(kind, media) {
    this.chosen[kind] = media;
    if (kind === "clip") for (const [name, button] of this.buttons) button.setAttribute("aria-pressed", String(name === media.gallery));
    /** @type {HTMLInputElement} */ (document.querySelector(`input[name=source][value=${kind}]`)).checked = true;
    this.show(kind);
    this.events.onchange();
  }

  /**
   * Adds a bundled clip to the gallery.
   * @param {{name: string, title: string}} item
   */
  add({ name, title }) {
    const button = element("button", { type: "button", textContent: title, data: { testid: "gallery-clip" }, attributes: { "aria-pressed": "false" } });
    button.addEventListener("click", () => this.choose("clip", { gallery: name, name: title }));
    this.buttons.set(name, button);
    byId("clip-gallery").append(element("li", {}, button));
  }

  /** @param {Source} source */
  show(source) {
    this.source = source;
    const parts = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".source"));
    for (const part of parts) part.hidden = part.dataset.source !== source;
  }

  /** The clip or motion file to drive from; null: none is needed, or none was chosen. */
  get media() {
    return this.source === "clip" || this.source === "template" ? this.chosen[this.source] : null;
  }

  /** True where the clip or motion file repeats. */
  get loop() {
    return inputById(`${this.source}-loop`).checked;
  }

  /** The chosen camera; "" for the browser's choice. */
  get cameraId() {
    return this.cameras.value;
  }

  /**
   * Lists the cameras, where there are several.
   * @param {MediaDeviceInfo[]} cameras
   * @param {string} [inUse] device id
   */
  showCameras(cameras, inUse = "") {
    byId("camera-choice").hidden = cameras.length < 2;
    const options = cameras.map(({ deviceId, label }, i) => element("option", { value: deviceId, textContent: label || `Camera ${i + 1}` }));
    this.cameras.replaceChildren(...options);
    this.cameras.value = inUse;
  }

  /**
   * Shows where OBS sends to.
   * @param {Session|null} session
   * @param {boolean} webrtc false: the server has none
   */
  showAddress(session, webrtc) {
    const shown = webrtc ? session : null;
    byId("obs-address").hidden = !shown;
    inputById("whip-url").value = shown?.whipUrl ?? "";
    inputById("whip-key").value = shown?.key ?? "";
    byId("obs-hint").textContent = webrtc
      ? "Start, then copy the address and the key into OBS: Settings, Stream, service WHIP."
      : "This server has no WebRTC, so OBS cannot send to it. Use the virtual camera of OBS as the camera instead.";
  }
}
