// The binary messages of docs/protocol.md: the driving frame up, the finished frame down. Little-endian throughout.

const MAGIC = 0x4c50; // "PL"
const VERSION = 1;
const KIND_DRIVING = 1;
const KIND_FINISHED = 2;
const DRIVING_HEADER_BYTES = 16;
const FINISHED_HEADER_BYTES = 40;

/**
 * @typedef {object} FrameHeader
 * @property {number} sequence of the driving frame shown; 0 for ease-in frames
 * @property {number} captureUs that frame's capture time on this page's clock; 0 for ease-in frames
 * @property {number} generation grows with every portrait
 * @property {number} index of the frame in the session
 * @property {{queue: number, window: number, compute: number, pace: number}} stagesMs
 */

/**
 * A driving frame, ready to send.
 * @param {number} sequence
 * @param {number} captureUs
 * @param {Blob} jpeg
 * @returns {Blob}
 */
export function packDriving(sequence, captureUs, jpeg) {
  const view = new DataView(new ArrayBuffer(DRIVING_HEADER_BYTES));
  view.setUint16(0, MAGIC, true);
  view.setUint8(2, VERSION);
  view.setUint8(3, KIND_DRIVING);
  view.setUint32(4, sequence, true);
  view.setBigUint64(8, BigInt(Math.round(captureUs)), true);
  return new Blob([view.buffer, jpeg]);
}

/**
 * Takes a finished frame apart; null where the message is something else.
 * @param {ArrayBuffer} message
 * @returns {{header: FrameHeader, jpeg: Blob}|null}
 */
export function unpackFinished(message) {
  if (message.byteLength <= FINISHED_HEADER_BYTES) return null;
  const view = new DataView(message);
  if (view.getUint16(0, true) !== MAGIC || view.getUint8(2) !== VERSION || view.getUint8(3) !== KIND_FINISHED) return null;
  const header = {
    sequence: view.getUint32(4, true),
    captureUs: Number(view.getBigUint64(8, true)),
    generation: view.getUint32(16, true),
    index: view.getUint32(20, true),
    stagesMs: {
      queue: view.getFloat32(24, true),
      window: view.getFloat32(28, true),
      compute: view.getFloat32(32, true),
      pace: view.getFloat32(36, true),
    },
  };
  return { header, jpeg: new Blob([new Uint8Array(message, FINISHED_HEADER_BYTES)], { type: "image/jpeg" }) };
}
