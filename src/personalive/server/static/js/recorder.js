// Recording the result: the canvas, and the microphone delayed to match.
const TYPES = [
  "video/mp4;codecs=avc1.42E01F,mp4a.40.2",
  "video/webm;codecs=vp9,opus",
  "video/webm;codecs=vp8,opus",
  "video/webm",
  "video/mp4",
];
const VIDEO_BITS_PER_S = 6_000_000;
const SLICE_MS = 1_000; // the browser may write slices this long to disk while the recording runs
const MAX_DELAY_S = 5;
const DELAY_EASE_S = 0.2; // a delay that jumped would click

/** The microphone, delayed by as much as the result is late. */
export class Sound {
  /** @param {MediaStream} stream of the microphone */
  constructor(stream) {
    this.stream = stream;
    this.context = new AudioContext();
    this.delay = new DelayNode(this.context, { maxDelayTime: MAX_DELAY_S });
    this.output = new MediaStreamAudioDestinationNode(this.context);
    this.context.createMediaStreamSource(stream).connect(this.delay).connect(this.output);
  }

  /**
   * Asks for the microphone.
   * @throws {DOMException}
   */
  static async open() {
    if (!navigator.mediaDevices) throw new DOMException("insecure", "SecurityError");
    return new Sound(await navigator.mediaDevices.getUserMedia({ audio: true, video: false }));
  }

  /** @param {number} ms */
  setDelay(ms) {
    const seconds = Math.min(MAX_DELAY_S, Math.max(0, ms / 1000));
    this.delay.delayTime.setTargetAtTime(seconds, this.context.currentTime, DELAY_EASE_S);
  }

  close() {
    this.stream.getTracks().forEach((track) => track.stop());
    this.context.close();
  }
}

/** A running recording of a canvas. */
export class Recording {
  /** @param {HTMLCanvasElement} canvas @param {Sound|null} sound @param {(video: Blob) => void} onend */
  constructor(canvas, sound, onend) {
    const stream = canvas.captureStream();
    for (const track of sound?.output.stream.getAudioTracks() ?? []) stream.addTrack(track);
    this.recorder = new MediaRecorder(stream, {
      mimeType: TYPES.find((type) => MediaRecorder.isTypeSupported(type)), videoBitsPerSecond: VIDEO_BITS_PER_S,
    });
    /** @type {Blob[]} */ const slices = [];
    this.recorder.ondataavailable = ({ data }) => slices.push(data);
    this.recorder.onstop = () => {
      onend(new Blob(slices, { type: this.recorder.mimeType.split(";")[0] }));
    };
    this.startedMs = performance.now();
    this.recorder.start(SLICE_MS);
  }

  /** The time since its start, as minutes:seconds. */
  elapsed() {
    const seconds = Math.floor((performance.now() - this.startedMs) / 1000);
    return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }

  stop() {
    this.recorder.stop();
    this.recorder.stream.getVideoTracks().forEach((track) => track.stop());
  }
}
