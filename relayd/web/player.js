/**
 * `<relayd-player src="wss://host/ws/view/ID" autoplay>`: shows a live stream of relayd.
 *
 * One module without dependencies, for any front end. The parts, from the bytes up: kinds of video,
 * decoders, the subscription to a stream, the element.
 */

// Kinds of video ------------------------------------------------------------------------------

/** @typedef {Uint8Array<ArrayBuffer>} Bytes */

/**
 * What a message of a stream is.
 *
 * `key`: a picture that needs none before it. `delta`: one that does. `config`: parameters for the
 * pictures that follow. `none`: nothing that this kind of video has, so something was lost.
 *
 * @typedef {object} Inspected
 * @property {"key" | "delta" | "config" | "none"} type
 * @property {string} [codec] The codec string of WebCodecs, where the message tells it.
 * @property {Bytes} [config] The parameters that the message holds.
 * @property {number} [clock] When it was captured, in ms since the Unix epoch, if it tells.
 */

/**
 * What a streamer says of its video in `register`; nothing in it can be relied on.
 *
 * @typedef {{codec?: unknown, width?: unknown, height?: unknown}} Format
 */

/**
 * @typedef {object} Kind
 * @property {string} name
 * @property {(data: Bytes) => boolean} begins Whether data is of this kind, beyond doubt.
 * @property {RegExp} named What `codec` in a format looks like.
 * @property {(data: Bytes) => Inspected} inspect
 * @property {(kind: Kind, format: Format, sink: Sink) => Decoder | null} open Null: in vain.
 * @property {string} [codec] The codec string of WebCodecs, where the video does not tell.
 */

/**
 * Marks the capture time in a frame: UUID of a H.264 SEI message, or start of a JPEG comment. Eight
 * bytes follow, a big-endian number of ms since the Unix epoch.
 */
export const CLOCK_ID = new TextEncoder().encode("relaydLag clock1");
const CLOCK_SIZE = CLOCK_ID.length + 8;

/** @param {Bytes} data @param {number[]} bytes @param {number} [at] */
function hasAt(data, bytes, at = 0) {
  return bytes.every((byte, index) => data[at + index] === byte);
}

/** @param {Bytes} data @param {number} at Where CLOCK_ID should be. */
function readClock(data, at) {
  if (data.length < at + CLOCK_SIZE || CLOCK_ID.some((byte, i) => data[at + i] !== byte)) {
    return undefined;
  }
  const view = new DataView(data.buffer, data.byteOffset + at + CLOCK_ID.length, 8);
  return Number(view.getBigUint64(0));
}

