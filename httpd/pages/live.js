// Keeps the parts of a page that change up to date by server-sent events. Without it the pages work the same, by reloading.
(() => {
  "use strict";
  const source = document.body.dataset.live;
  const state = document.getElementById("livestate");
  const announce = document.getElementById("announce");
  if (!source || !state || !window.EventSource) return;

  let stream = null;
  let told = spoken();

  const show = (text, good) => {
    state.hidden = false;
    state.textContent = text;
    state.classList.toggle("off", !good);
  };

  // spoken is what a screen reader is to be told when it changes.
  function spoken() {
    return [...document.querySelectorAll("[data-announce]")].map((e) => e.textContent.replace(/\s+/g, " ").trim()).join(". ");
  }

  // replace puts new content into an element, and what a person has chosen, opened, written or reached by keyboard back into it.
  function replace(element, html) {
    const selection = window.getSelection();
    if (selection && !selection.isCollapsed && element.contains(selection.anchorNode)) return; // somebody is copying from it
    const active = element.contains(document.activeElement) ? document.activeElement : null;
    const path = active ? keyOf(active) : null;
    const checked = [...element.querySelectorAll("input[type=checkbox]:checked")].map((e) => e.value);
    const written = [...element.querySelectorAll("input[id]")].filter((e) => e.type !== "checkbox" && e.type !== "hidden").map((e) => [e.id, e.value]);
    const open = [...element.querySelectorAll("details[open][id]")].map((e) => e.id);
    element.innerHTML = html;
    for (const box of element.querySelectorAll("input[type=checkbox]")) box.checked = checked.includes(box.value);
    for (const [id, value] of written) {
      const field = document.getElementById(id);
      if (field) field.value = value;
    }
    for (const id of open) {
      const details = document.getElementById(id);
      if (details) details.open = true;
    }
    if (path) {
      const again = [...element.querySelectorAll("a, button, input, select, summary")].filter((e) => keyOf(e) === path)[0];
      if (again) again.focus({ preventScroll: true });
    }
  }

  const keyOf = (e) => [e.tagName, e.id, e.getAttribute("name"), e.getAttribute("href"), e.getAttribute("value"), e.textContent].join("|");

  function start() {
    if (stream) return;
    stream = new EventSource(source);
    stream.addEventListener("open", () => show("Live", true));
    stream.addEventListener("part", (event) => {
      const part = JSON.parse(event.data);
      const element = document.getElementById(part.id);
      if (element) replace(element, part.html);
      const now = spoken();
      if (now !== told && announce) announce.textContent = now;
      told = now;
    });
    stream.addEventListener("signedout", () => location.reload());
    stream.addEventListener("gone", () => {
      stop();
      show("No longer here", false);
    });
    stream.addEventListener("error", () => {
      show("Not connected", false);
      if (stream && stream.readyState === EventSource.CLOSED) {
        stop();
        setTimeout(start, 10000);
      }
    });
  }

  function stop() {
    if (stream) stream.close();
    stream = null;
  }

  // A page nobody sees need not be kept up to date. Shown again it starts from what the server has then.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop();
    else start();
  });
  window.addEventListener("pagehide", stop);
  start();
})();
