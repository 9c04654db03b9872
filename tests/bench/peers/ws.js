// Node.js and the npm package `ws`, as its documentation broadcasts.
//
// Usage: node ws.js PORT (on 127.0.0.1).

const { WebSocketServer } = require("ws");

const viewers = new Map();
const options = {
  host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: false, maxPayload: 0,
};
const server = new WebSocketServer(options);

server.on("connection", (socket, request) => {
  const say = (type, id) => socket.send(JSON.stringify({ type, stream_id: id }));
  const isStreamer = request.url === "/ws/stream";
  let id = null;

  socket.on("error", () => socket.terminate());
  socket.on("message", (data, isBinary) => {
    if (isBinary) {
      for (const viewer of viewers.get(id)) viewer.send(data, { binary: true });
    } else if (isStreamer) {
      id = JSON.parse(data).stream_id;
      viewers.set(id, new Set());
      say("registered", id);
    } else {
      id = request.url.slice(request.url.lastIndexOf("/") + 1);
      viewers.get(id).add(socket);
      say("subscribed", id);
    }
  });
  socket.on("close", () => {
    if (!isStreamer) viewers.get(id)?.delete(socket);
  });
});
