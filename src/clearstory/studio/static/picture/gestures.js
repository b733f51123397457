// Gestures: what stands under the pointer, and what pointing, clicking and the keys do.

import { inside } from "./paint.js";
import { stageWidth, stageX } from "./stream_drawing.js";
import { ALL, STEP, arrival } from "./timeline.js";

const ROW_PARTS = ["embedding", "final", "before", "query", "output", "added", "afterAttention", "neurons", "feedForward", "after"];

/** The part of the picture at a point, as a selection; null if there is none. */
export function partAt(p, x, y) {
  const { box, story } = p;
  const { n } = story;
  const length = (kind) => ({ query: story.headDim, output: story.headDim, neurons: story.neurons[0].length })[kind] ?? story.dimensions.length;
  for (let row = 0; row < n; row++) {
    for (const kind of ROW_PARTS) {
      const b = box[kind]?.(row);
      if (inside(b, x, y, 1)) return { kind, row, index: slot(x - b.x, b.w, length(kind)) };
    }
    for (const kind of ["key", "value"]) {
      const b = box[kind](row);
      if (inside(b, x, y, 1)) return { kind, row, index: slot(y - b.y, b.h, story.headDim) };
    }
  }
  const { grid, cell, river } = box;
  if (inside(grid, x, y)) return { kind: "grid", row: slot(y - grid.y, cell * n, n), column: slot(x - grid.x, cell * n, n) };
  if (x >= river.x0 && x <= river.x1 && y >= river.y0 && y <= river.y1)
    return { kind: "stream", row: slot(y - river.y0, river.y1 - river.y0, n), layer: Math.min(story.layers - 1, slot(x - river.x0, river.x1 - river.x0, story.layers + 1)) };
  return null;
}

const slot = (at, size, count) => Math.max(0, Math.min(count - 1, Math.floor((at / size) * count)));

/**
 * Wires the elements.
 * @param {any} p the picture
 * @param {any} clock
 * @param {Record<string, (...args: any[]) => void>} act point(selection), pin(selection), openHead(layer, head), draw(k), temperature(value),
 *   edit(), span(action)
 * @returns {() => void} removes what listens outside of the picture
 */
