// Walk: views one after another as a stepper; each is drawn by its own kind's drawer.

import { el } from "../dom.js";

/** data: a Walk. onPick({stage}) tells of each step, so that the address can hold it. */
export function mount(root, data, { onPick = (_) => {}, picked = null, renderView = null } = {}) {
  let view = data;
  let at = 0;
  let renderer = null;
  let playing = 0;
  const back = el("button", { type: "button", onclick: () => go(at - 1) }, "◀ Back");
  const on = el("button", { type: "button", onclick: () => go(at + 1) }, "Next ▶");
  const play = el("button", { type: "button", "aria-pressed": "false", onclick: toggle }, "Play");
  const scrub = el("input", { type: "range", min: 0, value: 0, "aria-label": "step", oninput: () => go(Number(scrub.value)) });
  const where = el("output", {});
  const title = el("h3", {});
  const look = el("p", { class: "look" });
  const body = el("div", { class: "walk-body" });
  root.replaceChildren(el("div", { class: "stepper" }, back, play, on, scrub, where), title, look, body);

  function update(next) {
    view = next;
    scrub.max = view.panels.length - 1;
    root.dataset.steps = view.panels.length;
    go(Math.min(Number(picked?.stage ?? at), view.panels.length - 1), false);
  }

  function go(place, tell = true) {
    at = Math.max(0, Math.min(view.panels.length - 1, place));
    const step = view.panels[at];
    renderer?.end?.();
    renderer = renderView(body, step, { onPick });
    scrub.value = at;
    where.textContent = `${at + 1} of ${view.panels.length}`;
    title.textContent = step.title;
    look.textContent = step.caption ?? "";
    look.hidden = !step.caption;
    back.disabled = at === 0;
    on.disabled = at === view.panels.length - 1;
    root.dataset.stage = at;
    if (on.disabled) stop();
    if (tell) onPick({ stage: at, pinned: true });
  }

  function toggle() {
    if (playing) return stop();
    play.setAttribute("aria-pressed", "true");
    play.textContent = "Pause";
    if (at === view.panels.length - 1) go(0);
    playing = setInterval(() => (root.isConnected ? go(at + 1) : stop()), 1600);
  }

  function stop() {
    clearInterval(playing);
    playing = 0;
    play.setAttribute("aria-pressed", "false");
    play.textContent = "Play";
  }

  update(data);
  return {
    update,
    end: () => (stop(), renderer?.end?.()),
    state: () => ({ stage: at, ...renderer?.state() }),
    svg: () => null,
    csv: () => null,
  };
}
