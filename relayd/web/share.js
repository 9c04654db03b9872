/** The page on which a screen, a window or a camera becomes a stream. */

import * as capture from "./capture.js";
import { copies, element } from "./page.js";
import { Sharer } from "./sharer.js";

/** @typedef {import("./capture.js").Source} Source */

/** What the page says of each state: in a few words, and what that means. */
const WORDS = {
  idle: ["Not sharing", "Choose what to share."],
  asking: ["Waiting for you", "Answer the browser's question."],
  starting: ["Starting", "Waiting for the first picture, and for the server."],
  live: ["Live", "Whoever has the link can watch."],
  unwatched: ["Live", "Nobody watches: encoding is paused."],
  reconnecting: ["No connection", "Trying to reach the server again."],
  stopped: ["Stopped", "Choose what to share."],
};

/**
 * Why the relay ended a stream, by its close code, and what to do.
 *
 * @type {Record<number, string>}
 */
const REFUSALS = {
  1008: "The server's operator has ended the stream.",
  1009: "A picture was larger than the server takes. Share something smaller.",
  4409: "This id is in use. Choose another one, or leave it to the server.",
  4429: "The server has no place for another stream. Try again later.",
};
const TAKEN_OVER = "Another connection has taken the stream over.";

const ONLY_SECURE =
  "Browsers capture only on https or localhost. Open this page by https: the server needs a " +
  "certificate (its settings TLS_CERT and TLS_KEY), or a proxy that has one.";
const ONLY_CAMERAS = "This browser can't share a screen or a window, but a camera.";
const ONLY_VISIBLE = "This browser captures only while this page can be seen: keep it in front.";

const page = {
  state: element("state", HTMLElement),
  title: element("state-title", HTMLElement),
  sentence: element("state-sentence", HTMLElement),
  streamId: element("stream-id", HTMLInputElement),
  stop: element("stop", HTMLButtonElement),
  link: element("link", HTMLInputElement),
  copy: element("copy", HTMLButtonElement),
  open: element("open", HTMLAnchorElement),
  preview: element("preview", HTMLVideoElement),
  other: element("switch", HTMLButtonElement),
  hint: element("hint", HTMLElement),
};

/** @type {Record<Source, HTMLButtonElement>} */
const choices = {
  screen: element("screen", HTMLButtonElement),
  window: element("window", HTMLButtonElement),
  camera: element("camera", HTMLButtonElement),
};

/** @type {{source: Source, sharer: Sharer, track: MediaStreamTrack} | null} */
let sharing = null;

/** @type {WakeLockSentinel | null | undefined} */
let awake = null;

/** @param {keyof typeof WORDS} state @param {string} [reason] */
function show(state, reason) {
  const [title, sentence] = WORDS[state];
  page.state.dataset.state = state;
  page.title.textContent = title;
  page.sentence.textContent = reason ?? sentence;
  document.title = `${title} · Share · relayd`;
}

/** @param {string} name @param {string} [value] */
function showFact(name, value = "–") {
  element(name, HTMLElement).textContent = value;
}

/** Let everything be pressed that makes sense now. @param {boolean} isBusy */
function enable(isBusy) {
  for (const [source, button] of Object.entries(choices)) {
    button.disabled = isBusy || !capture.canCapture(/** @type {Source} */ (source));
  }
  page.streamId.disabled = isBusy;
  page.stop.disabled = !sharing;
}

/** @param {Source} source */
async function start(source) {
  if (!page.streamId.reportValidity()) {
    return;
  }
  const hadFocus = document.activeElement === choices[source];
  show("asking");
  enable(true);
  try {
    share(source, await ask(source));
  } catch (error) {
    show("stopped", capture.explain(error, source));
  }
  enable(sharing !== null);
  // A button that is disabled loses the keyboard's place.
  const focused = document.activeElement;
  if (hadFocus && (focused === choices[source] || focused === document.body)) {
    (sharing ? page.stop : choices[source]).focus();
  }
  if (source === "camera" && sharing) {
    page.other.disabled = !(await capture.otherCamera(sharing.track));
  }
}

/** @param {Source} source */
function ask(source) {
  return source === "camera" ? capture.captureCamera() : capture.captureScreen(source);
}

