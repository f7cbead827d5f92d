// The timing panel: frames per second, drops, and motion-to-photon with where it goes.
import { byId, element } from "./dom.js";
import { PARTS } from "./latency.js";

const LABELS = { queue: "Queue", window: "Window of frames", compute: "Compute", pace: "Pacing", rest: "Network and browser" };
const round = (value) => (value === null ? "–" : String(Math.round(value)));
const rate = (value) => (value == null ? "–" : `${value.toFixed(1)} /s`);

/** Writes the figures into the panel. */
export class TimingPanel {
  constructor() {
    this.serverParts = {}; // as measured there: known whatever drives, and whatever the connection
    this.bars = {};
    this.cells = {};
    for (const part of PARTS) {
      this.bars[part] = element("i", { data: { part } });
      byId("stages-bar").append(this.bars[part]);
      this.cells[part] = [element("td", { textContent: "–" }), element("td", { textContent: "–" })];
      const name = element("th", { scope: "row", textContent: LABELS[part], data: { part } });
      byId("stages").append(element("tr", {}, name, ...this.cells[part]));
    }
  }

  /**
   * What this page measured.
   * @param {ReturnType<import("./latency.js").LatencyWindow["summary"]>} summary
   * @param {number} droppedHere frames that came but were not drawn
   * @param {string} note how the figures were measured, or why there are none
   */
  showMeasured(summary, droppedHere, note) {
    byId("fps").textContent = summary.fps.toFixed(1);
    byId("latency-p50").textContent = round(summary.total.p50);
    byId("latency-p95").textContent = round(summary.total.p95);
    byId("latency-note").textContent = note;
    byId("drop-client").textContent = droppedHere;
    const parts = summary.total.p50 === null ? this.serverParts : summary.parts;
    for (const part of PARTS) {
      const { p50 = null, p95 = null } = parts[part] ?? {};
      this.bars[part].style.flexGrow = Math.max(0, p50 ?? 0);
      this.cells[part][0].textContent = round(p50);
      this.cells[part][1].textContent = round(p95);
    }
  }

  /** @param {Record<string, any>} stats the server's message `stats` */
  showServer(stats) {
    this.serverParts = stats.latency_ms ?? {};
    byId("server-fps").textContent = rate(stats.frames_per_s);
    byId("camera-fps").textContent = rate(stats.camera_fps);
    byId("drop-driving").textContent = stats.dropped_driving ?? 0;
    byId("drop-viewer").textContent = stats.dropped_viewer ?? 0;
    byId("floor").textContent = stats.floor_ms
      ? `The window of frames alone costs ${Math.round(stats.floor_ms)} ms at this rate: no connection and no device gets below that.`
      : "";
  }
}
