// The user's camera: opening it, explaining what stands in the way, and its frames as JPEGs.

const TARGET_FPS = 30;
const TARGET_WIDTH_PX = 640;
const TARGET_HEIGHT_PX = 480;

/** @type {Record<string, string>} */
const REASONS = {
  NotAllowedError: "The camera is blocked. Allow it in the browser's site settings (the icon beside the address), then start again.",
  SecurityError: "The camera is blocked by the browser's settings. Allow it for this page, then start again.",
  NotFoundError: "No camera was found. Connect one and start again, or drive from a clip.",
  OverconstrainedError: "The chosen camera is no longer connected. Choose another one.",
  NotReadableError: "The camera is in use by another program. Close that program, then start again.",
  AbortError: "The camera could not be started. Try again.",
};

const INSECURE =
  "Browsers give the camera only to pages opened by https or on localhost. Open this page by https, or bring the server to http://localhost with an SSH tunnel (ssh -L).";

/** The reason why there is no camera, as a sentence for the user. */
export class CameraError extends Error {}

/** One camera at a time, shown in a video element. */
export class Camera {
  /** @param {HTMLVideoElement} video */
  constructor(video) {
    this.video = video;
    /** @type {MediaStream|null} */ this.stream = null;
    this.onlost = () => {};
  }

  /**
   * Turns the camera on.
   * @param {string} deviceId "" for the browser's choice
   * @returns {Promise<MediaStream>}
   * @throws {CameraError}
   */
  async open(deviceId) {
    this.close();
    if (!window.isSecureContext || !navigator.mediaDevices) throw new CameraError(INSECURE);
    const video = {
      width: { ideal: TARGET_WIDTH_PX }, height: { ideal: TARGET_HEIGHT_PX }, frameRate: { ideal: TARGET_FPS },
      deviceId: deviceId ? { exact: deviceId } : undefined,
    };
    const stream = await navigator.mediaDevices.getUserMedia({ video, audio: false }).catch((error) => {
      throw new CameraError(REASONS[error.name] ?? `The camera could not be started: ${error.message}`);
    });
    stream.getVideoTracks()[0].addEventListener("ended", () => { this.close(); this.onlost(); });
    this.stream = stream;
    this.video.srcObject = stream;
    await this.video.play().catch(() => {}); // closed again before it began
    return stream;
  }

  /** Turns the camera off. */
  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
  }

  /**
   * All cameras. Their names are known only once the user has allowed one.
   * @returns {Promise<MediaDeviceInfo[]>}
   */
  async list() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter((device) => device.kind === "videoinput" && device.deviceId);
  }
}

const LONG_SIDE_PX = 640;
const JPEG_QUALITY = 0.8;
// At most 30 a second; a little less than 1/30 s, or a 30 fps camera's jitter would cost every other frame.
const MIN_GAP_MS = 28;
const MAX_CAPTURE_AGE_MS = 500;

/** Frames of a video element as JPEGs, one at a time: where the encoder is slow, frames are skipped and none is queued. */
export class Capture {
  /**
   * @param {HTMLVideoElement} video
   * @param {{canSend: () => boolean, onframe: (jpeg: Blob, captureMs: number) => void}} options
   *   times are on performance.now()'s clock
   */
  constructor(video, { canSend, onframe }) {
    this.video = video;
    this.canSend = canSend;
    this.onframe = onframe;
    this.canvas = new OffscreenCanvas(1, 1);
    this.context = /** @type {OffscreenCanvasRenderingContext2D} */ (this.canvas.getContext("2d", { alpha: false }));
    this.lastMs = 0;
    this.busy = false;
    this.running = true;
    this.watchVideo();
    this.ticker = new Worker("/static/js/ticker-worker.js");
    this.ticker.onmessage = () => {
      // While the page is visible, the video itself reports each new frame.
      if (document.hidden || !this.video.requestVideoFrameCallback) this.take(performance.now());
    };
  }

  watchVideo() {
    this.video.requestVideoFrameCallback?.((nowMs, metadata) => {
      if (!this.running) return;
      this.watchVideo();
      const age = nowMs - (metadata.captureTime ?? nowMs);
      // The camera's own time is more exact, where the browser gives it on this clock.
      this.take(age >= 0 && age < MAX_CAPTURE_AGE_MS ? nowMs - age : nowMs);
    });
  }

  /** @param {number} captureMs */
  async take(captureMs) {
    const now = performance.now();
    const { videoWidth, videoHeight } = this.video;
    if (!this.running || this.busy || !videoWidth || now - this.lastMs < MIN_GAP_MS || !this.canSend()) return;
    this.lastMs = now;
    this.busy = true;
    const scale = Math.min(1, LONG_SIDE_PX / Math.max(videoWidth, videoHeight));
    const width = Math.round(videoWidth * scale);
    const height = Math.round(videoHeight * scale);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.context.drawImage(this.video, 0, 0, width, height);
    const jpeg = await this.canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
    this.busy = false;
    if (this.running) this.onframe(jpeg, captureMs);
  }

  stop() {
    this.running = false;
    this.ticker.terminate();
  }
}
