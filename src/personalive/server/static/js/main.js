// Entry point of the page: makes the parts, connects them to the buttons and keys, and shows what they report.
import { Api } from "./api.js";
import { App } from "./app.js";
import { setUpConsent, setUpTheme } from "./appearance.js";
import { Camera } from "./camera.js";
import { ControlsPanel } from "./controls.js";
import { byId } from "./dom.js";
import { DrivingChooser } from "./driving.js";
import { KeepPanel } from "./keep.js";
import { LatencyWindow } from "./latency.js";
import { Notices } from "./notices.js";
import { Painter } from "./painter.js";
import { PortraitChooser } from "./portrait.js";
import { followStatus } from "./server-status.js";
import { readToken, recall, remember, takeTokenFromAddress } from "./store.js";
import { TimingPanel } from "./timing.js";
import { askForToken } from "./token.js";

const REFRESH_MS = 500;
const CAPTIONS = {
  starting: "Starting", queued: "In line", empty: "No portrait yet", waiting: "Waiting for motion",
  live: "Live", paused: "Paused", ended: "Ended",
};
const RUNNING = ["empty", "waiting", "live", "paused"];

takeTokenFromAddress();
const api = new Api(readToken, askForToken);
const notices = new Notices(byId("notices"));
const timing = new TimingPanel();
const driving = new DrivingChooser({
  onchange: () => app.changeDriving(),
  onloop: () => app.changeLoop(),
  onreplay: () => app.replay(),
});
const app = new App({
  api, notices, driving,
  camera: new Camera(byId("camera-preview")),
  painter: new Painter(byId("result")),
  latency: new LatencyWindow(),
});
app.controls = new ControlsPanel(
  { main: byId("controls"), delay: byId("delay-control") },
  async (changes) => (app.session ? app.guard(app.session.control(changes), "controls") : null),
);
const keep = new KeepPanel(app);
const chooser = new PortraitChooser({
  onchoose: (portrait) => { app.setPortrait(portrait); showStage(document.body.dataset.stage); },
  onother: (file) => driving.takeFile(file.type.startsWith("video/") ? "clip" : "template", file),
});

function showStage(stage) {
  document.body.dataset.stage = stage;
  const running = RUNNING.includes(stage);
  byId("start").disabled = app.isRunning;
  byId("pause").disabled = !running;
  byId("stop").disabled = !app.isRunning;
  for (const id of ["neutral", "clip-replay", "template-replay"]) byId(id).disabled = !running;
  byId("empty").hidden = app.portrait !== null || stage === "live";
  byId("badge").hidden = !(stage in CAPTIONS);
  byId("badge").textContent = stage === "empty" && app.portrait ? "Preparing" : CAPTIONS[stage] ?? "";
  byId("preview-off").hidden = app.camera.stream !== null;
  byId("connection").disabled = app.isRunning;
  keep.showRunning(running);
  if (!running) timing.showServer({});
}

function showState(state) {
  byId("pause").querySelector("span").textContent = state.playing ? "Pause" : "Resume";
  byId("pause").querySelector("use").setAttribute("href", `/static/icons.svg#${state.playing ? "pause" : "play"}`);
  keep.showMotion(state.recording);
}

const start = () => app.start(byId("connection").value);

app.onstage = showStage;
app.onportrait = (portrait) => { chooser.show(portrait); showStage(document.body.dataset.stage); };
app.onstate = showState;
app.onrestart = start;
app.onused = (text) => { byId("connection-used").textContent = text; };
app.onstats = (stats) => { timing.showServer(stats); keep.serverStats = stats; };
app.camera.video.addEventListener("playing", () => { byId("preview-off").hidden = true; });
app.camera.video.addEventListener("emptied", () => { byId("preview-off").hidden = false; });

byId("start").addEventListener("click", start);
byId("pause").addEventListener("click", () => app.togglePlaying());
byId("stop").addEventListener("click", () => app.stop());
byId("neutral").addEventListener("click", () => app.guard(app.session.neutral(), "controls"));
byId("reset").addEventListener("click", () => app.controls.reset());
byId("connection").value = recall("connection") ?? "automatic";
byId("connection").addEventListener("change", () => remember("connection", byId("connection").value));

async function showGallery() {
  const items = await api.json("GET", "/api/gallery");
  const [portraits, clips] = ["portrait", "clip"].map((kind) => items.filter((item) => item.kind === kind));
  for (const item of portraits) chooser.offer(item, await api.blob(`/api/gallery/${encodeURIComponent(item.name)}`));
  for (const item of clips) driving.offer(item);
}

byId("drawn-close").addEventListener("click", () => { byId("drawn").hidden = true; });
byId("drawn-try").addEventListener("click", () => {
  byId("drawn").hidden = true;
  document.querySelector("#gallery button")?.click();
  document.querySelector("#clip-gallery button")?.click();
  start();
});

function toggleFullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else byId("frame").requestFullscreen?.();
}
byId("fullscreen").addEventListener("click", toggleFullScreen);
byId("fullscreen").hidden = !document.fullscreenEnabled;

const KEYS = { " ": () => app.togglePlaying(), s: () => keep.snapshot(), f: toggleFullScreen };
document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  // Where a key already means something (typing, pressing a button), it keeps that meaning.
  const typing = event.target.closest("input:not([type=file]), select, textarea, dialog");
  const pressing = key === " " && event.target.closest("button, summary, input, a");
  if (!(key in KEYS) || typing || pressing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  event.preventDefault();
  KEYS[key]();
});

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const field = byId(button.dataset.copy);
    if (!field.value) return;
    // Without https there is no clipboard for pages: then it is selected, ready for Ctrl+C.
    const copied = await (navigator.clipboard?.writeText(field.value).then(() => true, () => false) ?? false);
    if (!copied) field.select();
    notices.show("copy", copied ? "Copied." : "Selected: press Ctrl+C to copy.", { brief: true });
  });
}

setInterval(() => {
  const summary = app.latency.summary(performance.now());
  timing.showMeasured(summary, app.painter.dropped, app.measuredHow);
  keep.tick(summary.total.p50);
}, REFRESH_MS);

window.addEventListener("pagehide", () => app.stop());

setUpTheme();
setUpConsent();
driving.show(driving.source);
showStage("idle");
const gallery = showGallery().catch((error) => notices.show("gallery", error.message, { kind: "problem" }));
followStatus(api, notices, (status) => {
  app.status = { ...app.status, ...status };
  driving.showAddress(app.session, status.webrtc);
  if (status.state === "ready" && status.drawn_heads_only) gallery.then(() => { byId("drawn").hidden = false; });
});
