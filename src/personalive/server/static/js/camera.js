// The person's camera: asking for it, naming what stands in the way, letting go of it.

const WANTED_FPS = 30;
const WANTED_WIDTH_PX = 640;
const WANTED_HEIGHT_PX = 480;

const REASONS = {
  NotAllowedError: "The camera is blocked. Allow it in the browser's site settings (the icon beside the address), then start again.",
  SecurityError: "The camera is blocked by the browser's settings. Allow it for this page, then start again.",
  NotFoundError: "No camera was found. Connect one and start again, or drive from a clip.",
  OverconstrainedError: "The chosen camera is not there any more. Choose another one.",
  NotReadableError: "The camera is in use by another program. Close that program, then start again.",
  AbortError: "The camera could not be started. Try again.",
};

const INSECURE =
  "Browsers give the camera only to pages opened by https or on localhost. Open this page by https, or bring the server to http://localhost with an SSH tunnel (ssh -L).";

/** Why there is no camera, in words for a person. */
export class CameraError extends Error {}

/** One camera at a time, shown in a video element. */
export class Camera {
  /** @param {HTMLVideoElement} video */
  constructor(video) {
    this.video = video;
    this.stream = null;
    this.onlost = () => {};
  }

  /**
   * Turns the camera on.
   * @param {string} deviceId "" for the one the browser prefers
   * @returns {Promise<MediaStream>}
   * @throws {CameraError}
   */
  async open(deviceId) {
    this.close();
    if (!window.isSecureContext || !navigator.mediaDevices) throw new CameraError(INSECURE);
    const video = { width: { ideal: WANTED_WIDTH_PX }, height: { ideal: WANTED_HEIGHT_PX }, frameRate: { ideal: WANTED_FPS } };
    if (deviceId) video.deviceId = { exact: deviceId };
    const stream = await navigator.mediaDevices.getUserMedia({ video, audio: false }).catch((error) => {
      throw new CameraError(REASONS[error.name] ?? `The camera could not be started: ${error.message}`);
    });
    stream.getVideoTracks()[0].addEventListener("ended", () => { this.close(); this.onlost(); });
    this.stream = stream;
    this.video.srcObject = stream;
    await this.video.play().catch(() => {}); // closed again before it could begin
    return stream;
  }

  /** Lets go of the camera: its light goes off. */
  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
  }

  /**
   * The cameras there are. Names are known only once the person has allowed one.
   * @returns {Promise<MediaDeviceInfo[]>}
   */
  async list() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter((device) => device.kind === "videoinput" && device.deviceId);
  }
}
