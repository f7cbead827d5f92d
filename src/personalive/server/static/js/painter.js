// Draws finished frames on the result canvas: the newest on the next animation frame, never one of an older portrait.

/** A canvas that shows a stream of frames, or a still picture while there is none. */
export class Painter {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.pending = null;
    this.scheduled = false;
    this.era = 0; // frames that are still being read when it changes are never shown
    this.ondrawn = (_header, _nowMs) => {};
    this.onsettled = (_header) => {}; // shown or dropped: to be acknowledged
    this.reset();
  }

  /** Forgets the stream; the picture stays. */
  reset() {
    this.era += 1;
    this.generation = 0;
    this.newestIndex = -1;
    this.dropped = 0;
    this.settle(this.pending);
    this.pending = null;
  }

  /**
   * From now on frames of an older portrait are dropped.
   * @param {number} generation
   */
  setGeneration(generation) {
    if (generation <= this.generation) return;
    this.generation = generation;
    if (this.pending) this.drop(this.pending);
  }

  /**
   * A finished frame came in.
   * @param {import("./wire.js").FrameHeader} header
   * @param {Blob} jpeg
   */
  async offer(header, jpeg) {
    const { era } = this;
    this.setGeneration(header.generation);
    const bitmap = this.isStale(header) ? null : await createImageBitmap(jpeg).catch(() => null);
    if (era !== this.era) { bitmap?.close(); return; }
    const frame = { header, bitmap };
    if (!bitmap || this.isStale(header)) { this.drop(frame); return; }
    this.newestIndex = header.index;
    if (this.pending) this.drop(this.pending);
    this.pending = frame;
    this.schedule();
  }

  isStale(header) {
    return header.generation < this.generation || header.index <= this.newestIndex;
  }

  drop(frame) {
    this.dropped += 1;
    this.settle(frame);
    if (frame === this.pending) this.pending = null;
  }

  settle(frame) {
    if (!frame) return;
    frame.bitmap?.close();
    this.onsettled(frame.header);
  }

  schedule() {
    // A hidden page gets no animation frames, yet a recording or a captured window goes on.
    if (document.hidden) { this.draw(); return; }
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => { this.scheduled = false; this.draw(); });
  }

  draw() {
    const frame = this.pending;
    if (!frame) return;
    this.pending = null;
    this.paint(frame.bitmap, frame.bitmap.width, frame.bitmap.height);
    this.ondrawn(frame.header, performance.now());
    this.settle(frame);
  }

  paint(image, width, height) {
    // Setting a size clears the canvas, so only where it differs.
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.context.drawImage(image, 0, 0, width, height);
  }

  /**
   * Draws the current picture of a video element (the WebRTC result).
   * @param {HTMLVideoElement} video
   */
  drawVideo(video) {
    this.paint(video, video.videoWidth, video.videoHeight);
    this.ondrawn(null, performance.now());
  }

  /**
   * A still picture, cropped to the middle square.
   * @param {ImageBitmap} picture
   */
  still(picture) {
    const side = Math.min(picture.width, picture.height);
    const { width, height } = this.canvas;
    this.context.clearRect(0, 0, width, height);
    this.context.drawImage(picture, (picture.width - side) / 2, (picture.height - side) / 2, side, side, 0, 0, width, height);
  }

  /** Nothing is shown, and nothing that came before. */
  clear() {
    this.era += 1;
    if (this.pending) this.drop(this.pending);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }
}
