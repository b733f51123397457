// Report: a sequence of panels with buttons, a slider and Play; each panel is a view drawn by its kind's renderer.

import { el } from "../dom.js";

/** data: a Report. onPick({panel}) reports each panel, for the URL state. */
export function mount(root, data, { onPick = (_) => {}, picked = null, renderView = null } = {}) {
  let view = data;
  let index = 0;
  let renderer = null;
  let timer = 0;
  const backButton = el("button", { type: "button", onclick: () => showPanel(index - 1) }, "◀ Back");
  const nextButton = el("button", { type: "button", onclick: () => showPanel(index + 1) }, "Next ▶");
  const play = el("button", { type: "button", "aria-pressed": "false", onclick: togglePlay }, "Play");
  const slider = el("input", { type: "range", min: 0, value: 0, "aria-label": "panel", oninput: () => showPanel(Number(slider.value)) });
  const progress = el("output", {});
  const title = el("h3", {});
  const captionLine = el("p", { class: "caption" });
  const body = el("div", { class: "report-body" });
  root.replaceChildren(el("div", { class: "stepper" }, backButton, play, nextButton, slider, progress), title, captionLine, body);

  function update(next) {
    view = next;
    slider.max = view.panels.length - 1;
    root.dataset.steps = view.panels.length;
    showPanel(Math.min(Number(picked?.panel ?? index), view.panels.length - 1), false);
  }

  function showPanel(position, notify = true) {
    index = Math.max(0, Math.min(view.panels.length - 1, position));
    const panel = view.panels[index];
    renderer?.destroy?.();
    renderer = renderView(body, panel, { onPick });
    slider.value = index;
    progress.textContent = `${index + 1} of ${view.panels.length}`;
    title.textContent = panel.title;
    captionLine.textContent = panel.caption ?? "";
    captionLine.hidden = !panel.caption;
    backButton.disabled = index === 0;
    nextButton.disabled = index === view.panels.length - 1;
    root.dataset.panel = index;
    if (nextButton.disabled) stop();
    if (notify) onPick({ panel: index, pinned: true });
  }

  function togglePlay() {
    if (timer) return stop();
    play.setAttribute("aria-pressed", "true");
    play.textContent = "Pause";
    if (index === view.panels.length - 1) showPanel(0);
    timer = setInterval(() => (root.isConnected ? showPanel(index + 1) : stop()), 1600);
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    play.setAttribute("aria-pressed", "false");
    play.textContent = "Play";
  }

  update(data);
  return {
    update,
    destroy: () => (stop(), renderer?.destroy?.()),
    state: () => ({ panel: index, ...renderer?.state() }),
    svg: () => null,
    csv: () => null,
  };
}
