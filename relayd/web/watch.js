/** The page on which a stream is watched. */

import { copies, element } from "./page.js";
import { RelaydPlayer } from "./player.js";

const player = element("player", RelaydPlayer);
const label = element("label", HTMLElement);

/** The last part of the path, as it is if it can't be decoded. */
function streamId() {
  const part = location.pathname.replace(/\/$/, "").split("/").pop() ?? "";
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const id = streamId();

function show() {
  label.textContent = player.label;
  label.dataset.state = player.state;
  document.title = `${player.label} · ${id} · relayd`;
}

element("stream-id", HTMLElement).textContent = id;
copies(
  element("copy", HTMLButtonElement),
  element("copied", HTMLElement),
  () => location.href,
);
player.addEventListener("statechange", show);
player.src = `/ws/view/${encodeURIComponent(id)}`;
show();
