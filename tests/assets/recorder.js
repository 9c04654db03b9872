// Takes notes of what a player does, before the page's own scripts run: which pictures it draws and when, what it
// tells of itself, which WebSockets it opens, and which pictures of a decoder it leaves open.
globalThis.recorder = (() => {
  const BITS = 10; // the counter of clips.py
  const draws = [];
  const events = [];
  const sockets = [];
  let pictures = [];

  const probe = new OffscreenCanvas(BITS, 2).getContext("2d", { willReadFrequently: true });
  probe.imageSmoothingEnabled = false; // takes the pixel in the middle of each field

  /** Divide some rows of a canvas into fields; return a pixel of each, line by line. */
  function pixels(canvas, top, rows, columns, lines) {
    probe.drawImage(canvas, 0, top, canvas.width, rows, 0, 0, columns, lines);
    const { data } = probe.getImageData(0, 0, columns, lines);
    return Array.from({ length: columns * lines }, (_, i) => [...data.slice(4 * i, 4 * i + 3)]);
  }

  function look(canvas) {
    const { width, height } = canvas;
    const fields = pixels(canvas, Math.floor(height / 2), 1, BITS, 1);
    return {
      at: Date.now(),
      number: fields.reduce((number, [, green]) => 2 * number + (green > 127), 0),
      colours: pixels(canvas, 0, height, 2, 2),
      size: [width, height],
    };
  }

  for (const method of ["drawImage", "putImageData"]) {
    const draw = CanvasRenderingContext2D.prototype[method];
    CanvasRenderingContext2D.prototype[method] = function (...args) {
      draw.apply(this, args);
      draws.push(look(this.canvas));
    };
  }

  for (const type of ["playing", "paused", "ended", "error", "statechange"]) {
    document.addEventListener(type, ({ detail }) => events.push([type, detail]), true); // they don't bubble
  }

  globalThis.WebSocket = class extends WebSocket {
    constructor(...args) {
      super(...args);
      const note = { asked: performance.now(), closed: null, code: null };
      sockets.push(note);
      this.addEventListener("close", ({ code }) => Object.assign(note, { closed: performance.now(), code }));
    }
  };

  // A closed frame has no format, a closed bitmap no width.
  const isOpen = (picture) => (picture instanceof ImageBitmap ? picture.width > 0 : picture.format !== null);
  const count = { frames: 0, bitmaps: 0 };

  if (globalThis.VideoDecoder) { // not where the context is not secure
    globalThis.VideoDecoder = class extends VideoDecoder {
      constructor({ output, error }) {
        const noted = (frame) => {
          count.frames += 1;
          pictures = [...pictures.filter(isOpen), frame];
          output(frame);
        };
        super({ output: noted, error });
      }
    };
  }

  const createBitmap = createImageBitmap;
  globalThis.createImageBitmap = async (...args) => {
    const bitmap = await createBitmap(...args);
    count.bitmaps += 1;
    pictures = [...pictures.filter(isOpen), bitmap];
    return bitmap;
  };

  return {
    draws,
    events,
    sockets,
    count,
    get number() { return draws.at(-1)?.number; },
    get open() { return pictures.filter(isOpen).length; },
  };
})();
