/** How many bits a second to encode: as many as the viewers and the way to the relay take. */

/** Part of the largest bitrate to begin with. */
const FIRST = 0.5;

/** What is left of the bitrate after a step down, and what a step up makes of it. */
const LOWER = 0.7, RAISE = 1.05;

/** A viewer is late by so many seconds when it falls behind; the relay drops from MAX_LAG on. */
const LATE = 0.5;

/** Reports that pass before another step down: the last one must have shown what it does. */
const EFFECT = 2;

/** Clean reports before a step up, at first and at most. */
const FIRST_PATIENCE = 5, LARGEST_PATIENCE = 60;

/** A step up is to blame for trouble that comes within so many reports. */
const BLAME = 10;

/** Most of the viewers are not worse off for a few slow ones than by this part of the largest. */
const FEW_SLOW = 0.25;

/**
 * What a relay says in `stats`, once a second, and what the streamer knows itself.
 *
 * @typedef {object} Report
 * @property {number} viewers
 * @property {number} slow_viewers Those that lost frames or that frames wait for.
 * @property {number} frames_dropped
 * @property {number} max_lag In seconds.
 * @property {number} buffered Bytes that wait in this browser for the network.
 */

/** Lowers a bitrate when a report shows trouble, and raises it slowly after clean ones. */
export class Rate {
  #smallest;
  #largest;
  #bitrate;
  #isBacked = false;
  #sinceLower = EFFECT;
  #sinceRaise = BLAME;
  #clean = 0;
  #patience = FIRST_PATIENCE;

  /** @param {{smallest: number, largest: number}} bounds In bit/s. */
  constructor({ smallest, largest }) {
    this.#smallest = smallest;
    this.#largest = largest;
    this.#bitrate = Math.max(smallest, FIRST * largest);
  }

  /** The bitrate to encode with, in bit/s. */
  get bitrate() {
    return Math.round(this.#bitrate);
  }

  /**
   * Keep to other bounds, as when the picture has another size.
   *
   * @param {{smallest: number, largest: number}} bounds In bit/s.
   */
  rescale({ smallest, largest }) {
    this.#bitrate = Math.max(smallest, this.#bitrate * (largest / this.#largest));
    this.#smallest = smallest;
    this.#largest = largest;
  }

  /** @param {Report} report */
  observe(report) {
    const { viewers, slow_viewers: slow, frames_dropped: dropped, max_lag: lag } = report;
    const wasBacked = this.#isBacked;
    this.#isBacked = report.buffered * 8 > LATE * this.#bitrate;
    this.#sinceLower += 1;
    this.#sinceRaise += 1;
    if (this.#isBacked && wasBacked) {
      this.#lower(this.#smallest);
    } else if (slow > 0 && (dropped > 0 || lag > LATE)) {
      const isMost = 2 * slow >= viewers;
      this.#lower(isMost ? this.#smallest : Math.max(this.#smallest, FEW_SLOW * this.#largest));
    } else if (!this.#isBacked) {
      this.#raise();
    }
  }

  /** @param {number} floor */
  #lower(floor) {
    this.#clean = 0;
    if (this.#sinceLower < EFFECT) {
      return;
    }
    if (this.#sinceRaise < BLAME) {
      this.#patience = Math.min(2 * this.#patience, LARGEST_PATIENCE);
      this.#sinceRaise = BLAME;
    }
    this.#bitrate = Math.max(Math.min(floor, this.#bitrate), this.#bitrate * LOWER);
    this.#sinceLower = 0;
  }

  #raise() {
    this.#clean += 1;
    if (this.#clean <= this.#patience) {
      return;
    }
    if (this.#bitrate < this.#largest) {
      this.#bitrate = Math.min(this.#largest, this.#bitrate * RAISE);
      this.#sinceRaise = 0;
    } else {
      this.#patience = FIRST_PATIENCE;
    }
  }
}
