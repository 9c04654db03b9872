/** From a captured track to the relay: what is encoded when, and what becomes of it. */

import { takePictures } from "./capture.js";
import { Encoder } from "./encoder.js";
import { Publisher } from "./publisher.js";
import { Rate } from "./rate.js";

/** @typedef {import("./capture.js").Picture} Picture */
/** @typedef {import("./clock.js").Bytes} Bytes */

/**
 * Figures of about the last second.
 *
 * @typedef {object} Facts
 * @property {number} bitrate In bit/s.
 * @property {number} fps
 * @property {string} codec
 * @property {number} width
 * @property {number} height
 */

/**
 * @typedef {object} Listener
 * @property {(streamId: string) => void} live Viewers can come, or come back.
 * @property {(count: number) => void} viewers
 * @property {() => void} lost There is no connection to the relay; another one is being tried.
 * @property {(facts: Facts) => void} facts About once a second.
 * @property {(end: import("./publisher.js").End) => void} ended The relay has no place for this.
 */

/** Ms between two keyframes, at most, while pictures come: a new viewer gets all since the last. */
const KEY_INTERVAL = 3000;

/** More bytes than this don't wait for the network. */
const BUFFER_LIMIT = 1e6;

const TICK = 500;

/**
 * How often the last picture of what does not move any more is sent again: it may have been left
 * out, and the first one after a change is coarse.
 */
const REPEATS = 4;

/** Shares a track until it is stopped. */
export class Sharer {
  /** @type {Publisher | null} */
  #publisher = null;
  /** @type {Rate | null} */
  #rate = null;
  #encoder = new Encoder({
    encoded: (data, isKey) => this.#send(data, isKey),
    restarted: () => (this.#wantsKey = this.#awaitsKey = true),
  });
  /** @type {Picture | null} */
  #picture = null;
  #pictureAt = 0;
  #repeats = 0;
  #hasBegun = false;
  #isStopped = false;
  #viewers = 0;
  #wantsKey = true;
  #awaitsKey = true;
  #keyAt = 0;
  #hasSent = false;
  #frames = 0;
  #size = 0;
  #countedAt = performance.now();
  #tick = window.setInterval(() => this.#look(), TICK);
  #capture = new AbortController();
  #url;
  #streamId;
  #listener;

  /**
   * @param {{url: string, streamId: string | null}} options
   * @param {Listener} listener
   */
  constructor({ url, streamId }, listener) {
    this.#url = url;
    this.#streamId = streamId;
    this.#listener = listener;
  }

  /**
   * Share this track, from now on instead of the one before.
   *
   * @param {MediaStreamTrack} track
   * @param {HTMLVideoElement} video Shows it.
   */
  capture(track, video) {
    this.#capture.abort();
    this.#capture = new AbortController();
    takePictures(track, video, (picture) => this.#take(picture), this.#capture.signal);
  }

  /** End the stream for its viewers. */
  stop() {
    this.#isStopped = true;
    clearInterval(this.#tick);
    this.#capture.abort();
    this.#publisher?.stop();
    this.#encoder.close();
    this.#picture?.close();
    this.#picture = null;
  }

  /** @param {Picture} picture */
  #take(picture) {
    this.#picture?.close();
    this.#picture = picture;
    this.#pictureAt = performance.now();
    this.#repeats = 0;
    if (!this.#hasBegun) {
      this.#hasBegun = true;
      this.#begin(picture);
    }
    this.#encode();
  }

  /** @param {Picture} picture */
  async #begin(picture) {
    await this.#encoder.prepare(picture);
    if (this.#isStopped) {
      return;
    }
    this.#rate = new Rate(this.#encoder.bounds);
    const format = this.#encoder.format;
    const options = { url: this.#url, streamId: this.#streamId, format };
    this.#publisher = new Publisher(options, {
      live: (streamId) => this.#listener.live(streamId),
      viewers: (count) => this.#count(count),
      keyframeRequested: () => this.#encodeKey(),
      stats: (stats) => this.#rate?.observe({ ...stats, buffered: this.#publisher?.buffered ?? 0 }),
      lost: () => this.#lost(),
      ended: (end) => {
        this.stop();
        this.#listener.ended(end);
      },
    });
  }

  // The viewers.

  /** @param {number} count */
  #count(count) {
    const hadNone = this.#viewers === 0;
    this.#viewers = count;
    this.#listener.viewers(count);
    if (count && hadNone) {
      this.#awaitsKey = true;
      this.#encodeKey();
    } else if (!count && this.#hasSent) {
      // The relay shows the frames since the last keyframe to whoever comes: an old picture, then.
      this.#publisher?.send(new Uint8Array(0), true);
      this.#hasSent = false;
    }
  }

  #lost() {
    this.#viewers = 0;
    this.#listener.lost();
  }

  // The pictures.

  #encodeKey() {
    this.#wantsKey = true;
    this.#encode();
  }

  /** Encode the last picture, if it is of use; returns whether it was. */
  #encode() {
    const [picture, publisher, rate] = [this.#picture, this.#publisher, this.#rate];
    if (!picture || !publisher || !rate || !this.#viewers) {
      return false;
    }
    const now = performance.now();
    const isKey = this.#wantsKey || now - this.#keyAt > KEY_INTERVAL;
    if (publisher.buffered > BUFFER_LIMIT || !this.#encoder.accepts(isKey)) {
      return false;
    }
    if (isKey) {
      this.#wantsKey = false;
      this.#keyAt = now;
    }
    this.#encoder.fit(picture);
    publisher.format = this.#encoder.format;
    rate.rescale(this.#encoder.bounds);
    this.#encoder.encode(picture, rate.bitrate, isKey);
    return true;
  }

  /** @param {Bytes} data @param {boolean} isKey */
  #send(data, isKey) {
    if (!this.#viewers || (this.#awaitsKey && !isKey) || !this.#publisher?.send(data, isKey)) {
      return;
    }
    this.#awaitsKey = false;
    this.#hasSent = true;
    this.#frames += 1;
    this.#size += data.length;
  }

  // Every now and then.

  #look() {
    const now = performance.now();
    this.#publisher?.check();
    const isDue = this.#repeats < REPEATS && now - this.#pictureAt > TICK / 2;
    if ((this.#wantsKey || isDue) && this.#encode()) {
      this.#repeats += 1;
    }
    if (now - this.#countedAt > 1.5 * TICK) {
      this.#showFacts();
    }
  }

  #showFacts() {
    const now = performance.now();
    const seconds = (now - this.#countedAt) / 1000;
    const { width, height } = this.#encoder.format;
    this.#listener.facts({
      bitrate: (8 * this.#size) / seconds,
      fps: this.#frames / seconds,
      codec: this.#encoder.name,
      width,
      height,
    });
    this.#countedAt = now;
    this.#frames = this.#size = 0;
  }
}
