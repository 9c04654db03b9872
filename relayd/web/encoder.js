/** Encodes pictures: H.264, else VP8, else JPEG, as this browser can. */

import { stampH264, stampJpeg } from "./clock.js";

/** @typedef {import("./clock.js").Bytes} Bytes */
/** @typedef {import("./capture.js").Picture} Picture */
/** @typedef {{width: number, height: number}} Size In pixels. */
/** @typedef {{codec: string, width: number, height: number}} Format */

/**
 * @typedef {object} Listener
 * @property {(data: Bytes, isKey: boolean) => void} encoded
 * @property {() => void} restarted The next picture is a keyframe, maybe of another codec.
 */

/**
 * @typedef {object} Coder Encodes in one way, at one size.
 * @property {(picture: Picture, bitrate: number, isKey: boolean) => void} encode
 * @property {(isKey: boolean) => boolean} accepts
 * @property {() => void} close
 */

/**
 * @typedef {object} Kind
 * @property {string} name
 * @property {(size: Size) => string} codec
 * @property {Partial<VideoEncoderConfig>} options
 * @property {number} bitsPerPixel Of one frame, at most.
 * @property {number} smallestBitrate
 * @property {(data: Bytes, time: number) => Bytes} stamp
 */

const FRAME_RATE = 30;

/** Longest and shortest side of a picture, at most: what software encoders can do. */
const LONGEST = 1920, SHORTEST = 1080;

/** Macroblocks of a picture in H.264 level 3.1, at most (ITU-T H.264 table A-1). */
const LEVEL_3_1 = 3600;

/** More pictures than this don't wait for an encoder. */
const LARGEST_QUEUE = 2;

/** A change of the bitrate that is smaller is not worth the keyframe that it costs. */
const WORTHWHILE = 0.1;

/** @type {Kind} */
const H264 = {
  name: "H.264",
  codec: ({ width, height }) =>
    Math.ceil(width / 16) * Math.ceil(height / 16) > LEVEL_3_1 ? "avc1.42E028" : "avc1.42E01F",
  options: { avc: { format: "annexb" } },
  bitsPerPixel: 0.1,
  smallestBitrate: 150_000,
  stamp: stampH264,
};

/** @type {Kind} */
const VP8 = {
  name: "VP8",
  codec: () => "vp8",
  options: {},
  bitsPerPixel: 0.1,
  smallestBitrate: 150_000,
  stamp: (data) => data,
};

/** @type {Kind} */
const JPEG = {
  name: "JPEG",
  codec: () => "jpeg",
  options: {},
  bitsPerPixel: 0.5,
  smallestBitrate: 1_000_000,
  stamp: stampJpeg,
};

/** Return the size to encode a picture with: it fits, and is even, as H.264 needs it. */
function fitted(/** @type {Picture} */ picture) {
  const width = "displayWidth" in picture ? picture.displayWidth : picture.width;
  const height = "displayHeight" in picture ? picture.displayHeight : picture.height;
  const scale = Math.min(
    1,
    LONGEST / Math.max(width, height),
    SHORTEST / Math.min(width, height),
  );
  const even = (/** @type {number} */ length) => Math.max(2, Math.round(length * scale) & ~1);
  return { width: even(width), height: even(height) };
}

/** @param {Kind} kind @param {Size} size @param {number} bitrate @returns {VideoEncoderConfig} */
function configOf(kind, { width, height }, bitrate) {
  return {
    codec: kind.codec({ width, height }),
    width,
    height,
    bitrate,
    framerate: FRAME_RATE,
    latencyMode: "realtime",
    ...kind.options,
  };
}

/** @param {Kind} kind @param {Size} size */
async function isSupported(kind, size) {
  if (kind === JPEG) {
    return true;
  }
  const config = configOf(kind, size, kind.smallestBitrate);
  const known = await globalThis.VideoEncoder?.isConfigSupported(config).catch(() => null);
  // Who does not know a part of the configuration leaves it out of what it answers.
  return Boolean(known?.supported && known.config?.avc?.format === config.avc?.format);
}

