/** Pictures of a screen, a window or a camera. */

/** @typedef {VideoFrame | ImageBitmap} Picture */

/** @typedef {"screen" | "window" | "camera"} Source */

/**
 * Gives the frames of a track: https://www.w3.org/TR/mediacapture-transform/
 *
 * @typedef {{readable: ReadableStream<VideoFrame>}} TrackProcessor
 */

/** @type {(new (init: {track: MediaStreamTrack}) => TrackProcessor) | undefined} */
const MediaStreamTrackProcessor = Reflect.get(globalThis, "MediaStreamTrackProcessor");

/** Ms after a frame of a video element at which it is looked at again. */
const LATE_LOOK = 250;

/** Ms without a first picture after which the browser is asked for one. */
const FIRST_PATIENCE = 1000;

const FRAME_RATE = { ideal: 30, max: 30 };

/** Software encoders can do no more. */
const LARGEST_SCREEN = { width: { max: 1920 }, height: { max: 1080 } };
const LARGEST_CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 } };

/** Whether a page that is not seen, behind another tab, gets pictures too. */
export const capturesHidden = MediaStreamTrackProcessor !== undefined;

/**
 * What this browser can capture on this page; an insecure one has no media devices.
 *
 * @param {Source} source
 */
export function canCapture(source) {
  const devices = /** @type {MediaDevices | undefined} */ (navigator.mediaDevices);
  return Boolean(source === "camera" ? devices?.getUserMedia : devices?.getDisplayMedia);
}

/**
 * Ask for a screen or a window, with the browser's own picker.
 *
 * @param {"screen" | "window"} source
 */
export function captureScreen(source) {
  const displaySurface = source === "screen" ? "monitor" : "window";
  return navigator.mediaDevices.getDisplayMedia({
    video: { frameRate: FRAME_RATE, ...LARGEST_SCREEN, displaySurface },
    audio: false,
  });
}

/**
 * Ask for a camera.
 *
 * @param {MediaTrackConstraints} [which]
 */
export function captureCamera(which = {}) {
  return navigator.mediaDevices.getUserMedia({
    video: { frameRate: FRAME_RATE, ...LARGEST_CAMERA, ...which },
    audio: false,
  });
}

/**
 * Return constraints for another camera than this track's; null: there is none.
 *
 * A phone has several that face the same way: there the other side counts.
 *
 * @param {MediaStreamTrack} track
 */
export async function otherCamera(track) {
  const devices = await navigator.mediaDevices.enumerateDevices();
  const ids = devices.filter((device) => device.kind === "videoinput").map((it) => it.deviceId);
  if (ids.length < 2) {
    return null;
  }
  const { facingMode, deviceId } = track.getSettings();
  if (facingMode) {
    return { facingMode: facingMode === "user" ? "environment" : "user" };
  }
  return { deviceId: { exact: ids[(ids.indexOf(deviceId ?? "") + 1) % ids.length] } };
}

/**
 * Say in words why nothing could be captured, and what to do.
 *
 * @param {unknown} error
 * @param {Source} source
 */
export function explain(error, source) {
  const { name, message } = /** @type {Error} */ (error);
  const isCamera = source === "camera";
  if (name === "NotAllowedError") {
    return isCamera
      ? "The camera is blocked. Allow it in the settings of this site, beside the address, and " +
          "choose it again."
      : "It was not allowed. Choose again, and allow it in the browser; some systems ask for it " +
          "in their privacy settings too.";
  }
  if (name === "NotFoundError" || name === "OverconstrainedError") {
    return isCamera
      ? "No camera was found. Connect one, and choose it again."
      : "There is nothing of this kind to share. Choose something else.";
  }
  if (name === "NotReadableError") {
    return isCamera
      ? "The camera can't be used. Close the programs that use it, and choose it again."
      : "The system does not let the browser see it. Allow that in its privacy settings.";
  }
  return `It could not be captured: ${message}. Try something else.`;
}

/**
 * Take the pictures of a track until the signal; who takes one must close it.
 *
 * @param {MediaStreamTrack} track
 * @param {HTMLVideoElement} video Shows the track, for browsers that give no frames of it else.
 * @param {(picture: Picture) => void} take
 * @param {AbortSignal} signal
 */
export function takePictures(track, video, take, signal) {
  const settle = refreshUntilSettled(track);
  signal.addEventListener("abort", settle);
  const settleAndTake = (/** @type {Picture} */ picture) => {
    settle();
    take(picture);
  };
  if (MediaStreamTrackProcessor) {
    const { readable } = new MediaStreamTrackProcessor({ track });
    readTrack(readable.getReader(), settleAndTake, signal);
  } else {
    watchVideo(video, settleAndTake, signal);
  }
}

/**
 * Ask for a first picture now and then, until the returned function is called.
 *
 * Of a tab that stands still Chromium at times loses the only one; when somebody else begins to
 * look at the same source, everybody gets another.
 *
 * @param {MediaStreamTrack} track
 */
function refreshUntilSettled(track) {
  const other = document.createElement("video");
  other.autoplay = other.muted = true;
  /** @type {MediaStreamTrack | null} */
  let copy = null;
  const timer = setInterval(() => {
    copy?.stop();
    copy = track.clone();
    other.srcObject = new MediaStream([copy]);
  }, FIRST_PATIENCE);
  return () => {
    clearInterval(timer);
    copy?.stop();
  };
}

/**
 * @param {ReadableStreamDefaultReader<VideoFrame>} reader
 * @param {(picture: Picture) => void} take
 * @param {AbortSignal} signal
 */
async function readTrack(reader, take, signal) {
  signal.addEventListener("abort", () => reader.cancel());
  for (;;) {
    const { value } = await reader.read();
    if (!value) {
      return;
    }
    if (signal.aborted) {
      value.close();
    } else {
      take(value);
    }
  }
}

/**
 * @param {HTMLVideoElement} video
 * @param {(picture: Picture) => void} take
 * @param {AbortSignal} signal
 */
function watchVideo(video, take, signal) {
  let timer = 0;
  let isFirst = true;
  const look = () => {
    const picture = signal.aborted ? null : pictureOf(video);
    if (picture) {
      take(picture);
    }
  };
  const step = () => {
    // The first picture is black yet, and on a screen that stands still no other one comes.
    if (!isFirst) {
      look();
    }
    isFirst = false;
    clearTimeout(timer);
    timer = window.setTimeout(look, LATE_LOOK);
    if (!signal.aborted) {
      video.requestVideoFrameCallback(step);
    }
  };
  video.requestVideoFrameCallback(step);
}

/** @param {HTMLVideoElement} video @returns {Picture | null} */
function pictureOf(video) {
  if (globalThis.VideoFrame) {
    try {
      return new VideoFrame(video);
    } catch { // there is none now
      return null;
    }
  }
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.drawImage(video, 0, 0);
  return canvas.transferToImageBitmap();
}
