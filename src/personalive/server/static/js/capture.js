// Takes pictures from the camera's video element and turns them into JPEGs, one at a time: a slow encoder skips, never queues.

const LONG_SIDE_PX = 640;
const JPEG_QUALITY = 0.8;
// At most 30 a second; a little less than 1/30 s, or a 30 fps camera's jitter would cost every other frame.
const MIN_GAP_MS = 28;
const MAX_CAPTURE_AGE_MS = 500;

function makeCanvas() {
  if (typeof OffscreenCanvas === "function") return new OffscreenCanvas(1, 1);
  const canvas = document.createElement("canvas");
  canvas.convertToBlob = ({ type, quality }) =>
    new Promise((resolve) => { canvas.toBlob(resolve, type, quality); });
  return canvas;
}

/** A running capture of one video element. */
export class Capture {
  /**
   * @param {HTMLVideoElement} video
   * @param {{ready: () => boolean, onframe: (jpeg: Blob, captureMs: number) => void}} options
   *   `ready` says whether a frame could be sent now; times are on performance.now()'s clock
   */
  constructor(video, { ready, onframe }) {
    this.video = video;
    this.ready = ready;
    this.onframe = onframe;
    this.canvas = makeCanvas();
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.lastMs = 0;
    this.busy = false;
    this.running = true;
    this.watchVideo();
    this.ticker = new Worker("/static/js/ticker-worker.js");
    this.ticker.onmessage = () => {
      // While the page is seen, the video itself says when a new picture is there.
      if (document.hidden || !this.video.requestVideoFrameCallback) this.take(performance.now());
    };
  }

  watchVideo() {
    this.video.requestVideoFrameCallback?.((nowMs, metadata) => {
      if (!this.running) return;
      this.watchVideo();
      const age = nowMs - (metadata.captureTime ?? nowMs);
      // The camera's own time is the more honest one, where the browser gives it on this clock.
      this.take(age >= 0 && age < MAX_CAPTURE_AGE_MS ? nowMs - age : nowMs);
    });
  }

  async take(captureMs) {
    const now = performance.now();
    const { videoWidth, videoHeight } = this.video;
    if (!this.running || this.busy || !videoWidth || now - this.lastMs < MIN_GAP_MS || !this.ready()) return;
    this.lastMs = now;
    this.busy = true;
    const scale = Math.min(1, LONG_SIDE_PX / Math.max(videoWidth, videoHeight));
    const width = Math.round(videoWidth * scale);
    const height = Math.round(videoHeight * scale);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.context.drawImage(this.video, 0, 0, width, height);
    const jpeg = await this.canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
    this.busy = false;
    if (this.running && jpeg) this.onframe(jpeg, captureMs);
  }

  stop() {
    this.running = false;
    this.ticker.terminate();
  }
}
