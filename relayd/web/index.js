/** The front page: the way to a stream, and the lines that show one elsewhere. */

import { copies, element } from "./page.js";

const STREAM_ID = /^[A-Za-z0-9_-]{1,64}$/;

const form = element("watch", HTMLFormElement);
const field = element("stream-id", HTMLInputElement);
const hint = element("hint", HTMLElement);
const snippet = element("snippet", HTMLElement);

/** Return the id that was typed or is in the link that was pasted. @param {string} text */
function idIn(text) {
  const typed = text.trim();
  const id = typed.match(/\/watch\/([^/?#]+)/)?.[1] ?? typed;
  return STREAM_ID.test(id) ? id : null;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const id = idIn(field.value);
  if (id) {
    location.assign(`/watch/${id}`);
    return;
  }
  hint.textContent = field.value.trim()
    ? "An id has 1 to 64 letters, digits, - and _."
    : "Type an id, or paste a link.";
  field.ariaInvalid = "true";
  field.focus();
});

field.addEventListener("input", () => {
  field.ariaInvalid = null;
});

const server = location.origin.replace(/^http/, "ws");
snippet.textContent =
  `<script type="module" src="${location.origin}/player.js"></script>\n` +
  `<relayd-player src="${server}/ws/view/ID" autoplay></relayd-player>`;
copies(
  element("copy", HTMLButtonElement),
  element("copied", HTMLElement),
  () => snippet.textContent ?? "",
);