/**
 * Encodes by WebCodecs, at one size: reconfigured for another one, Chromium's H.264 encoder goes on
 * to tell the old one in the SPS.
 *
 * @implements {Coder}
 */
class VideoCoder {
  #bitrate = 0;
  #kind;
  #size;
  #encoder;

  /**
   * @param {Kind} kind
   * @param {Size} size
   * @param {(data: Bytes, isKey: boolean) => void} encoded
   * @param {() => void} failed
   */
  constructor(kind, size, encoded, failed) {
    this.#kind = kind;
    this.#size = size;
    this.#encoder = new VideoEncoder({
      output: (chunk) => {
        const data = new Uint8Array(chunk.byteLength);
        chunk.copyTo(data);
        const age = performance.now() - chunk.timestamp / 1000;
        encoded(kind.stamp(data, Date.now() - age), chunk.type === "key");
      },
      error: failed,
    });
  }

  accepts() {
    return this.#encoder.encodeQueueSize <= LARGEST_QUEUE;
  }

  /** @type {Coder["encode"]} */
  encode(picture, bitrate, isKey) {
    if (Math.abs(bitrate - this.#bitrate) > WORTHWHILE * this.#bitrate) {
      this.#encoder.configure(configOf(this.#kind, this.#size, bitrate));
      this.#bitrate = bitrate;
    }
    const frame = frameOf(picture, this.#size);
    try {
      this.#encoder.encode(frame, { keyFrame: isKey });
    } finally {
      frame.close();
    }
  }

  close() {
    if (this.#encoder.state !== "closed") {
      this.#encoder.close();
    }
  }
}

/**
 * Return a frame that is taken now, cropped to even sides, for an encoder that scales by itself.
 *
 * @param {Picture} picture
 * @param {Size} size
 */
function frameOf(picture, size) {
  const timestamp = Math.round(performance.now() * 1000);
  const visible = "visibleRect" in picture ? picture.visibleRect : null;
  const { width: displayWidth, height: displayHeight } = size;
  if (!visible || Reflect.get(picture, "rotation")) {
    // An encoder would leave it lying on its side.
    const canvas = new OffscreenCanvas(displayWidth, displayHeight);
    contextOf(canvas).drawImage(picture, 0, 0, displayWidth, displayHeight);
    return new VideoFrame(canvas, { timestamp });
  }
  const { x, y, width, height } = visible;
  const isEven = width % 2 === 0 && height % 2 === 0;
  const visibleRect = isEven ? undefined : { x, y, width: width & ~1, height: height & ~1 };
  return new VideoFrame(picture, { timestamp, visibleRect });
}

/** @param {OffscreenCanvas} canvas */
function contextOf(canvas) {
  const options = { alpha: false, willReadFrequently: true };
  const context = canvas.getContext("2d", options);
  return /** @type {OffscreenCanvasRenderingContext2D} */ (context);
}

/** Frames a second for which the quality of an image makes room, and its limits. */
const IMAGE_RATE = 10;
const WORST = 0.25, BEST = 0.85;

/** Encodes JPEG images, each as good as the bitrate allows, and leaves out those that exceed it. */
class ImageCoder {
  #quality = 0.6;
  #isBusy = false;
  #paidAt = 0;
  #canvas;
  #context;
  #encoded;
  #failed;

  /**
   * @param {Size} size
   * @param {(data: Bytes, isKey: boolean) => void} encoded
   * @param {() => void} failed
   */
  constructor({ width, height }, encoded, failed) {
    this.#canvas = new OffscreenCanvas(width, height);
    this.#context = contextOf(this.#canvas);
    this.#encoded = encoded;
    this.#failed = failed;
  }

  /** @param {boolean} isKey */
  accepts(isKey) {
    return !this.#isBusy && (isKey || performance.now() >= this.#paidAt);
  }

  /** @type {Coder["encode"]} */
  encode(picture, bitrate) {
    this.#context.drawImage(picture, 0, 0, this.#canvas.width, this.#canvas.height);
    this.#give(bitrate);
  }

  close() {
    this.#encoded = this.#failed = () => {};
  }

  /** @param {number} bitrate */
  async #give(bitrate) {
    const [time, now] = [Date.now(), performance.now()];
    this.#isBusy = true;
    try {
      const options = { type: "image/jpeg", quality: this.#quality };
      const blob = await this.#canvas.convertToBlob(options);
      const data = new Uint8Array(await blob.arrayBuffer());
      const seconds = (8 * data.length) / bitrate;
      this.#paidAt = Math.max(this.#paidAt, now) + 1000 * seconds;
      const better = this.#quality * (1 / (IMAGE_RATE * seconds)) ** 0.3;
      this.#quality = Math.min(BEST, Math.max(WORST, better));
      this.#encoded(JPEG.stamp(data, time), true);
    } catch {
      this.#failed();
    } finally {
      this.#isBusy = false;
    }
  }
}

/** Encodes pictures in the first way that works; scales what is too large. */
export class Encoder {
  #kinds = [H264, VP8, JPEG];
  /** @type {Coder | null} */
  #coder = null;
  #hasGiven = false;
  /** @type {Size} */
  #size = { width: 0, height: 0 };
  #listener;

  /** @param {Listener} listener */
  constructor(listener) {
    this.#listener = listener;
  }

  /** What the encoded pictures are. @returns {Format} */
  get format() {
    return { codec: this.#kinds[0].codec(this.#size), ...this.#size };
  }

  /** The codec's name, for people. */
  get name() {
    return this.#kinds[0].name;
  }

  /** The bitrates that make sense for the pictures, in bit/s. */
  get bounds() {
    const { bitsPerPixel, smallestBitrate } = this.#kinds[0];
    const largest = this.#size.width * this.#size.height * FRAME_RATE * bitsPerPixel;
    return { smallest: smallestBitrate, largest: Math.max(smallestBitrate, largest) };
  }

  /**
   * Get ready for pictures of this size.
   *
   * @param {Picture} picture
   */
  fit(picture) {
    const size = fitted(picture);
    if (size.width !== this.#size.width || size.height !== this.#size.height) {
      this.close();
      this.#size = size;
    }
  }

  /**
   * Find out what this browser can do with such pictures.
   *
   * @param {Picture} picture
   */
  async prepare(picture) {
    this.fit(picture);
    while (!(await isSupported(this.#kinds[0], this.#size))) {
      this.#kinds.shift();
    }
  }

  /**
   * Whether another picture may be encoded now.
   *
   * @param {boolean} isKey
   */
  accepts(isKey) {
    return this.#coder?.accepts(isKey) ?? true;
  }

  /**
   * @param {Picture} picture One that it was fitted to; it stays the caller's.
   * @param {number} bitrate
   * @param {boolean} isKey Whether it must be decodable without those before it.
   */
  encode(picture, bitrate, isKey) {
    try {
      const isFirst = !this.#coder;
      this.#coder ??= this.#employ();
      this.#coder.encode(picture, bitrate, isKey || isFirst);
    } catch {
      this.#fail();
    }
  }

  close() {
    this.#coder?.close();
    this.#coder = null;
  }

  /** @returns {Coder} */
  #employ() {
    /** @type {Coder} */
    let coder;
    this.#hasGiven = false;
    const encoded = (/** @type {Bytes} */ data, /** @type {boolean} */ isKey) => {
      if (coder === this.#coder) {
        this.#hasGiven = true;
        this.#listener.encoded(data, isKey);
      }
    };
    const failed = () => {
      if (coder === this.#coder) {
        this.#fail();
      }
    };
    const [kind] = this.#kinds;
    coder = kind === JPEG
      ? new ImageCoder(this.#size, encoded, failed)
      : new VideoCoder(kind, this.#size, encoded, failed);
    return coder;
  }

  /** One that has worked may again: browsers take encoders away from tabs that use them little. */
  #fail() {
    this.close();
    if (!this.#hasGiven && this.#kinds.length > 1) {
      this.#kinds.shift();
    }
    this.#listener.restarted();
  }
}
