// The timing panel: frames per second, dropped frames, and motion-to-photon latency with its parts.
import { byId, element } from "./dom.js";
/** @import { Percentiles, Stats } from "./api.js" */
/** @import { FrameHeader } from "./wire.js" */

const SPAN_S = 10;
const RATE_SPAN_S = 2;
/** The parts of the latency, in the order in which a frame passes them. @type {Record<string, string>} */
const LABELS = { queue: "Queue", window: "Window of frames", compute: "Compute", pace: "Pacing", rest: "Network and browser" };
const PARTS = Object.keys(LABELS);

const MEASURED = `Motion to photon, measured end to end over the last ${SPAN_S} s.`;
const NOT_WEBRTC = "Motion to photon is measured on the WebSocket connection only; the stages are those of the server.";
const NOT_CAMERA = "Motion to photon is measured with this page's camera only; the stages are those of the server.";

const round = (/** @type {number|null} */ value) => (value === null ? "–" : String(Math.round(value)));

/** @param {number|null} [value] */
const rate = (value) => (value == null ? "–" : `${value.toFixed(1)} /s`);

/**
 * Medians and 95th percentiles (nearest rank).
 * @param {number[]} values
 * @returns {Percentiles}
 */
function percentiles(values) {
  const sorted = values.sort((a, b) => a - b);
  const at = (/** @type {number} */ share) => sorted[Math.ceil(share * sorted.length) - 1] ?? null;
  return { p50: at(0.5), p95: at(0.95) };
}

/** Frames drawn in the last seconds, and their latencies. */
export class LatencyWindow {
  constructor() {
    this.clear();
  }

  clear() {
    /** @type {number[]} */ this.drawn = [];
    /** @type {({nowMs: number, total: number} & Record<string, number>)[]} */ this.samples = [];
  }

  /**
   * Adds a frame that was drawn.
   * @param {number} nowMs
   * @param {FrameHeader|null} header null, or capture time 0: counted for the rate only
   */
  add(nowMs, header) {
    this.drawn.push(nowMs);
    if (!header?.captureUs) return;
    const total = nowMs - header.captureUs / 1000;
    const { queue, window, compute, pace } = header.stagesMs;
    this.samples.push({ nowMs, total, queue, window, compute, pace, rest: total - queue - window - compute - pace });
  }

  /** @param {number} nowMs */
  summary(nowMs) {
    this.drawn = this.drawn.filter((at) => nowMs - at < RATE_SPAN_S * 1000);
    this.samples = this.samples.filter((sample) => nowMs - sample.nowMs < SPAN_S * 1000);
    const of = (/** @type {string} */ part) => percentiles(this.samples.map((sample) => sample[part]));
    return {
      fps: this.drawn.length / RATE_SPAN_S,
      total: of("total"),
      parts: Object.fromEntries(PARTS.map((part) => [part, of(part)])),
    };
  }
}

/** Writes the measurements into the panel. */
export class TimingPanel {
  constructor() {
    /** @type {Record<string, Percentiles>} */
    this.serverParts = {}; // measured there: known whatever drives, and whatever the connection
    this.rows = PARTS.map((part) => {
      const bar = element("i", { data: { part } });
      const cells = [element("td", { textContent: "–" }), element("td", { textContent: "–" })];
      byId("stages-bar").append(bar);
      byId("stages").append(element("tr", {}, element("th", { scope: "row", textContent: LABELS[part], data: { part } }), ...cells));
      return { part, bar, cells };
    });
  }

  /**
   * Shows what this page measured.
   * @param {ReturnType<LatencyWindow["summary"]>} summary
   * @param {number} dropped frames that arrived but were not drawn
   * @param {{webrtc: boolean, camera: boolean}} by the transport, and the driver
   */
  showMeasured(summary, dropped, { webrtc, camera }) {
    byId("fps").textContent = summary.fps.toFixed(1);
    byId("latency-p50").textContent = round(summary.total.p50);
    byId("latency-p95").textContent = round(summary.total.p95);
    byId("latency-note").textContent = webrtc ? NOT_WEBRTC : camera ? MEASURED : NOT_CAMERA;
    byId("drop-client").textContent = String(dropped);
    const parts = summary.total.p50 === null ? this.serverParts : summary.parts;
    for (const { part, bar, cells } of this.rows) {
      const { p50 = null, p95 = null } = parts[part] ?? {};
      bar.style.flexGrow = String(Math.max(0, p50 ?? 0));
      cells[0].textContent = round(p50);
      cells[1].textContent = round(p95);
    }
  }

  /** @param {Stats} stats the server's */
  showServer(stats) {
    this.serverParts = stats.latency_ms ?? {};
    byId("server-fps").textContent = rate(stats.frames_per_s);
    byId("camera-fps").textContent = rate(stats.camera_fps);
    byId("drop-driving").textContent = String(stats.dropped_driving ?? 0);
    byId("drop-viewer").textContent = String(stats.dropped_viewer ?? 0);
    byId("floor").textContent = stats.floor_ms
      ? `The window of frames alone costs ${Math.round(stats.floor_ms)} ms at this rate: no connection and no device gets below that.`
      : "";
  }
}
