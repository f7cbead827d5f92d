// Rolling figures of what was drawn: motion-to-photon with its parts, and frames per second. Pure: the clock is passed in.

const SPAN_MS = 10_000;
const RATE_SPAN_MS = 2_000;

/** The parts of motion-to-photon, in the order in which a frame passes them; `rest` is network and browser. */
export const PARTS = ["queue", "window", "compute", "pace", "rest"];

/**
 * The value below which a share of the sorted values lies (nearest rank).
 * @param {number[]} sorted
 * @param {number} share 0..1
 * @returns {number|null}
 */
export function percentile(sorted, share) {
  if (!sorted.length) return null;
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))];
}

function spread(values) {
  const sorted = values.sort((a, b) => a - b);
  return { p50: percentile(sorted, 0.5), p95: percentile(sorted, 0.95) };
}

/** What was drawn in the last ten seconds. */
export class LatencyWindow {
  constructor() {
    this.clear();
  }

  clear() {
    this.drawn = [];
    this.samples = [];
  }

  /**
   * One frame was drawn.
   * @param {number} nowMs
   * @param {import("./wire.js").FrameHeader|null} header null, or capture time 0: counted for the rate only
   */
  add(nowMs, header) {
    this.drawn.push(nowMs);
    if (!header?.captureUs) return;
    const total = nowMs - header.captureUs / 1000;
    const { queue, window, compute, pace } = header.stagesMs;
    this.samples.push({ nowMs, total, queue, window, compute, pace, rest: total - queue - window - compute - pace });
  }

  /**
   * @param {number} nowMs
   * @returns {{fps: number, total: {p50: number|null, p95: number|null}, parts: Record<string, {p50: number|null, p95: number|null}>}}
   */
  summary(nowMs) {
    this.drawn = this.drawn.filter((at) => nowMs - at < RATE_SPAN_MS);
    this.samples = this.samples.filter((sample) => nowMs - sample.nowMs < SPAN_MS);
    const of = (part) => spread(this.samples.map((sample) => sample[part]));
    return {
      fps: (this.drawn.length * 1000) / RATE_SPAN_MS,
      total: of("total"),
      parts: Object.fromEntries(PARTS.map((part) => [part, of(part)])),
    };
  }
}
