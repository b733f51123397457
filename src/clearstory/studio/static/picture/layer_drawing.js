// Layer drawing: the lower band, one layer of the stream opened like a drawer. Rows from E to E″, columns of keys and values.

import { bare, clip, ease, fly, letters, mix, outline, put, upright } from "./paint.js";
import { focusRow, lit, shown } from "./selection.js";
import { stageWidth, stageX } from "./stream_drawing.js";
import { STEP, arrival, stepAt, stretch } from "./timeline.js";

/** The drawer, and the funnel from the open layer down to it. */
export function drawDrawer(p) {
  const { ctx, box, colours, story } = p;
  const { lens, river, u } = box;
  ctx.fillStyle = colours.query;
  ctx.globalAlpha = 0.06 + 0.06 * arrival(p, STEP.open, 0, 0);
  if (!box.narrow) {
    const [x0, x1, y] = [stageX(p, story.layer), stageX(p, story.layer + 2), river.bottom + 2];
    ctx.beginPath();
    ctx.moveTo(x0, y);
    ctx.lineTo(x1, y);
    ctx.bezierCurveTo(x1, y + 30 * u, lens.x + lens.w, lens.y - 30 * u, lens.x + lens.w, lens.y);
    ctx.lineTo(lens.x, lens.y);
    ctx.bezierCurveTo(lens.x, lens.y - 30 * u, x0, y + 30 * u, x0, y);
    ctx.fill();
  }
  ctx.globalAlpha = 1;
  ctx.fillStyle = colours.paper;
  ctx.strokeStyle = colours.edge;
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.roundRect(lens.x + 0.5, lens.y + 0.5, lens.w - 1, lens.h - 1, 10);
  ctx.fill();
  ctx.stroke();
}

/** The strips of a row with the step, and the stretch of it, in which they arrive. */
const ROW_PARTS = [
  ["before", STEP.open], ["query", STEP.project], ["output", STEP.values], ["added", STEP.add, 0, 0.5], ["afterAttention", STEP.add, 0.5, 1],
  ["feedForward", STEP.feedForward, 0.33, 0.66], ["after", STEP.feedForward, 0.66, 1],
];

/** The rows whose labels have room; the row that is spoken of is always among them. */
function isLabelled(p, row, pitch) {
  const high = labelSize(p) * 1.02;
  const every = Math.ceil(high / pitch);
  const main = shown(p)?.row ?? focusRow(p);
  return row === main || (row % every === 0 && Math.abs(row - main) * pitch >= high);
}

/** Pixels of a row's label: as the row allows, and ten at least. */
const labelSize = (p) => Math.max(10, Math.min(11 * Math.min(1.25, p.box.u), p.box.cell * 0.8));

export function drawRows(p) {
  for (let t = 0; t < p.story.n; t++) drawRow(p, t);
}

function drawRow(p, t) {
  const { ctx, box, art, colours } = p;
  drawLabels(p, t);
  for (const [name, step, from, to] of ROW_PARTS) {
    if (!box[name]) continue;
    const a = from === undefined ? arrival(p, step, t) : stretch(p, step, t, from, to) ** 2;
    const strength = lit(p, name, t);
    outline(ctx, colours.rule, box[name](t), strength);
    put(ctx, art[name][t], box[name](t), (0.08 + 0.92 * a) * strength);
  }
  drawNeurons(p, t);
  drawMoving(p, t);
  if (lit(p, "query", t) > 0.5 && box.cell >= 13) drawSigns(p, t);
}

function drawLabels(p, t) {
  const { ctx, box, colours, story } = p;
  const isMain = (shown(p)?.row ?? focusRow(p)) === t;
  const text = clip(bare(story.labels[t]), 9);
  const [x, y] = box.label(t);
  ctx.globalAlpha = Math.max(0.3, lit(p, "before", t)) * (0.35 + 0.65 * arrival(p, STEP.open, t));
  letters(ctx, 1, colours.ink, labelSize(p), "right", isMain ? 700 : 400);
  if (isLabelled(p, t, box.cell)) ctx.fillText(text, x, y);
  if (box.narrow) ctx.fillText(text, x, box.tailY(t));
  ctx.globalAlpha = 1;
}