/** @param {...(Bytes | number[])} parts */
export function joined(...parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

// NAL unit types, ITU-T H.264 table 7-1.
const NAL_IDR = 5, NAL_SEI = 6, NAL_SPS = 7, NAL_PPS = 8;

/**
 * Yield the NAL units of an access unit (ITU-T H.264 annex B): from the start code to the next one.
 *
 * @param {Bytes} data
 * @returns {Generator<{start: number, payload: number, end: number}>}
 */
function* nalUnits(data) {
  let unit = null;
  let at = 0;
  while ((at = data.indexOf(1, at)) >= 0) {
    if (at >= 2 && data[at - 1] === 0 && data[at - 2] === 0) {
      const start = data[at - 3] === 0 ? at - 3 : at - 2;
      if (unit) {
        yield { ...unit, end: start };
      }
      unit = { start, payload: at + 1 };
      if (at + 1 < data.length && isSlice(data[at + 1])) {
        break; // what follows are more slices, and long
      }
    }
    at += 1;
  }
  if (unit) {
    yield { ...unit, end: data.length };
  }
}

/** @param {number} header */
function isSlice(header) {
  return (header & 0x1f) >= 1 && (header & 0x1f) <= NAL_IDR;
}

/** @param {Bytes} sei A SEI NAL unit without its start code; its first message is looked at. */
function seiClock(sei) {
  const HEAD = 3; // NAL header, type 5 (user_data_unregistered, D.1.7), size
  if (sei[1] !== 5 || sei[2] < CLOCK_SIZE) {
    return undefined;
  }
  // Emulation prevention (7.4.1): 0 0 3 stands for 0 0.
  const bytes = [];
  for (let at = 0, zeros = 0; at < sei.length && bytes.length < HEAD + CLOCK_SIZE; at++) {
    if (zeros >= 2 && sei[at] === 3) {
      zeros = 0;
      continue;
    }
    zeros = sei[at] === 0 ? zeros + 1 : 0;
    bytes.push(sei[at]);
  }
  return readClock(new Uint8Array(bytes), HEAD);
}

/** @type {Kind["inspect"]} */
function inspectH264(data) {
  /** @type {Inspected} */
  const found = { type: "none" };
  const parameters = [];
  for (const { start, payload, end } of nalUnits(data)) {
    const type = data[payload] & 0x1f;
    if (isSlice(data[payload])) {
      found.type = type === NAL_IDR ? "key" : "delta";
      break;
    }
    if (type === NAL_SEI) {
      found.clock ??= seiClock(data.subarray(payload, end));
    } else if (type === NAL_SPS || type === NAL_PPS) {
      parameters.push(data.subarray(start, end));
    }
    if (type === NAL_SPS && payload + 3 < end) {
      const profile = [...data.subarray(payload + 1, payload + 4)];
      found.codec = "avc1." + profile.map((byte) => byte.toString(16).padStart(2, "0")).join("");
    }
  }
  if (parameters.length) {
    found.config = joined(...parameters);
    found.type = found.type === "none" ? "config" : found.type;
  }
  return found;
}

/** @type {Kind["begins"]} */
function beginsVp8(data) {
  return !(data[0] & 1) && hasAt(data, [0x9d, 0x01, 0x2a], 3); // RFC 6386 section 9.1
}

/** @type {Kind["inspect"]} */
function inspectVp8(data) {
  const isDelta = data.length > 3 && data[0] & 1 && ((data[0] >> 1) & 7) <= 3; // version 0 to 3
  return { type: beginsVp8(data) ? "key" : isDelta ? "delta" : "none" };
}

/** @type {Kind["inspect"]} */
function inspectVp9(data) {
  if (data[0] >> 6 !== 2) {
    return { type: "none" };
  }
  // VP9 bitstream specification 6.2: two bits of the profile, and one more if it is 3.
  const profile = ((data[0] >> 5) & 1) | ((data[0] >> 3) & 2);
  const bits = (data[0] << (profile === 3 ? 1 : 0)) & 0x0c; // show_existing_frame, frame_type
  const depth = profile >= 2 ? "10" : "08";
  return bits === 0
    ? { type: "key", codec: `vp09.0${profile}.10.${depth}` }
    : { type: "delta" };
}

/** @type {Kind["inspect"]} */
function inspectAv1(data) {
  // AV1 bitstream specification 5.3: OBUs; a sequence header (1) is in each random access point.
  let hasSequence = false;
  for (let at = 0; at < data.length && !(data[at] & 0x80); ) {
    const type = (data[at] >> 3) & 15;
    if (type === 3 || type === 6) {
      return { type: hasSequence ? "key" : "delta" };
    }
    const hasSize = data[at] & 2;
    at += data[at] & 4 ? 2 : 1;
    let size = 0;
    for (let shift = 0; hasSize && shift < 28; shift += 7) {
      size |= (data[at] & 0x7f) << shift;
      if (!(data[at++] & 0x80)) {
        break;
      }
    }
    if (type === 1) {
      hasSequence = true;
    }
    at = hasSize ? at + size : data.length;
  }
  return { type: hasSequence ? "config" : "none" };
}

/** @type {Kind["inspect"]} */
function inspectJpeg(data) {
  const COMMENT = [0xff, 0xfe, 0, 2 + CLOCK_SIZE];
  return { type: "key", clock: hasAt(data, COMMENT, 2) ? readClock(data, 6) : undefined };
}

/** @type {Kind["begins"]} */
function beginsAnnexB(data) {
  return hasAt(data, [0, 0, 1]) || hasAt(data, [0, 0, 0, 1]);
}

/** @type {Kind["begins"]} */
function beginsH265(data) {
  // A NAL unit header has two bytes: VPS, SPS, PPS or delimiter (ITU-T H.265 table 7-1).
  const header = data.indexOf(1) + 1;
  return beginsAnnexB(data) && [0x40, 0x42, 0x44, 0x46].includes(data[header]) &&
    data[header + 1] === 1;
}

const inspectWhole = () => /** @type {Inspected} */ ({ type: "key" });

/** @type {Kind["open"]} */
const openImages = (kind, format, sink) => new ImageTrack(kind, sink);

/** @type {Kind["open"]} */
const openVideo = (kind, format, sink) =>
  typeof VideoDecoder === "undefined" ? null : new VideoTrack(kind, sink);

/** The order matters: H.265 looks like H.264 at first. @type {Kind[]} */
const KINDS = [
  {
    name: "JPEG",
    begins: (data) => hasAt(data, [0xff, 0xd8, 0xff]),
    named: /^(image\/)?m?jpe?g$/i,
    inspect: inspectJpeg,
    open: openImages,
  },
  {
    name: "PNG",
    begins: (data) => hasAt(data, [0x89, 0x50, 0x4e, 0x47]),
    named: /^(image\/)?png$/i,
    inspect: inspectWhole,
    open: openImages,
  },
  {
    name: "WebP",
    begins: (data) =>
      hasAt(data, [0x52, 0x49, 0x46, 0x46]) && hasAt(data, [0x57, 0x45, 0x42, 0x50], 8),
    named: /^(image\/)?webp$/i,
    inspect: inspectWhole,
    open: openImages,
  },
  {
    name: "H.265",
    begins: beginsH265,
    named: /^(hvc1|hev1|hevc|h\.?265)/i,
    inspect: inspectWhole,
    open: () => null,
  },
  {
    name: "H.264",
    begins: beginsAnnexB,
    named: /^(avc[13]|h\.?264)/i,
    inspect: inspectH264,
    open: openVideo,
    codec: "avc1.42E01F",
  },
  {
    name: "VP8",
    begins: beginsVp8,
    named: /^vp0?8/i,
    inspect: inspectVp8,
    open: openVideo,
    codec: "vp8",
  },
  {
    name: "VP9",
    begins: (data) => inspectVp9(data).type === "key" && hasAt(data, [0x49, 0x83, 0x42], 1),
    named: /^vp0?9/i,
    inspect: inspectVp9,
    open: openVideo,
    codec: "vp09.00.10.08",
  },
  {
    name: "AV1",
    begins: (data) => hasAt(data, [0x12, 0x00]),
    named: /^av0?1/i,
    inspect: inspectAv1,
    open: openVideo,
    codec: "av01.0.04M.08",
  },
];

/** Pixels without a header: nothing but the format tells. @type {Kind} */
const RGBA = {
  name: "RGBA",
  begins: () => false,
  named: /^(raw|rgba)$/i,
  inspect: inspectWhole,
  open: (kind, format, sink) => new RawTrack(format, sink),
};

/** @param {Format} format @returns {Kind | undefined} */
function kindNamed(format) {
  const { codec } = format;
  return typeof codec === "string"
    ? [...KINDS, RGBA].find((kind) => kind.named.test(codec))
    : undefined;
}

// Decoders ------------------------------------------------------------------------------------

/**
 * A decoder's picture, valid while `draw` runs.
 *
 * @typedef {object} Picture
 * @property {CanvasImageSource | ImageData} source
 * @property {number} width
 * @property {number} height
 * @property {number} [clock]
 */

/**
 * @typedef {object} Sink What a decoder has to say.
 * @property {(picture: Picture) => void} draw
 * @property {(reason: Error) => void} unsupported
 */

/**
 * @typedef {object} Decoder
 * @property {string} codec
 * @property {(data: Bytes) => boolean} push Takes a message; whether it should give a picture.
 * @property {() => void} gap Says that messages were lost.
 * @property {() => void} close
 */

/** Decodes images that stand for themselves; only the newest one counts. @implements {Decoder} */
class ImageTrack {
  /** @type {Bytes | null} */
  #next = null;
  #isBusy = false;
  #isClosed = false;
  #kind;
  #sink;

  /** @param {Kind} kind @param {Sink} sink */
  constructor(kind, sink) {
    this.#kind = kind;
    this.#sink = sink;
  }

  get codec() {
    return this.#kind.name;
  }

  /** @param {Bytes} data */
  push(data) {
    this.#next = data;
    if (!this.#isBusy) {
      this.#decode();
    }
    return true;
  }

  gap() {}

  close() {
    this.#isClosed = true;
    this.#next = null;
  }

  async #decode() {
    this.#isBusy = true;
    while (this.#next) {
      const data = this.#next;
      this.#next = null;
      const bitmap = await createImageBitmap(new Blob([data])).catch(() => null); // or garbage
      if (bitmap && !this.#isClosed) {
        const { width, height } = bitmap;
        this.#sink.draw({ source: bitmap, width, height, clock: this.#kind.inspect(data).clock });
      }
      bitmap?.close();
    }
    this.#isBusy = false;
  }
}