export function wire(p, clock, act) {
  const at = (event) => {
    const r = p.canvas.getBoundingClientRect();
    p.pointer = { x: event.clientX - r.left, y: event.clientY - r.top };
    return p.story ? partAt(p, p.pointer.x, p.pointer.y) : null;
  };
  for (const surface of [p.canvas, p.grid]) {
    surface.addEventListener("pointermove", (event) => {
      const h = at(event);
      surface.style.setProperty("cursor", h ? "pointer" : "default");
      act.point(h);
    });
    surface.addEventListener("pointerleave", () => act.point(null));
    surface.addEventListener("click", (event) => act.pin(at(event)));
  }
  // A button that was clicked with the pointer leaves the keys to the picture: Space plays.
  p.stage.addEventListener("click", (event) => event.detail > 0 && event.target.closest("button") && document.activeElement === event.target.closest("button") && event.target.closest("button").blur());
  p.stage.addEventListener("pointerleave", () => (p.pointer = null));
  rowsOf(p.chips, act);
  rowsOf(p.sentence, act);
  p.sentence.addEventListener("click", (event) => event.target.closest(".caret") && act.edit());
  p.editButton.onclick = () => act.edit();
  wireBars(p, act);
  wireHeads(p, act);
  wireGrid(p, act);
  p.spans.addEventListener("click", (event) => event.target.dataset.span && act.span(event.target.dataset.span));
  p.hands.play.onclick = () => clock.play(!p.playing);
  p.hands.back.onclick = () => clock.go(-1);
  p.hands.forth.onclick = () => clock.go(1);
  p.hands.all.onclick = () => clock.jump(ALL);
  p.hands.scrub.oninput = () => clock.jump(Number(p.hands.scrub.value));
  const onKey = (event) => {
    if (!p.story || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea, summary, .picture-grid, [role=listbox]")) return;
    if (event.key === "Escape") act.pin(null);
    else if (event.key === "ArrowRight") clock.go(1);
    else if (event.key === "ArrowLeft") clock.go(-1);
    else if (event.key === " " && !event.target.closest?.("button, a")) {
      event.preventDefault();
      clock.play(!p.playing);
    }
  };
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}

/** Pointing at a token, in the sentence or as a chip, lights its row. */
function rowsOf(room, act) {
  const row = (event) => event.target.closest("[data-row]")?.dataset.row;
  const point = (event) => row(event) !== undefined && act.point({ kind: "token", row: Number(row(event)) });
  for (const kind of ["pointerover", "focusin"]) room.addEventListener(kind, point);
  for (const kind of ["pointerleave", "focusout"]) room.addEventListener(kind, () => act.point(null));
  room.addEventListener("click", (event) => row(event) !== undefined && act.pin({ kind: "token", row: Number(row(event)) }));
}

function wireBars(p, act) {
  const bar = (event) => event.target.closest("[data-bar]")?.dataset.bar;
  const ready = () => p.story && (p.at >= ALL || arrival(p, STEP.next, p.story.predicted, 0) > 0.5);
  for (const kind of ["pointerover", "focusin"]) p.bars.addEventListener(kind, (event) => bar(event) !== undefined && ready() && act.point({ kind: "bar", row: p.story.predicted, bar: Number(bar(event)) }));
  for (const kind of ["pointerleave", "focusout"]) p.bars.addEventListener(kind, () => act.point(null));
  p.bars.addEventListener("click", (event) => bar(event) !== undefined && ready() && act.draw(Number(bar(event))));
  p.sample.onclick = () => act.draw(null);
  p.temperature_input.oninput = () => act.temperature(Number(p.temperature_input.value));
}

function wireHeads(p, act) {
  p.layer.onchange = () => act.openHead(Number(p.layer.value), p.story.head);
  p.head.onchange = () => act.openHead(p.story.layer, Number(p.head.value));
  p.clearest.onclick = () => act.openHead(null, null);
  const head = (event) => event.target.closest("[data-head]")?.dataset.head;
  for (const kind of ["pointerover", "focusin"]) p.small.addEventListener(kind, (event) => head(event) !== undefined && act.point({ kind: "small", index: Number(head(event)) }));
  for (const kind of ["pointerleave", "focusout"]) p.small.addEventListener(kind, () => act.point(null));
  p.small.addEventListener("click", (event) => head(event) !== undefined && act.openHead(p.story.layer, Number(head(event))));
  p.axis.addEventListener("click", (event) => {
    const r = p.axis.getBoundingClientRect();
    const stage = Math.floor(((event.clientX - r.left) / r.width) * (p.story.layers + 1)) - 1;
    act.openHead(Math.max(0, Math.min(p.story.layers - 1, stage)), p.story.head);
  });
}

/** Arrow keys move from cell to cell of the grid; Enter pins, Esc releases and leaves. */
function wireGrid(p, act) {
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const current = () => [p.hover, p.pinned].find((h) => h?.kind === "grid");
  p.grid.addEventListener("focus", () => {
    p.pointer = null;
    if (!current() && p.grid.matches(":focus-visible")) act.point({ kind: "grid", row: Math.min(p.clearest, p.story.n - 1), column: 0 });
  });
  p.grid.addEventListener("blur", () => act.point(null));
  p.grid.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    const h = current() ?? { kind: "grid", row: p.clearest, column: 0 };
    if (event.key === "Enter" || event.key === " ") act.pin(h);
    else if (event.key === "Escape") act.pin(null);
    else if (move) {
      const within = (x) => Math.max(0, Math.min(p.story.n - 1, x));
      const next = { kind: "grid", row: within(h.row + move[0]), column: within(h.column + move[1]) };
      p.pointer = null;
      if (p.pinned) act.pin(next, true);
      act.point(next);
    } else return;
    event.preventDefault();
  });
}

/** The strip of layer numbers beneath the streams. */
export const axisBox = (p) => ({ x: stageX(p, 0), y: p.box.river.bottom + 3 * p.box.u, w: stageWidth(p) * (p.story.layers + 1), h: 30 * p.box.u });

