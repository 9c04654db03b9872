// A streamer and viewers over the WebSocket of whoever runs this: a browser's own, or that of Node's `ws`.
// Frames come in and go out in Base64, because both are driven through JSON.

/** Publish frames; two viewers join first. Returns what each of them saw. */
async function relayVideo({ url, streamId, frames, seconds }) {
  const scene = async () => {
    const streamer = await connect(`${url}/ws/stream`);
    streamer.send(JSON.stringify({ type: "register", stream_id: streamId }));
    const { data } = await next(streamer, "message");
    if (JSON.parse(data).type !== "registered") throw new Error(data);
    const viewers = [await join(url, streamId), await join(url, streamId)];
    for (const frame of frames) streamer.send(fromBase64(frame));
    streamer.close(1000);
    return Promise.all(viewers.map((viewer) => viewer.end()));
  };
  return within(seconds, scene());
}

/** Ask for a stream. Returns what the viewer saw, in a list. */
async function watch({ url, streamId, seconds }) {
  const scene = async () => [await (await join(url, streamId)).end()];
  return within(seconds, scene());
}

/** Subscribe; wait for the first answer. */
async function join(url, streamId) {
  const socket = await connect(`${url}/ws/view/${streamId}`);
  const frames = [];
  const texts = [];
  socket.addEventListener("message", ({ data }) => {
    if (typeof data === "string") texts.push([frames.length, JSON.parse(data)]);
    else frames.push(data);
  });
  const closed = next(socket, "close");
  socket.send(JSON.stringify({ type: "subscribe", stream_id: streamId }));
  await next(socket, "message");
  const end = async () => {
    const { code } = await closed;
    return { frames: frames.map(toBase64), texts, close_code: code };
  };
  return { end };
}

async function connect(url) {
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  await next(socket, "open");
  return socket;
}

/** Wait for an event; it is an error if the connection ends instead. */
function next(socket, kind) {
  return new Promise((resolve, reject) => {
    socket.addEventListener(kind, resolve, { once: true });
    const fail = ({ type, code, message }) =>
      reject(new Error(`${type} instead of ${kind}: ${message ?? code} (${socket.url})`));
    socket.addEventListener("error", fail, { once: true });
    socket.addEventListener("close", fail, { once: true });
  });
}

async function within(seconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done in ${seconds} s`)), 1000 * seconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function toBase64(buffer) {
  return btoa(Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join(""));
}