/** Shows raw pixels, four bytes each. @implements {Decoder} */
class RawTrack {
  codec = RGBA.name;
  #width;
  #height;
  #sink;

  /** @param {Format} format @param {Sink} sink */
  constructor(format, sink) {
    this.#width = Number(format.width);
    this.#height = Number(format.height);
    this.#sink = sink;
  }

  /** @param {Bytes} data */
  push(data) {
    const [width, height] = [this.#width, this.#height];
    if (data.length && data.length === width * height * 4) {
      const pixels = new Uint8ClampedArray(data.buffer, data.byteOffset, data.length);
      this.#sink.draw({ source: new ImageData(pixels, width, height), width, height });
    }
    return true;
  }

  gap() {}

  close() {}
}

/** Most chunks that wait inside of the decoder: enough to keep it busy, few enough to take back. */
const DECODE_QUEUE = 4;

/** From so many frames that wait on, a keyframe takes their place. */
const LATE_FRAMES = 5;

/** Ms that a frame may wait for the decoder before all that wait are given up. */
const DECODE_PATIENCE = 3000;

/** Ms between two pictures that are drawn while more wait: nobody needs to see the past go by. */
const CATCH_UP_INTERVAL = 250;

/**
 * Decodes video by WebCodecs, beginning with a keyframe, and catches up when frames wait.
 *
 * @implements {Decoder}
 */
class VideoTrack {
  /** @type {{data: Bytes, isKey: boolean, clock?: number, at: number}[]} */
  #waiting = [];
  /** @type {Map<number, number | undefined>} */
  #clocks = new Map();
  /** @type {VideoDecoder | null} */
  #decoder = null;
  /** @type {Bytes[]} */
  #config = [];
  #awaitsKey = true;
  #count = 0;
  #drawnAt = -Infinity;
  #kind;
  #codec = "";
  #configured = "";
  #sink;

  /** @param {Kind} kind @param {Sink} sink */
  constructor(kind, sink) {
    this.#kind = kind;
    this.#sink = sink;
    this.#codec = kind.codec ?? "";
  }

  get codec() {
    return this.#codec;
  }

  /** @param {Bytes} data */
  push(data) {
    const { type, codec, config, clock } = this.#kind.inspect(data);
    this.#codec = codec ?? this.#codec;
    const known = this.#config;
    if (config) { // a PPS may come after its SPS, in a message of its own
      this.#config = codec ? [config] : [...known.slice(0, 1), config];
    }
    if (type === "config") {
      return false;
    }
    if (type === "none") {
      this.gap();
    }
    const isKey = type === "key";
    if (isKey) {
      this.#awaitsKey = false;
      if (this.#waiting.length >= LATE_FRAMES) {
        this.#waiting = [];
      }
    }
    if (!this.#awaitsKey) {
      // A decoder wants the parameters in the same chunk as the keyframe.
      const whole = isKey && !codec && known.length ? joined(...known, data) : data;
      this.#waiting.push({ data: whole, isKey, clock, at: performance.now() });
      this.#feed();
    }
    return true;
  }

  gap() {
    this.#awaitsKey = true;
  }

  close() {
    this.#waiting = [];
    this.#discard();
  }

