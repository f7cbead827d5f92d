// Light or dark as the system says or the person chose, and the sentence about consent, shown once.
import { byId } from "./dom.js";
import { recall, remember } from "./store.js";

const NEXT = { system: "light", light: "dark", dark: "system" };
const NAMES = { system: "as the system", light: "light", dark: "dark" };

function applyTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const label = `Colours: ${NAMES[theme]}`;
  byId("theme").setAttribute("aria-label", label);
  byId("theme").title = label;
}

/** Wires the button for the colours. */
export function setUpTheme() {
  let theme = recall("theme") in NEXT ? recall("theme") : "system";
  applyTheme(theme);
  byId("theme").addEventListener("click", () => {
    theme = NEXT[theme];
    remember("theme", theme);
    applyTheme(theme);
  });
}

/** Shows the sentence about consent until it was dismissed once. */
export function setUpConsent() {
  const box = byId("consent");
  box.hidden = recall("consent") === "yes";
  byId("consent-ok").addEventListener("click", () => {
    remember("consent", "yes");
    box.hidden = true;
    byId("start").focus();
  });
}
