// Light or dark as the system or the user chose, and the reminder of consent, shown until dismissed.
import { byId, onClick } from "./dom.js";
import { load, save } from "./store.js";

/** @type {Record<string, {name: string, next: string}>} */
const THEMES = {
  system: { name: "as the system", next: "light" },
  light: { name: "light", next: "dark" },
  dark: { name: "dark", next: "system" },
};

/** @param {string} theme */
function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  const title = `Colours: ${THEMES[theme].name}`;
  byId("theme").setAttribute("aria-label", title);
  byId("theme").title = title;
}

/** Connects the button for the colours. */
export function setUpTheme() {
  const stored = load("theme") ?? "";
  let theme = stored in THEMES ? stored : "system";
  applyTheme(theme);
  onClick("theme", () => {
    theme = THEMES[theme].next;
    save("theme", theme);
    applyTheme(theme);
  });
}

/** Shows the reminder of consent until it was dismissed once. */
export function setUpConsent() {
  const box = byId("consent");
  box.hidden = load("consent") === "yes";
  onClick("consent-ok", () => {
    save("consent", "yes");
    box.hidden = true;
    byId("start").focus();
  });
}