  #feed() {
    if (this.#waiting.length && performance.now() - this.#waiting[0].at > DECODE_PATIENCE) {
      this.#waiting = [];
      this.gap();
    }
    while ((this.#decoder?.decodeQueueSize ?? 0) < DECODE_QUEUE) {
      const frame = this.#waiting.shift();
      if (!frame) {
        break;
      }
      this.#decode(frame);
    }
  }

  /** @param {{data: Bytes, isKey: boolean, clock?: number}} frame */
  #decode({ data, isKey, clock }) {
    try {
      if (isKey && (!this.#decoder || this.#configured !== this.#codec)) {
        this.#configure();
      }
      const timestamp = ++this.#count;
      const chunk = new EncodedVideoChunk({ type: isKey ? "key" : "delta", timestamp, data });
      this.#decoder?.decode(chunk);
      this.#clocks.set(timestamp, clock);
    } catch (error) {
      this.#fail(/** @type {Error} */ (error));
    }
  }

  #configure() {
    this.#decoder ??= this.#create();
    this.#decoder.configure({ codec: this.#codec, optimizeForLatency: true });
    this.#configured = this.#codec;
  }

  #create() {
    const decoder = new VideoDecoder({
      output: (frame) => this.#take(frame),
      error: (error) => {
        if (this.#decoder === decoder) {
          this.#fail(error);
        }
      },
    });
    decoder.addEventListener("dequeue", () => this.#feed());
    return decoder;
  }

  /** @param {VideoFrame} frame */
  #take(frame) {
    const clock = this.#clocks.get(frame.timestamp);
    for (const timestamp of this.#clocks.keys()) {
      if (timestamp > frame.timestamp) {
        break;
      }
      this.#clocks.delete(timestamp);
    }
    const now = performance.now();
    if (this.#waiting.length < LATE_FRAMES || now - this.#drawnAt > CATCH_UP_INTERVAL) {
      const { displayWidth: width, displayHeight: height } = frame;
      this.#sink.draw({ source: frame, width, height, clock });
      this.#drawnAt = now;
    }
    frame.close();
  }

  /** @param {Error} error */
  #fail(error) {
    this.#discard();
    if (error.name === "NotSupportedError" || error instanceof TypeError) {
      this.#waiting = [];
      this.#sink.unsupported(error);
      return;
    }
    const next = this.#waiting.findIndex((frame) => frame.isKey);
    this.#waiting = next < 0 ? [] : this.#waiting.slice(next);
    if (next < 0) {
      this.gap();
    }
    this.#feed();
  }

  #discard() {
    const decoder = this.#decoder;
    this.#decoder = null;
    this.#clocks.clear();
    if (decoder && decoder.state !== "closed") {
      decoder.close();
    }
  }
}

// The subscription to a stream ----------------------------------------------------------------

/** Waits between attempts: further and further apart, and never those of many at one moment. */
export class Backoff {
  #first;
  #largest;
  #delay;

  /** @param {{first?: number, largest?: number}} [limits] In ms. */
  constructor({ first = 250, largest = 4000 } = {}) {
    this.#first = first;
    this.#largest = largest;
    this.#delay = first;
  }

  /** Return the ms to wait before the next attempt. */
  next() {
    const delay = this.#delay;
    this.#delay = Math.min(2 * delay, this.#largest);
    return delay * (0.5 + Math.random() / 2);
  }

  reset() {
    this.#delay = this.#first;
  }
}

/** Close codes of the relay: RFC 6455 section 7.4, and those of its own. */
const KICKED = 1008, SERVICE_RESTART = 1012, BAD_REQUEST = 4400, NOT_FOUND = 4404, TOO_MANY = 4429;

/**
 * @typedef {object} Listener What happens to a subscription.
 * @property {(format: Format) => void} subscribed
 * @property {() => void} paused The streamer is lost.
 * @property {(format: Format) => void} resumed It is back.
 * @property {(frames: number) => void} gap
 * @property {(data: Bytes) => void} message
 * @property {(end: {code: number, message: string, hasEnded: boolean}) => void} closed
 */

/** @param {string} text @returns {Record<string, any>} Empty, where it is no JSON. */
function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

/**
 * Watch a stream; returns a function that leaves, after which the listener hears no more.
 *
 * @param {string} url
 * @param {Listener} listener
 */
function subscribe(url, listener) {
  const socket = new WebSocket(url);
  const end = { code: 1006, message: "", hasEnded: false };
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    socket.send(JSON.stringify({ type: "subscribe", features: ["gaps", "status"] }));
  };
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") {
      listener.message(new Uint8Array(data));
      return;
    }
    const message = parsed(data);
    if (message.type === "subscribed") {
      listener.subscribed(message.format ?? {});
    } else if (message.type === "stream_resumed") {
      listener.resumed(message.format ?? {});
    } else if (message.type === "stream_paused") {
      listener.paused();
    } else if (message.type === "gap") {
      listener.gap(message.frames);
    } else if (message.type === "stream_ended") {
      end.hasEnded = true;
    } else if (message.type === "error") {
      end.message = message.message;
    }
  };
  socket.onclose = ({ code }) => listener.closed({ ...end, code });
  return () => {
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  };
}

// The element ---------------------------------------------------------------------------------

/**
 * What the viewer is told of each state: in a few words, and what that means.
 *
 * @type {Record<string, [title: string, sentence: string]>}
 */
