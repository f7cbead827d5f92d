// Choosing a portrait: by button, by dropping or pasting anywhere, or one of the bundled ones.
import { byId, element } from "./dom.js";

/** @typedef {{file?: File, gallery?: string, picture: Blob}} Portrait `picture` is what the page itself shows */

const dropped = (event) => [...(event.dataTransfer?.files ?? [])];
const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

/** The portrait card, with drops and pastes on the whole page. */
export class PortraitChooser {
  /**
   * @param {{onchoose: (portrait: Portrait) => void, onother: (file: File) => void}} options
   *   `onother` gets a dropped file that is no picture
   */
  constructor({ onchoose, onother }) {
    this.onchoose = onchoose;
    this.onother = onother;
    this.buttons = new Map();
    const input = byId("portrait-input");
    input.addEventListener("change", () => { this.take(input.files[0]); input.value = ""; });
    this.listenForDrops();
    document.addEventListener("paste", (event) => this.take([...event.clipboardData.files][0]));
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
      this.take(dropped(event)[0]);
    });
  }

  take(file) {
    if (!file) return;
    if (file.type.startsWith("image/")) this.choose({ file, picture: file });
    else this.onother(file);
  }

  choose(portrait) {
    this.show(portrait);
    this.onchoose(portrait);
  }

  /** @param {Portrait|null} portrait the one in use */
  show(portrait) {
    const thumb = byId("portrait-thumb");
    if (thumb.src) URL.revokeObjectURL(thumb.src);
    if (portrait) thumb.src = URL.createObjectURL(portrait.picture);
    else thumb.removeAttribute("src");
    thumb.alt = portrait ? "The chosen portrait" : "No portrait chosen";
    for (const [name, button] of this.buttons) button.setAttribute("aria-pressed", String(name === portrait?.gallery));
  }

  /**
   * Offers a bundled portrait.
   * @param {{name: string, title: string}} item
   * @param {Blob} picture
   */
  offer({ name, title }, picture) {
    const image = element("img", { src: URL.createObjectURL(picture), alt: "" });
    const button = element("button", { type: "button", title, data: { testid: "gallery-item" }, attributes: { "aria-label": title, "aria-pressed": "false" } }, image);
    button.addEventListener("click", () => this.choose({ gallery: name, picture }));
    this.buttons.set(name, button);
    byId("gallery").append(element("li", {}, button));
  }
}
