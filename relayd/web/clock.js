/**
 * Puts the time of capture into a frame, where decoders pass over it, so that a player can tell how
 * late the picture is.
 */

import { CLOCK_ID, joined } from "./player.js";

/** @typedef {import("./player.js").Bytes} Bytes */

// NAL unit types, ITU-T H.264 table 7-1; the type of a SEI message, D.1.
const NAL_SEI = 6, NAL_DELIMITER = 9;
const USER_DATA_UNREGISTERED = 5;

/**
 * Put a SEI message in front of an access unit, though after its delimiter (ITU-T H.264 annex B).
 *
 * @param {Bytes} unit
 * @param {number} time In ms since the Unix epoch.
 */
export function stampH264(unit, time) {
  const payload = clock(time);
  const STOP_BIT = 0x80;
  const sei = escaped([USER_DATA_UNREGISTERED, payload.length, ...payload, STOP_BIT]);
  const at = afterDelimiter(unit);
  return joined(unit.subarray(0, at), [0, 0, 0, 1, NAL_SEI], sei, unit.subarray(at));
}

/**
 * Put a comment behind a JPEG image's first marker.
 *
 * @param {Bytes} image
 * @param {number} time In ms since the Unix epoch.
 */
export function stampJpeg(image, time) {
  const payload = clock(time);
  const START = 2;
  const comment = [0xff, 0xfe, 0, 2 + payload.length, ...payload];
  return joined(image.subarray(0, START), comment, image.subarray(START));
}

/** @param {number} time */
function clock(time) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(Math.round(time)));
  return [...CLOCK_ID, ...bytes];
}

/**
 * Let nothing in a NAL unit look like a start code (7.4.1).
 *
 * @param {number[]} bytes
 */
function escaped(bytes) {
  const safe = [];
  let zeros = 0;
  for (const byte of bytes) {
    if (zeros === 2 && byte <= 3) {
      safe.push(3);
      zeros = 0;
    }
    safe.push(byte);
    zeros = byte === 0 ? zeros + 1 : 0;
  }
  return safe;
}

/** @param {Bytes} unit */
function afterDelimiter(unit) {
  const first = unit.indexOf(1) + 1;
  if ((unit[first] & 0x1f) !== NAL_DELIMITER) {
    return 0;
  }
  const next = unit.indexOf(1, first); // the delimiter's own byte is 0x10 to 0xf0
  return unit[next - 3] === 0 ? next - 3 : next - 2;
}
