// Light or dark as the system or the user chose, and the reminder of consent, shown until dismissed.
import { byId, onClick } from "./dom.js";
import { load, save } from "./store.js";

/** @type {Record<string, string>} */
const NEXT_THEME = { system: "light", light: "dark", dark: "system" };

/** @param {string} theme */
function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  const title = `Theme: ${theme}`;
  byId("theme").setAttribute("aria-label", title);
  byId("theme").title = title;
}

/** Connects the theme button. */
export function setUpTheme() {
  const stored = load("theme") ?? "";
  let theme = stored in NEXT_THEME ? stored : "system";
  applyTheme(theme);
  onClick("theme", () => {
    theme = NEXT_THEME[theme];
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
