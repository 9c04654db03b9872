/** A streamer's connection to the relay: registers, marks, resumes. */

import { Backoff } from "./player.js";

/** @typedef {import("./clock.js").Bytes} Bytes */
/** @typedef {import("./encoder.js").Format} Format */
/** @typedef {Omit<import("./rate.js").Report, "buffered">} Stats */

/**
 * Why a stream is over, beside `stop`; `message` is the relay's, if it gave one.
 *
 * @typedef {{code: number, message: string}} End
 */

/**
 * @typedef {object} Listener
 * @property {(streamId: string) => void} live Also when the connection is back.
 * @property {(count: number) => void} viewers How many there are: once after `live`, and on change.
 * @property {() => void} keyframeRequested
 * @property {(stats: Stats) => void} stats
 * @property {() => void} lost The connection is gone; another one is being tried.
 * @property {(end: End) => void} ended Nothing more is tried.
 */

const FEATURES = ["resume", "viewers", "keyframe_requests", "stats"];

/** Close codes: RFC 6455 section 7.4.1, the relay's own, and ours. */
const NORMAL = 1000, KICKED = 1008, TOO_LARGE = 1009, SERVICE_RESTART = 1012;
const BAD_REQUEST = 4400, TIMED_OUT = 4408, CONFLICT = 4409;
const OTHER_FORMAT = 3000;

/** Ms for a connection to be made, and for the network to take a byte before it counts as lost. */
const CONNECT_PATIENCE = 10_000, STALL_PATIENCE = 10_000;

/** Ms that a connection must have lasted for the next attempt to be a first one. */
const STEADY = 5000;

/**
 * Ms for which refusals of a stream that was live are not believed: the relay may not yet have
 * given up a connection whose last resume token never arrived here.
 */
const REFUSAL_PATIENCE = 60_000;

/** Publishes frames under one id for as long as it is wanted, over one connection after another. */
export class Publisher {
  /** @type {WebSocket | null} */
  #socket = null;
  #backoff = new Backoff();
  #timer = 0;
  /** @type {string | undefined} */
  #token;
  #refusal = "";
  #isLive = false;
  #liveAt = 0;
  #lostAt = 0;
  #sent = 0;
  #taken = 0;
  #takenAt = 0;
  #url;
  #streamId;
  #format;
  #listener;

  /**
   * @param {{url: string, streamId: string | null, format: Format}} options
   * @param {Listener} listener
   */
  constructor({ url, streamId, format }, listener) {
    this.#url = url;
    this.#streamId = streamId;
    this.#format = format;
    this.#listener = listener;
    addEventListener("online", this.#hurry);
    this.#connect();
  }

  /** Bytes that wait in the browser for the network. */
  get buffered() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** What viewers are told of the frames; another codec makes a new connection necessary. */
  set format(/** @type {Format} */ format) {
    const isOther = format.codec.split(".")[0] !== this.#format.codec.split(".")[0];
    this.#format = format;
    if (isOther && this.#isLive) {
      this.#retry(0, OTHER_FORMAT);
    }
  }

  /**
   * Send a frame; returns whether there was a connection for it.
   *
   * @param {Bytes} data
   * @param {boolean} isKey
   */
  send(data, isKey) {
    if (!this.#isLive) {
      return false;
    }
    if (isKey) {
      this.#socket?.send('{"type": "keyframe"}');
    }
    this.#socket?.send(data);
    this.#sent += data.length;
    return true;
  }

  /** Let go a connection that takes nothing more; to be called about each second. */
  check() {
    const taken = this.#sent - this.buffered;
    if (this.buffered === 0 || taken > this.#taken) {
      this.#taken = taken;
      this.#takenAt = performance.now();
    } else if (this.#isLive && performance.now() - this.#takenAt > STALL_PATIENCE) {
      this.#retry(0);
    }
  }

  /** End the stream for its viewers. */
  stop() {
    removeEventListener("online", this.#hurry);
    this.#disconnect(NORMAL);
  }

  #connect() {
    const socket = new WebSocket(this.#url);
    socket.onopen = () => {
      const request = {
        type: "register",
        stream_id: this.#streamId,
        format: this.#format,
        features: FEATURES,
        resume_token: this.#token,
      };
      socket.send(JSON.stringify(request));
    };
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
    socket.onclose = ({ code }) => this.#closed(code);
    this.#socket = socket;
    this.#timer = window.setTimeout(() => this.#retry(), CONNECT_PATIENCE);
  }

  /** @param {any} message */
  #take(message) {
    if (message.type === "registered") {
      clearTimeout(this.#timer);
      this.#streamId = message.stream_id;
      this.#token = message.resume_token;
      this.#isLive = true;
      this.#lostAt = this.#sent = this.#taken = 0;
      this.#liveAt = this.#takenAt = performance.now();
      this.#listener.live(message.stream_id);
    } else if (message.type === "viewers") {
      this.#listener.viewers(message.count);
    } else if (message.type === "keyframe_request") {
      this.#listener.keyframeRequested();
    } else if (message.type === "stats") {
      this.#listener.stats(message);
    } else if (message.type === "error") {
      this.#refusal = message.message;
    }
  }

  /** @param {number} code */
  #closed(code) {
    const message = this.#refusal;
    if (this.#isFinal(code, message)) {
      this.stop();
      this.#listener.ended({ code, message });
    } else {
      this.#retry(code === SERVICE_RESTART ? 0 : undefined);
    }
  }

  /** @param {number} code @param {string} message */
  #isFinal(code, message) {
    if (message && code !== TIMED_OUT) {
      const isKnown = this.#lostAt && performance.now() - this.#lostAt < REFUSAL_PATIENCE;
      return code === BAD_REQUEST || !isKnown;
    }
    return code === CONFLICT || code === KICKED || code === TOO_LARGE;
  }

  /** @param {number} [delay] In ms. @param {number} [code] */
  #retry(delay, code) {
    const now = performance.now();
    if (this.#isLive) {
      this.#lostAt = now;
      if (now - this.#liveAt > STEADY) {
        this.#backoff.reset();
      }
    }
    this.#disconnect(code);
    this.#timer = window.setTimeout(() => this.#connect(), delay ?? this.#backoff.next());
    this.#listener.lost();
  }

  /** @param {number} [code] */
  #disconnect(code) {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    this.#isLive = false;
    this.#refusal = "";
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close(code);
    }
  }

  /** Try at once what else would come later: the network is back. */
  #hurry = () => {
    if (!this.#socket) {
      clearTimeout(this.#timer);
      this.#connect();
    }
  };
}
