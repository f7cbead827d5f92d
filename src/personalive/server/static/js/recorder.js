// Keeping what is shown: a recording of the canvas, with the microphone delayed to match, and single pictures.
import { download, fileTime } from "./dom.js";

const TYPES = [
  "video/mp4;codecs=avc1.42E01F,mp4a.40.2",
  "video/webm;codecs=vp9,opus",
  "video/webm;codecs=vp8,opus",
  "video/webm",
  "video/mp4",
];
const VIDEO_BITS_PER_S = 6_000_000;
const SLICE_MS = 1_000; // pieces this long may go to disk while the recording runs
const MAX_DELAY_S = 5;
const DELAY_EASE_S = 0.2; // a delay that jumped would click

/** The microphone, delayed by as much as the picture is late. */
export class Sound {
  constructor() {
    this.stream = null;
  }

  get isOn() {
    return this.stream !== null;
  }

  /** Asks for the microphone. */
  async open() {
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: false });
    this.context = new AudioContext();
    this.delay = new DelayNode(this.context, { maxDelayTime: MAX_DELAY_S });
    this.output = new MediaStreamAudioDestinationNode(this.context);
    this.context.createMediaStreamSource(this.stream).connect(this.delay).connect(this.output);
  }

  /** @param {number} ms */
  setDelay(ms) {
    const seconds = Math.min(MAX_DELAY_S, Math.max(0, ms / 1000));
    if (this.isOn) this.delay.delayTime.setTargetAtTime(seconds, this.context.currentTime, DELAY_EASE_S);
  }

  /** The delayed sound, to be recorded. */
  tracks() {
    return this.isOn ? this.output.stream.getAudioTracks() : [];
  }

  close() {
    if (!this.isOn) return;
    this.stream.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.context.close();
  }
}

/** Records a canvas into a file that is downloaded at the end. */
export class Recorder {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.recorder = null;
  }

  get isRecording() {
    return this.recorder !== null;
  }

  /** @param {Sound} sound */
  start(sound) {
    const stream = new MediaStream([...this.canvas.captureStream().getVideoTracks(), ...sound.tracks()]);
    const mimeType = TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    const pieces = [];
    this.recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: VIDEO_BITS_PER_S });
    this.recorder.ondataavailable = ({ data }) => pieces.push(data);
    this.recorder.onstop = () => {
      const type = mimeType.split(";")[0];
      download(new Blob(pieces, { type }), `personalive-${fileTime()}.${type.split("/")[1]}`);
    };
    this.startedMs = performance.now();
    this.recorder.start(SLICE_MS);
  }

  /** How long it has been running, as minutes:seconds. */
  elapsed() {
    const seconds = Math.floor((performance.now() - this.startedMs) / 1000);
    return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }

  /** Ends the recording; the file is downloaded. */
  stop() {
    if (!this.isRecording) return;
    this.recorder.stop();
    this.recorder.stream.getVideoTracks().forEach((track) => track.stop());
    this.recorder = null;
  }
}

/**
 * Downloads the canvas as a PNG.
 * @param {HTMLCanvasElement} canvas
 */
export function snapshot(canvas) {
  canvas.toBlob((png) => { if (png) download(png, `personalive-${fileTime()}.png`); }, "image/png");
}
