// Choosing a portrait: by button, by dropping or pasting anywhere, or one of the bundled ones.
import { byId, element, inputById } from "./dom.js";

/** @typedef {{file?: File, gallery?: string, image: Blob}} Portrait `image` is what the page itself shows */

const carriesFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");

/** The portrait card, with drops and pastes on the whole page. */
export class PortraitChooser {
  /**
   * @param {{onchoose: (portrait: Portrait) => void, onother: (file: File) => void}} options
   *   `onother` gets a file that is no image
   */
  constructor({ onchoose, onother }) {
    this.onchoose = onchoose;
    this.onother = onother;
    /** @type {Map<string, HTMLButtonElement>} of bundled portraits, by name */ this.buttons = new Map();
    const input = inputById("portrait-input");
    input.addEventListener("change", () => { this.take(input.files); input.value = ""; });
    this.listenForDrops();
    document.addEventListener("paste", (event) => this.take(event.clipboardData?.files));
  }

  listenForDrops() {
    const hint = byId("drop-hint");
    document.addEventListener("dragover", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      hint.hidden = false;
    });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) hint.hidden = true; });
    document.addEventListener("drop", (event) => {
      hint.hidden = true;
      if (!carriesFiles(event)) return;
      event.preventDefault();
      this.take(event.dataTransfer?.files);
    });
  }

  /** @param {FileList|null} [files] the first one is used */
  take(files) {
    const file = files?.[0];
    if (!file) return;
    if (file.type.startsWith("image/")) this.choose({ file, image: file });
    else this.onother(file);
  }

  /** @param {Portrait} portrait */
  choose(portrait) {
    this.show(portrait);
    this.onchoose(portrait);
  }

  /** @param {Portrait|null} portrait the one in use */
  show(portrait) {
    const thumb = byId("portrait-thumb", HTMLImageElement);
    if (thumb.src) URL.revokeObjectURL(thumb.src);
    if (portrait) thumb.src = URL.createObjectURL(portrait.image);
    else thumb.removeAttribute("src");
    thumb.alt = portrait ? "The chosen portrait" : "No portrait chosen";
    for (const [name, button] of this.buttons) button.setAttribute("aria-pressed", String(name === portrait?.gallery));
  }

  /**
   * Adds a bundled portrait to the gallery.
   * @param {{name: string, title: string}} item
   * @param {Blob} image
   */
  add({ name, title }, image) {
    const thumb = element("img", { src: URL.createObjectURL(image), alt: "" });
    const button = element("button", { type: "button", title, data: { testid: "gallery-item" }, attributes: { "aria-label": title, "aria-pressed": "false" } }, thumb);
    button.addEventListener("click", () => this.choose({ gallery: name, image }));
    this.buttons.set(name, button);
    byId("gallery").append(element("li", {}, button));
  }
}