const WORDS = {
  idle: ["Ready", "Press play to watch."],
  connecting: ["Connecting", "Reaching the server."],
  waiting: ["Waiting for the stream", "The next whole picture is shown as soon as it comes."],
  playing: ["Live", ""],
  paused: ["Streamer lost", "Its connection is gone. The picture goes on when it is back."],
  reconnecting: ["Connection lost", "Trying to reach the server again."],
  ended: ["Ended", "The stream is over. It is shown again if it starts anew."],
  "not-found": ["Not found", "No stream has this id now. It is shown as soon as there is one."],
  full: ["Too many viewers", "This stream has no place free. You get the next one."],
  refused: ["Refused", ""],
  unsupported: ["Can't be shown here", ""],
  stopped: ["Stopped", "Press play to watch again."],
};

/** What to do instead, where nothing happens by itself. @type {Record<string, string>} */
const WORDS_BY_HAND = {
  reconnecting: "Press play to try again.",
  ended: "The stream is over. Press play to look for it again.",
  "not-found": "No stream has this id now. Press play to look again.",
  full: "This stream has no place free. Press play to try again.",
};

/** Ms after which frames of which none can be shown count as trouble. */
const TROUBLE_AFTER = 1500;

/** Ms until a viewer in trouble joins anew, to get a keyframe; twice as long if that fails. */
const REJOIN_AFTER = 6000;
const REJOIN_LARGEST = 60_000;

/** Ms that the server has to answer. */
const ANSWER_PATIENCE = 10_000;

/** Ms that a connection must have lasted for the next attempt to be a first one. */
const STEADY = 5000;

/** Ms of quick attempts; later they are PATIENT_DELAY apart, since nobody may be looking. */
const HOPEFUL = 60_000;
const PATIENT_DELAY = 30_000;

/** A lag over an hour, in ms, tells of a wrong clock. */
const LARGEST_LAG = 3_600_000;

/** Ms after which the controls go away when nobody touches them. */
const CONTROLS_LINGER = 3000;

/** Paths in a box of 24 × 24. */
const ICONS = {
  play: "M8 5.5v13l10.5-6.5z",
  pause: "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z",
  stats: "M5 13h3v6H5zM10.5 5h3v14h-3zM16 9h3v10h-3z",
  fullscreen: "M4 4h6v2H6v4H4zM14 4h6v6h-2V6h-4zM4 14h2v4h4v2H4zM18 14h2v6h-6v-2h4z",
};

const STYLE = `
:host {
  display: block; position: relative; aspect-ratio: 16 / 9; overflow: hidden; contain: content;
  object-fit: contain; background: #000; color: #fff;
  font: 400 1rem/1.45 system-ui, sans-serif; -webkit-tap-highlight-color: transparent;
}
:host([hidden]) { display: none; }
/* On the way from the element to the picture. */
div { object-fit: inherit; object-position: inherit; }
canvas {
  position: absolute; inset: 0; inline-size: 100%; block-size: 100%;
  object-fit: inherit; object-position: inherit; transition: opacity .2s;
}
.quiet canvas { opacity: .2; }
.words {
  position: absolute; inset: 0; display: flex; flex-direction: column; align-items: center;
  justify-content: center; gap: .375rem; padding: 1rem 1.5rem 3.5rem; text-align: center;
  text-wrap: balance; text-shadow: 0 0 .5rem #000, 0 0 .125rem #000; opacity: 0;
  pointer-events: none; transition: opacity .2s;
}
.quiet .words { opacity: 1; }
.words > * { inline-size: min(100%, 34rem); }
.words strong { font-size: 1.25rem; font-weight: 600; }
.words span { min-block-size: 2.9em; color: #d5d9de; }
.controls {
  position: absolute; inset: auto 0 0; display: flex; gap: .25rem; padding: .375rem;
  background: linear-gradient(transparent, #000b); opacity: 0; transition: opacity .2s;
}
.active .controls, .quiet .controls, .controls:focus-within { opacity: 1; }
.controls button:first-child { margin-inline-end: auto; }
button {
  display: grid; place-items: center; inline-size: 2.75rem; block-size: 2.75rem; padding: 0;
  border: 0; border-radius: .5rem; background: none; color: inherit; cursor: pointer;
}
button:hover, button[aria-pressed=true] { background: #fff3; }
button:focus-visible { outline: 2px solid var(--relayd-accent, #7fb2ff); outline-offset: -2px; }
button[hidden] { display: none; }
svg { inline-size: 1.5rem; block-size: 1.5rem; fill: currentColor; }
dl {
  position: absolute; inset: .5rem auto auto .5rem; display: grid; margin: 0; padding: .5rem .75rem;
  grid-template-columns: auto auto; gap: 0 .75rem; border-radius: .5rem; background: #000c;
  font: .8125rem/1.5 ui-monospace, monospace; font-variant-numeric: tabular-nums;
}
dl[hidden] { display: none; }
dt { color: #b8bec6; }
dd { margin: 0; min-inline-size: 7ch; }
@media (prefers-reduced-motion: reduce) { * { transition: none !important; } }
`;

/**
 * Shows a live stream of relayd in a canvas, and always says what goes on.
 *
 * Attributes: `src`, the viewers' endpoint; `autoplay`: connects, and comes back, by itself;
 * `stats`: shows figures. CSS `object-fit` and `object-position` apply to the picture.
 *
 * Events: `playing`; `paused` (detail.reason: `streamer`, `connection` or `viewer`); `ended`;
 * `error` (detail.message, detail.code); `statechange` (detail.state, detail.message).
 */
export class RelaydPlayer extends HTMLElement {
  static observedAttributes = ["src", "autoplay", "stats"];

  /** The picture: as large as the stream's, in pixels. */
  canvas = document.createElement("canvas");