/** The largest neurons of a token, as bars. */
function drawNeurons(p, t) {
  const { ctx, box, colours, story } = p;
  const b = box.neurons(t);
  const a = stretch(p, STEP.feedForward, t, 0, 0.33);
  const values = story.neurons[t];
  const largest = Math.max(1e-9, Math.abs(values[0].value));
  const w = b.w / values.length;
  outline(ctx, colours.rule, b, lit(p, "feedForward", t));
  ctx.fillStyle = colours.delta;
  values.forEach(({ value }, i) => {
    const high = (Math.abs(value) / largest) * (b.h - 2) * a;
    ctx.globalAlpha = lit(p, "feedForward", t) * (value < 0 ? 0.45 : 0.95);
    ctx.fillRect(b.x + i * w + 1, b.y + b.h - 1 - high, Math.max(1, w - 1.5), high);
  });
  ctx.globalAlpha = 1;
}

/** What is on its way now. */
function drawMoving(p, t) {
  const { ctx, box, art, story } = p;
  const now = stepAt(p);
  const slice = { x: stageX(p, story.layer), y: box.y(t) - box.strip / 2, w: stageWidth(p), h: box.strip };
  const [labelX] = box.label(t);
  const before = box.before ? box.before(t) : { x: labelX - 40, y: box.my(t) - 5, w: 36, h: 10 };
  const move = (step, img, from, to, a, turn = 0) => now === step && a > 0 && a < 1 && fly(ctx, img, from, to, a, turn);
  move(STEP.open, art.slice[t], slice, before, arrival(p, STEP.open, t));
  move(STEP.project, art.query[t], before, box.query(t), arrival(p, STEP.project, t));
  move(STEP.project, art.key[t], before, box.key(t), arrival(p, STEP.project, t), 1);
  const neurons = box.neurons(t);
  move(STEP.add, art.output[t], box.output(t), box.added(t), stretch(p, STEP.add, t, 0, 0.5));
  move(STEP.add, art.added[t], box.added(t), box.afterAttention(t), stretch(p, STEP.add, t, 0.5, 1));
  move(STEP.feedForward, art.afterAttention[t], box.afterAttention(t), neurons, stretch(p, STEP.feedForward, t, 0, 0.33));
  move(STEP.feedForward, art.feedForward[t], neurons, box.feedForward(t), stretch(p, STEP.feedForward, t, 0.33, 0.66));
  move(STEP.feedForward, art.feedForward[t], box.feedForward(t), box.after(t), stretch(p, STEP.feedForward, t, 0.66, 1));
  const passed = p.at - STEP.onward;
  if (now === STEP.onward && passed < 0.3) fly(ctx, art.after[t], box.after(t), { ...slice, x: stageX(p, story.layer + 1) }, ease(passed / 0.3));
}

function drawSigns(p, t) {
  const { ctx, box, colours } = p;
  const middle = (from, to) => (from.x + from.w + to.x) / 2;
  letters(ctx, box.u, colours.soft, 11, "center");
  for (const [sign, from, to] of [["→", "output", "added"], ["+", "added", "afterAttention"], ["→", "afterAttention", "neurons"], ["+", "feedForward", "after"]]) {
    if (box.narrow && from === "output") continue;
    ctx.fillText(sign, middle(box[from](t), box[to](t)), box.tailY(t));
  }
}

/** Keys stand above the grid, values below it. */
export function drawColumns(p) {
  const { ctx, box, art, colours, story } = p;
  const now = stepAt(p);
  for (let s = 0; s < story.n; s++) {
    const value = now === STEP.values && !p.round ? ease((p.at - now) * 3) : arrival(p, STEP.values, s);
    for (const [name, a] of /** @type {[string, number][]} */ ([["key", arrival(p, STEP.project, s)], ["value", value]])) {
      outline(ctx, colours.rule, box[name](s), lit(p, name, s));
      upright(ctx, art[name][s], box[name](s), (0.08 + 0.92 * a) * lit(p, name, s));
    }
    drawColumnLabel(p, s);
  }
}

