// Entry point of the page: makes the parts, connects them to the buttons and keys, and shows what they report.
import { Api } from "./api.js";
import { App } from "./app.js";
import { setUpConsent, setUpTheme } from "./appearance.js";
import { Camera } from "./camera.js";
import { ControlsPanel } from "./controls.js";
import { buttonById, byId, inputById, onClick, setLabel } from "./dom.js";
import { DrivingChooser } from "./driving.js";
import { Notices } from "./notices.js";
import { Painter } from "./painter.js";
import { PortraitChooser } from "./portrait.js";
import { pollStatus, promptForToken } from "./server.js";
import { SharePanel } from "./share.js";
import { load, loadToken, save, takeTokenFromAddress } from "./store.js";
import { LatencyWindow, TimingPanel } from "./timing.js";
/** @import { Stage } from "./app.js" */
/** @import { Mode } from "./connection.js" */

const REFRESH_MS = 500;
/** @type {Partial<Record<Stage, string>>} */
const CAPTIONS = {
  starting: "Starting", queued: "Queued", empty: "No portrait yet", waiting: "Waiting for motion",
  live: "Live", paused: "Paused", ended: "Ended",
};
const RUNNING = ["empty", "waiting", "live", "paused"];

takeTokenFromAddress();
const api = new Api(loadToken, promptForToken);
const notices = new Notices(byId("notices"));
const timing = new TimingPanel();
const latency = new LatencyWindow();
const painter = new Painter(byId("result", HTMLCanvasElement));
const camera = new Camera(byId("camera-preview", HTMLVideoElement));
const controls = new ControlsPanel(async (changes) => (app.session ? app.guard(app.session.control(changes), "controls") : null));
const driving = new DrivingChooser({
  onchange: () => app.changeDriving(),
  onloop: () => app.changeLoop(),
  onreplay: () => app.replay(),
});
/** @type {Stage} */ let stage = "idle";
const app = new App({ api, camera, controls, driving, latency, notices, painter }, {
  onstage: showStage,
  onportrait: (portrait) => { chooser.show(portrait); showStage(stage); },
  onstate: (state) => {
    setLabel("pause", state.playing ? "Pause" : "Resume");
    byId("pause").querySelector("use")?.setAttribute("href", `/static/icons.svg#${state.playing ? "pause" : "play"}`);
    share.showMotion(state.recording);
  },
  onstats: (stats) => { timing.showServer(stats); share.showStats(stats); },
  ontransport: (name) => { byId("connection-used").textContent = name; },
  onrestart: start,
});
const share = new SharePanel(app);
const chooser = new PortraitChooser({
  onchoose: (portrait) => { app.setPortrait(portrait); showStage(stage); },
  onother: (file) => driving.chooseFile(file.type.startsWith("video/") ? "clip" : "template", file),
});
const connection = byId("connection", HTMLSelectElement);

/** @param {Stage} now */
function showStage(now) {
  stage = now;
  document.body.dataset.stage = stage;
  const running = RUNNING.includes(stage);
  buttonById("start").disabled = connection.disabled = app.isRunning;
  buttonById("stop").disabled = !app.isRunning;
  for (const id of ["pause", "neutral", "clip-replay", "template-replay"]) buttonById(id).disabled = !running;
  byId("empty").hidden = app.portrait !== null || stage === "live";
  byId("badge").hidden = !(stage in CAPTIONS);
  byId("badge").textContent = stage === "empty" && app.portrait ? "Preparing" : CAPTIONS[stage] ?? "";
  byId("preview-off").hidden = camera.stream !== null;
  share.showRunning(running);
  if (!running) timing.showServer({});
}

function start() {
  return app.start(/** @type {Mode} */ (connection.value));
}

async function showGallery() {
  /** @type {{name: string, title: string, kind: "portrait"|"clip"}[]} */
  const items = await api.json("GET", "/api/gallery");
  for (const item of items) {
    if (item.kind === "clip") driving.add(item);
    else chooser.add(item, await api.blob(`/api/gallery/${encodeURIComponent(item.name)}`));
  }
}

function toggleFullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else byId("frame").requestFullscreen?.();
}

/** @type {Record<string, () => unknown>} */
const KEYS = { " ": () => app.togglePlaying(), s: () => share.snapshot(), f: toggleFullScreen };

/** @param {KeyboardEvent} event */
function pressKey(event) {
  const key = event.key.toLowerCase();
  const target = event.target instanceof Element ? event.target : document.body;
  // Where a key already has a meaning (typing, pressing a button), it keeps that meaning.
  const typing = target.closest("input:not([type=file]), select, textarea, dialog");
  const pressing = key === " " && target.closest("button, summary, input, a");
  if (!(key in KEYS) || typing || pressing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  event.preventDefault();
  KEYS[key]();
}

/** @param {string} id of an input */
async function copy(id) {
  const field = inputById(id);
  if (!field.value) return;
  // Without https pages have no clipboard: then the text is selected, ready for Ctrl+C.
  const copied = await (navigator.clipboard?.writeText(field.value).then(() => true, () => false) ?? false);
  if (!copied) field.select();
  notices.show("copy", copied ? "Copied." : "Selected: press Ctrl+C to copy.", { brief: true });
}

onClick("start", start);
onClick("pause", () => app.togglePlaying());
onClick("stop", () => app.stop());
onClick("neutral", () => app.session && app.guard(app.session.neutral(), "controls"));
onClick("reset", () => controls.reset());
onClick("fullscreen", toggleFullScreen);
for (const about of ["synthetic", "geometry"]) {
  onClick(`${about}-close`, () => { byId(about).hidden = true; });
  onClick(`${about}-try`, () => {
    byId(about).hidden = true;
    const lists = app.portrait ? ["clip-gallery"] : ["gallery", "clip-gallery"];
    for (const list of lists) byId(list).querySelector("button")?.click();
    start();
  });
}
for (const id of ["view-link", "whip-url", "whip-key"]) onClick(`${id}-copy`, () => copy(id));
document.addEventListener("keydown", pressKey);
camera.video.addEventListener("playing", () => { byId("preview-off").hidden = true; });
camera.video.addEventListener("emptied", () => { byId("preview-off").hidden = false; });
connection.value = load("connection") ?? "automatic";
connection.addEventListener("change", () => save("connection", connection.value));
byId("fullscreen").hidden = !document.fullscreenEnabled;
window.addEventListener("pagehide", () => app.stop());
setInterval(() => {
  const summary = latency.summary(performance.now());
  const webrtc = Boolean(app.connection?.webrtc);
  timing.showMeasured(summary, painter.dropped, { webrtc, camera: driving.source === "camera" });
  share.tick(summary.total.p50);
}, REFRESH_MS);

setUpTheme();
setUpConsent();
driving.show(driving.source);
showStage("idle");
const gallery = showGallery().catch((error) => notices.show("gallery", error.message, { kind: "problem" }));
pollStatus(api, notices, (status) => {
  app.server = status;
  if (status.state === "ready" && !controls.fields.length) controls.build(status.controls);
  driving.showAddress(app.session, status.webrtc);
  if (status.state === "ready" && status.drawn_heads_only) gallery.then(() => { byId("synthetic").hidden = false; });
  if (status.state === "ready" && status.backend === "geometry") gallery.then(() => { byId("geometry").hidden = false; });
});