  #context = contextOf(this.canvas);
  #root = document.createElement("div");
  #title = document.createElement("strong");
  #sentence = document.createElement("span");
  #playButton = button("play", "Play", () => this.#toggle());
  #statsButton = button("stats", "Figures", () => (this.stats = !this.stats));
  #fullscreenButton = button("fullscreen", "Full screen", () => this.#toggleFullscreen());
  #figures = document.createElement("dl");

  #state = "idle";
  #message = "";
  #isPlaced = false;
  #wants = false;
  /** @type {Promise<WakeLockSentinel | null> | null} */
  #awake = null;
  /** @type {(() => void) | null} */
  #leave = null;
  /** @type {Decoder | null} */
  #track = null;
  /** @type {Kind | null} */
  #kind = null;
  /** @type {Format} */
  #format = {};
  #backoff = new Backoff();
  #retry = 0;
  #tick = 0;
  #linger = 0;
  #askedAt = 0;
  #subscribedAt = 0;
  #hopefulAt = 0;
  #tickedAt = 0;
  /** @type {number | null} */
  #undrawnSince = null;
  #rejoinAfter = REJOIN_AFTER;
  #drawn = 0;
  #received = 0;
  #statistics = emptyStatistics();

  constructor() {
    super();
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    // A click on the picture gives the keys to this player.
    const shadow = this.attachShadow({ mode: "open", delegatesFocus: true });
    shadow.adoptedStyleSheets = [style];
    const words = document.createElement("div");
    words.className = "words";
    words.setAttribute("role", "status");
    words.append(this.#title, this.#sentence);
    const controls = document.createElement("div");
    controls.className = "controls";
    controls.setAttribute("role", "group");
    controls.setAttribute("aria-label", "Player");
    controls.append(this.#playButton, this.#statsButton, this.#fullscreenButton);
    this.#fullscreenButton.hidden = !document.fullscreenEnabled;
    this.canvas.setAttribute("role", "img");
    this.#figures.hidden = true;
    this.#root.append(this.canvas, this.#figures, words, controls);
    shadow.append(this.#root);
    this.#show();

    this.addEventListener("keydown", (event) => this.#press(event));
    this.addEventListener("dblclick", () => this.#toggleFullscreen());
    for (const type of ["pointermove", "pointerdown", "keydown", "focusin"]) {
      this.addEventListener(type, () => this.#stir());
    }
  }

  /** The URL of the viewers' endpoint, ws or wss; a path is taken on the page's own host. */
  get src() {
    return this.getAttribute("src") ?? "";
  }

  set src(value) {
    this.setAttribute("src", value);
  }

  /** Whether it connects, and comes back, by itself. */
  get autoplay() {
    return this.hasAttribute("autoplay");
  }

  set autoplay(value) {
    this.toggleAttribute("autoplay", value);
  }

  /** Whether figures are shown over the picture. */
  get stats() {
    return this.hasAttribute("stats");
  }

  set stats(value) {
    this.toggleAttribute("stats", value);
  }

  /**
   * What goes on: idle, connecting, waiting, playing, paused, reconnecting, ended, not-found, full,
   * refused, unsupported or stopped.
   */
  get state() {
    return this.#state;
  }

  /** The state in a few words. */
  get label() {
    return WORDS[this.#state][0];
  }

  /** The state in words, with what it means. */
  get message() {
    return `${this.#title.textContent}. ${this.#sentence.textContent}`.trim();
  }

  /**
   * Figures of the last second, and of all since `play`: frames drawn a second; bits received a
   * second; seconds from capture to now, if the frames tell; frames that the relay left out; frames
   * drawn; the codec; the picture's size in pixels.
   */
  get statistics() {
    return { ...this.#statistics };
  }

  /** Start to watch, or try again at once. */
  play() {
    this.#wants = true;
    this.#statistics = emptyStatistics();
    this.#backoff.reset();
    this.#hopefulAt = performance.now();
    this.#rejoinAfter = REJOIN_AFTER;
    this.#set(this.src ? "connecting" : "idle");
    this.#connect();
  }

  /** Stop to watch; the last picture stays. */
  pause() {
    this.#stop();
    this.#set("stopped", { reason: "viewer" });
  }

  /** Show the player on the whole screen, or no longer. */
  async toggleFullscreen() {
    if (document.fullscreenElement) {
      await document.exitFullscreen();
    } else {
      await this.requestFullscreen?.();
    }
  }

  connectedCallback() {
    this.#isPlaced = true;
    document.addEventListener("visibilitychange", this.#return);
    window.addEventListener("online", this.#return);
    if (this.autoplay) {
      this.play();
    }
  }

  disconnectedCallback() {
    this.#isPlaced = false;
    document.removeEventListener("visibilitychange", this.#return);
    window.removeEventListener("online", this.#return);
    this.#stop();
    this.#set("idle");
  }

  /** @param {string} name @param {string | null} before @param {string | null} after */
  attributeChangedCallback(name, before, after) {
    if (before === after) {
      return;
    }
    if (name === "stats") {
      this.#figures.hidden = !this.stats;
      this.#statsButton.setAttribute("aria-pressed", String(this.stats));
      this.#showFigures();
      return;
    }
    const wanted = this.#wants;
    if (name === "src") {
      const id = this.src.split(/[?#]/)[0].replace(/\/$/, "").split("/").pop();
      this.canvas.setAttribute("aria-label", `Live picture of ${id}`);
      this.#stop();
      this.#clear();
      this.#set("idle");
    }
    // The parser sets the attributes one by one before the element is in place.
    if (this.#isPlaced && !this.#wants && (wanted || this.autoplay)) {
      this.play();
    }
    this.#show();
  }

  // The connection.

  #connect() {
    this.#disconnect();
    if (!this.src) {
      return;
    }
    let url;
    try {
      url = new URL(this.src, location.href.replace(/^http/, "ws"));
      url.protocol = url.protocol.replace(/^http/, "ws");
      this.#leave = subscribe(url.href, this.#listener());
    } catch (error) { // not a URL, or ws from a page on https
      this.#wants = false;
      this.#set("refused", { message: /** @type {Error} */ (error).message, code: 0 });
      return;
    }
    this.#askedAt = this.#tickedAt = performance.now();
    this.#tick = window.setInterval(() => this.#look(), 1000);
  }

  /** @returns {Listener} */
  #listener() {
    return {
      subscribed: (format) => {
        this.#subscribedAt = performance.now();
        this.#format = format;
        this.#setTrack(kindNamed(format) ?? null);
        this.#wait();
      },
      resumed: (format) => {
        const kind = kindNamed(format) ?? this.#kind;
        this.#format = format;
        if (this.#track && kind === this.#kind && kind !== RGBA) {
          this.#track.gap(); // the parameters stay in force
        } else {
          this.#setTrack(kind);
        }
        this.#wait();
      },
      paused: () => this.#set("paused", { reason: "streamer" }),
      gap: (frames) => {
        this.#statistics.gaps += frames;
        this.#track?.gap();
      },
      message: (data) => this.#take(data),
      closed: (end) => this.#closed(end),
    };
  }

  #wait() {
    if (this.#leave) { // the format may have been one that can't be shown
      this.#set("waiting");
    }
  }

  /** @param {{code: number, message: string, hasEnded: boolean}} end */
  #closed({ code, message, hasEnded }) {
    const now = performance.now();
    const wasSubscribed = this.#subscribedAt > 0;
    if (wasSubscribed && now - this.#subscribedAt > STEADY) {
      this.#backoff.reset();
      this.#hopefulAt = now;
    }
    this.#disconnect();
    if (hasEnded) {
      this.#set("ended");
    } else if (code === NOT_FOUND) {
      // Who has seen the end of a stream looks for the next one.
      this.#set(this.#state === "ended" ? "ended" : "not-found", { message, code });
    } else if (code === TOO_MANY) {
      this.#set("full", { message, code });
    } else if (code === BAD_REQUEST || code === KICKED) {
      const words = message ? `The server says: ${message}.` : "The server let this viewer go.";
      this.#wants = false;
      this.#set("refused", { message: words, code });
      return;
    } else if (this.#state !== "ended") {
      this.#set("reconnecting", { reason: "connection" });
    }
    if (this.autoplay) {
      const isSoon = now - this.#hopefulAt < HOPEFUL;
      const delay = isSoon ? this.#backoff.next() : PATIENT_DELAY * (0.5 + Math.random() / 2);
      const isAtOnce = code === SERVICE_RESTART && wasSubscribed;
      this.#retry = window.setTimeout(() => this.#connect(), isAtOnce ? 0 : delay);
    } else {
      this.#wants = false;
      this.#show();
    }
  }

  /** Try at once what else would come later: the page is looked at, or the network is back. */
  #return = () => {
    this.#keepAwake();
    if (this.#retry && !document.hidden) {
      this.#connect();
    }
  };

  #disconnect() {
    this.#leave?.();
    this.#leave = null;
    clearTimeout(this.#retry);
    clearInterval(this.#tick);
    this.#retry = 0;
    this.#subscribedAt = 0;
    this.#undrawnSince = null;
    this.#received = this.#drawn = 0;
    this.#setTrack(null);
  }

  #stop() {
    this.#wants = false;
    this.#disconnect();
  }

  // The video.

  /** @param {Bytes} data */
  #take(data) {
    this.#received += data.length;
    if (!data.length) {
      return; // a streamer that has nothing to show
    }
    const kind = this.#kind === RGBA ? RGBA : KINDS.find((kind) => kind.begins(data));
    if (kind && kind !== this.#kind) {
      this.#setTrack(kind);
    }
    if (this.#track?.push(data) ?? true) {
      this.#undrawnSince ??= performance.now();
    }
  }

  /** @param {Kind | null} kind */
  #setTrack(kind) {
    this.#track?.close();
    this.#track = null;
    this.#kind = kind;
    if (!kind) {
      return;
    }
    /** @type {Sink} */
    const sink = {
      draw: (picture) => this.#draw(picture),
      unsupported: () => this.#refuse(kind.name),
    };
    this.#track = kind.open(kind, this.#format, sink);
    if (!this.#track) {
      this.#refuse(kind.name);
    }
  }

  /** @param {Picture} picture */
  #draw({ source, width, height, clock }) {
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    if (source instanceof ImageData) {
      this.#context.putImageData(source, 0, 0);
    } else {
      this.#context.drawImage(source, 0, 0, width, height);
    }
    const lag = clock === undefined ? -1 : Date.now() - clock;
    this.#drawn += 1;
    this.#undrawnSince = null;
    this.#rejoinAfter = REJOIN_AFTER;
    Object.assign(this.#statistics, {
      frames: this.#statistics.frames + 1,
      lag: lag >= 0 && lag < LARGEST_LAG ? lag / 1000 : null,
      codec: this.#track?.codec ?? "",
      width,
      height,
    });
    // The last frames of a lost streamer may be decoded after the news.
    if (this.#state !== "paused") {
      this.#set("playing");
    }
  }

  #clear() {
    this.#context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** @param {string} codec */
  #refuse(codec) {
    const message = isSecureContext
      ? `This browser can't decode ${codec}. Try a current Chrome, Edge, Safari or Firefox.`
      : `Browsers decode ${codec} only on https. Open this page by https or on localhost.`;
    this.#stop();
    this.#set("unsupported", { message, code: 0 });
  }

  /** Look each second whether what comes can be shown. */
  #look() {
    const now = performance.now();
    const seconds = (now - this.#tickedAt) / 1000;
    this.#statistics.fps = this.#drawn / seconds;
    this.#statistics.bitrate = (8 * this.#received) / seconds;
    this.#drawn = this.#received = 0;
    this.#tickedAt = now;
    this.#showFigures();
    const isLate = seconds > 2; // this page was frozen, and what has come is not looked at yet
    const undrawn = isLate || this.#undrawnSince === null ? 0 : now - this.#undrawnSince;
    if (!this.#subscribedAt && now - this.#askedAt > ANSWER_PATIENCE) {
      this.#closed({ code: 1006, message: "", hasEnded: false });
      return;
    }
    if (undrawn > TROUBLE_AFTER && this.#state === "playing") {
      this.#set("waiting");
    }
    if (undrawn > this.#rejoinAfter && this.autoplay) {
      this.#rejoinAfter = Math.min(2 * this.#rejoinAfter, REJOIN_LARGEST);
      this.#connect();
    }
  }

  // What is seen.

  /**
   * Go to a state, and tell of it.
   *
   * @param {string} state
   * @param {{message?: string, code?: number, reason?: string}} [detail]
   */
  #set(state, detail = {}) {
    const message = detail.message ?? "";
    if (state === this.#state && (state !== "refused" || message === this.#message)) {
      return;
    }
    this.#state = state;
    this.#message = message;
    this.#show();
    this.#emit("statechange", { state, message: this.message });
    if (state === "playing" || state === "ended") {
      this.#emit(state);
    } else if (detail.reason) {
      this.#emit("paused", detail);
    } else if ("code" in detail) {
      this.#emit("error", detail);
    }
  }

  /** @param {string} type @param {object} [detail] */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #show() {
    const state = this.#state;
    const [title, sentence] = WORDS[state];
    const own = state === "refused" || state === "unsupported" ? this.#message : "";
    this.#title.textContent = title;
    this.#sentence.textContent =
      own || (this.autoplay ? sentence : (WORDS_BY_HAND[state] ?? sentence));
    this.#root.classList.toggle("quiet", state !== "playing");
    this.#keepAwake();
    setIcon(this.#playButton, this.#wants ? "pause" : "play", this.#wants ? "Pause" : "Play");
  }

  /** Keep the screen on while there is a live picture to be seen, as a video element does. */
  #keepAwake() {
    if (this.#state === "playing" && !document.hidden) {
      this.#awake ??= navigator.wakeLock?.request("screen").catch(() => null) ?? null;
    } else {
      this.#awake?.then((lock) => lock?.release());
      this.#awake = null;
    }
  }

  #showFigures() {
    if (!this.stats) {
      return;
    }
    const { fps, bitrate, lag, gaps, codec, width, height } = this.#statistics;
    const rows = [
      ["frames/s", fps.toFixed(1)],
      ["kbit/s", (bitrate / 1000).toFixed(0)],
      ...(lag === null ? [] : [["lag", `${(lag * 1000).toFixed(0)} ms`]]),
      ["left out", String(gaps)],
      ["codec", codec],
      ["size", width ? `${width} × ${height}` : ""],
    ];
    this.#figures.replaceChildren(
      ...rows.flatMap(([name, value]) => [textElement("dt", name), textElement("dd", value)]),
    );
  }