function drawColumnLabel(p, s) {
  const { ctx, box, colours, story } = p;
  const column = shown(p)?.column ?? (["key", "value"].includes(shown(p)?.kind) ? shown(p).row : -1);
  const every = Math.ceil(15 / box.cell);
  if (s !== column && (s % every !== 0 || (column >= 0 && Math.abs(s - column) < every))) return;
  const b = box.key(s);
  letters(ctx, box.u, s === column ? colours.ink : colours.soft, 10, "left", s === column ? 700 : 400);
  ctx.save();
  ctx.globalAlpha = Math.max(0.3, lit(p, "key", s)) * (0.35 + 0.65 * arrival(p, STEP.project, s));
  ctx.translate(b.x + b.w / 2, b.y + b.h + 17 * box.u);
  ctx.rotate(-Math.PI / 5);
  ctx.fillText(clip(bare(story.labels[s]), 4), -7 * box.u, -1 * box.u);
  ctx.restore();
}

/** One line under each column: how its numbers are made; and the heads of the layer as small patterns. */
export function drawNotes(p) {
  const { ctx, box, colours, story, art } = p;
  if (!box.narrow) {
    letters(ctx, box.u, colours.soft, 10, "left");
    const sum = story.architecture.norm_first ? "E′ + sum" : "norm(E′ + sum)";
    for (const [part, text] of [["output", "p · V"], ["added", "× W_out"], ["afterAttention", story.heads > 1 ? `+ ${story.heads} heads` : "E + ΔE"], ["neurons", "neurons"], ["feedForward", "sum"], ["after", sum]])
      ctx.fillText(text, box[part](0).x, box.note);
  }
  const over = p.hover?.kind === "small" ? p.hover.index : -1;
  box.small.forEach((b, i) => {
    const mine = i === story.head;
    ctx.strokeStyle = mine ? colours.query : i === over ? colours.accent : colours.edge;
    ctx.lineWidth = mine ? 2 : 1;
    ctx.strokeRect(b.x - 0.5, b.y - 0.5, b.w + 1, b.h + 1);
    put(ctx, art.small[i], b, mine || i === over ? 1 : 0.8);
    if (b.w < 30 || story.heads > 13) return;
    letters(ctx, box.u, mine ? colours.ink : colours.soft, 10, "center", mine ? 700 : 400);
    ctx.fillText(`${story.layer}.${i}`, b.x + b.w / 2, b.y + b.h + 8 * box.u);
  });
}

/** Values rise up their columns, shrink at the dots and run along the rows to the sum. */
export function drawValues(p) {
  const { ctx, box, art, story, colours } = p;
  if (stepAt(p) !== STEP.values) return;
  const f = p.at - STEP.values;
  for (let t = p.round ? story.n - 1 : 0; t < story.n; t++)
    for (let s = 0; s < story.n; s++) {
      const weight = story.pattern[t][s];
      const a = ease((f - 0.08 - (p.round ? 0 : (0.35 * t) / story.n)) / 0.5);
      if (weight < 0.06 || a <= 0 || a >= 1) continue;
      const [x, y, from, end] = [box.grid.x + (s + 0.5) * box.cell, box.my(t), box.value(s), box.output(t)];
      const [up, along] = [from.y - y, end.x - x];
      const turn = up / (up + along);
      const alpha = lit(p, "output", t) * (0.25 + 0.75 * weight);
      ctx.strokeStyle = colours.value;
      ctx.beginPath();
      if (a < turn) {
        const at = mix(from.y, y, a / turn);
        ctx.globalAlpha = 0.35 * alpha;
        ctx.lineWidth = 1.5;
        ctx.moveTo(x, from.y);
        ctx.lineTo(x, at);
        ctx.stroke();
        upright(ctx, art.value[s], { x: x - from.w / 2, y: at - 10, w: from.w, h: 20 }, alpha);
      } else {
        const at = mix(x, end.x, (a - turn) / (1 - turn));
        const high = end.h * Math.sqrt(weight);
        ctx.globalAlpha = 0.5 * alpha;
        ctx.lineWidth = 1 + 6 * weight;
        ctx.moveTo(x, y);
        ctx.lineTo(at, y);
        ctx.stroke();
        put(ctx, art.value[s], { x: at - 12, y: y - high / 2, w: 24, h: high }, Math.min(1, alpha * 1.4));
      }
      ctx.globalAlpha = 1;
    }
}
