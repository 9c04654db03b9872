/** What the pages have in common. */

/** Ms for which it is confirmed that something was copied. */
const CONFIRMED = 3000;

/**
 * Find an element of this page.
 *
 * @template {HTMLElement} E
 * @param {string} id
 * @param {{new (): E}} type
 */
export function element(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) {
    throw new TypeError(`no ${id} on this page`);
  }
  return found;
}

/**
 * Copy a text when a button is pressed, and confirm it for a while.
 *
 * @param {HTMLButtonElement} button
 * @param {HTMLElement} note Where it is confirmed.
 * @param {() => string} text
 */
export function copies(button, note, text) {
  let timer = 0;
  button.addEventListener("click", async () => {
    note.textContent = (await copy(text())) ? "Copied" : "Copying failed";
    clearTimeout(timer);
    timer = window.setTimeout(() => (note.textContent = ""), CONFIRMED);
  });
}

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // plain http, say
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    return isCopied;
  }
}