  #toggle() {
    if (this.#wants) {
      this.pause();
    } else {
      this.play();
    }
  }

  #toggleFullscreen() {
    this.toggleFullscreen().catch(() => {}); // a frame, say, that may not
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const isOnButton = event.composedPath()[0] instanceof HTMLButtonElement;
    const key = event.key.toLowerCase();
    if (key === "k" || (key === " " && !isOnButton)) {
      this.#toggle();
    } else if (key === "f") {
      this.#toggleFullscreen();
    } else if (key === "s") {
      this.stats = !this.stats;
    } else {
      return;
    }
    event.preventDefault();
  }

  /** Show the controls for a while. */
  #stir() {
    this.#root.classList.add("active");
    clearTimeout(this.#linger);
    this.#linger = window.setTimeout(
      () => this.#root.classList.remove("active"),
      CONTROLS_LINGER,
    );
  }
}

function emptyStatistics() {
  return {
    fps: 0,
    bitrate: 0,
    lag: /** @type {number | null} */ (null),
    gaps: 0,
    frames: 0,
    codec: "",
    width: 0,
    height: 0,
  };
}

/** @param {HTMLCanvasElement} canvas */
function contextOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { alpha: false }));
}

/** @param {string} name @param {string} text */
function textElement(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

/** @param {keyof typeof ICONS} icon @param {string} label @param {() => void} press */
function button(icon, label, press) {
  const element = document.createElement("button");
  element.type = "button";
  element.addEventListener("click", press);
  setIcon(element, icon, label);
  return element;
}

/** @param {HTMLButtonElement} element @param {keyof typeof ICONS} icon @param {string} label */
function setIcon(element, icon, label) {
  if (element.ariaLabel === label) {
    return;
  }
  element.ariaLabel = element.title = label;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[icon]);
  svg.append(path);
  element.replaceChildren(svg);
}

if (!customElements.get("relayd-player")) {
  customElements.define("relayd-player", RelaydPlayer);
}
