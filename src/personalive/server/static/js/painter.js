// Draws finished frames on the result canvas: the newest on the next animation frame, never one of an older portrait.
/** @import { FrameHeader } from "./wire.js" */

/** @typedef {{header: FrameHeader, bitmap: ImageBitmap|null}} Frame null: could not be decoded, or came too late */

/** A canvas that shows a stream of frames, or a still image while there is none. */
export class Painter {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    /** @type {(Frame & {bitmap: ImageBitmap})|null} */ this.pending = null;
    this.scheduled = false;
    this.held = false; // the canvas keeps its size: frames of another are drawn inside
    this.epoch = 0; // frames that are still being decoded when it changes are never shown
    /** @type {(header: FrameHeader|null, nowMs: number) => void} */ this.ondrawn = () => {};
    /** @type {(header: FrameHeader) => void} */ this.onsettled = () => {}; // shown or dropped: to be acknowledged
    this.generation = 0;
    this.newestIndex = -1;
    this.dropped = 0;
  }

  /** Forgets the stream; the image stays. */
  reset() {
    this.epoch += 1;
    this.generation = 0;
    this.newestIndex = -1;
    this.dropped = 0;
    if (this.pending) this.settle(this.pending);
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
   * Takes a finished frame that arrived.
   * @param {FrameHeader} header
   * @param {Blob} jpeg
   */
  async offer(header, jpeg) {
    const { epoch } = this;
    this.setGeneration(header.generation);
    const bitmap = this.isStale(header) ? null : await createImageBitmap(jpeg).catch(() => null);
    if (epoch !== this.epoch) { bitmap?.close(); return; }
    if (!bitmap || this.isStale(header)) { this.drop({ header, bitmap }); return; }
    this.newestIndex = header.index;
    if (this.pending) this.drop(this.pending);
    this.pending = { header, bitmap };
    this.schedule();
  }

  /** @param {FrameHeader} header */
  isStale(header) {
    return header.generation < this.generation || header.index <= this.newestIndex;
  }

  /** @param {Frame} frame */
  drop(frame) {
    this.dropped += 1;
    this.settle(frame);
    if (frame === this.pending) this.pending = null;
  }

  /** @param {Frame} frame */
  settle(frame) {
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

  /** @param {CanvasImageSource} image @param {number} width @param {number} height */
  paint(image, width, height) {
    if (!this.held) this.resize(width, height);
    const { canvas, context } = this;
    const scale = Math.min(canvas.width / width, canvas.height / height);
    const x = (canvas.width - scale * width) / 2, y = (canvas.height - scale * height) / 2;
    if (x || y) context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, x, y, scale * width, scale * height);
  }

  /** @param {number} width @param {number} height */
  resize(width, height) {
    // Setting a size clears the canvas, so only where it differs.
    if (this.canvas.width === width && this.canvas.height === height) return;
    Object.assign(this.canvas, { width, height });
    this.canvas.parentElement?.style.setProperty("--aspect", String(width / height));
  }

  /**
   * Draws the current frame of a video element (the WebRTC result).
   * @param {HTMLVideoElement} video
   */
  drawVideo(video) {
    this.paint(video, video.videoWidth, video.videoHeight);
    this.ondrawn(null, performance.now());
  }

  /**
   * Draws a still image, cropped to the middle square.
   * @param {ImageBitmap} image
   */
  drawStill(image) {
    const side = Math.min(image.width, image.height);
    const width = Math.max(this.canvas.width, this.canvas.height);
    const height = width;
    this.resize(width, height);
    this.context.clearRect(0, 0, width, height);
    this.context.drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, width, height);
  }

  /** Clears the canvas; frames that arrived before are not shown. */
  clear() {
    this.epoch += 1;
    if (this.pending) this.drop(this.pending);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }
}