/** @param {Source} source @param {MediaStream} stream */
function share(source, stream) {
  const url = new URL("/ws/stream", location.href.replace(/^http/, "ws")).href;
  const sharer = new Sharer({ url, streamId: page.streamId.value || null }, {
    live: showLink,
    viewers: (count) => {
      show(count ? "live" : "unwatched");
      showFact("viewers", String(count));
    },
    lost: () => show("reconnecting"),
    facts: showFacts,
    ended: ({ code, message }) => {
      const refusal = message ? (REFUSALS[code] ?? `The server refused: ${message}.`) : "";
      stop(refusal || (code === 4409 ? TAKEN_OVER : REFUSALS[code]));
    },
  });
  show("starting");
  use(source, sharer, stream);
}

/** @param {Source} source @param {Sharer} sharer @param {MediaStream} stream */
function use(source, sharer, stream) {
  const [track] = stream.getVideoTracks();
  track.onended = () => stop("The browser ended the capture.");
  page.preview.srcObject = stream;
  // By itself a browser plays only what is in view.
  page.preview.play().catch(() => {});
  sharing = { source, sharer, track };
  sharer.capture(track, page.preview);
  stayAwake();
}

/** Keep a phone from going to sleep, and its camera too. */
async function stayAwake() {
  if (sharing && !document.hidden && (!awake || awake.released)) {
    awake = await navigator.wakeLock?.request("screen").catch(() => null);
    if (!sharing) {
      awake?.release();
    }
  }
}

/** @param {string} [reason] */
function stop(reason) {
  if (!sharing) {
    return;
  }
  const { source, sharer, track } = sharing;
  const hadFocus = document.activeElement === page.stop;
  sharer.stop();
  track.stop();
  sharing = null;
  awake?.release();
  page.preview.srcObject = null;
  page.other.disabled = page.copy.disabled = true;
  page.link.value = "";
  page.open.removeAttribute("href");
  page.open.ariaDisabled = "true";
  for (const name of ["viewers", "bitrate", "fps", "size", "codec"]) {
    showFact(name);
  }
  show("stopped", reason);
  enable(false);
  if (hadFocus) {
    choices[source].focus();
  }
}

/** A phone opens one camera at a time: the first one must go before there is another. */
async function switchCamera() {
  const was = sharing;
  const which = was && (await capture.otherCamera(was.track));
  if (!was || !which || was !== sharing) {
    return;
  }
  page.other.disabled = true;
  was.track.stop();
  try {
    const stream = await capture.captureCamera(which);
    if (was === sharing) {
      use(was.source, was.sharer, stream);
    } else {
      stream.getTracks().forEach((track) => track.stop());
    }
  } catch (error) {
    stop(capture.explain(error, "camera"));
  }
  page.other.disabled = !sharing;
}

/** @param {string} streamId */
function showLink(streamId) {
  page.link.value = new URL(`/watch/${streamId}`, location.href).href;
  page.open.href = page.link.value;
  page.open.ariaDisabled = null;
  page.copy.disabled = false;
}

/** @param {import("./sharer.js").Facts} facts */
function showFacts({ bitrate, fps, codec, width, height }) {
  showFact("bitrate", `${(bitrate / 1000).toFixed(0)} kbit/s`);
  showFact("fps", fps.toFixed(0));
  showFact("size", `${width} × ${height}`);
  showFact("codec", codec);
}

for (const [source, button] of Object.entries(choices)) {
  button.addEventListener("click", () => start(/** @type {Source} */ (source)));
}
page.stop.addEventListener("click", () => stop());
page.other.addEventListener("click", switchCamera);
copies(page.copy, element("copied", HTMLElement), () => page.link.value);
addEventListener("beforeunload", (event) => {
  if (sharing) {
    event.preventDefault();
  }
});
document.addEventListener("visibilitychange", stayAwake);
addEventListener("pagehide", () => stop());

if (!capture.canCapture("camera")) {
  show("idle", ONLY_SECURE);
} else if (!capture.canCapture("screen")) {
  page.hint.textContent = ONLY_CAMERAS;
} else if (!capture.capturesHidden) {
  page.hint.textContent = ONLY_VISIBLE;
}
enable(false);
