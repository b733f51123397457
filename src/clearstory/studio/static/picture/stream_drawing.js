// Stream drawing: the upper band. Vectors, the streams through all layers, what flows between tokens, the last vectors.

import { bare, clamp, clip, ease, fly, letters, mix, outline, put } from "./paint.js";
import { lit, shown } from "./selection.js";
import { ALL, STEP, arrival, stepAt, stretch } from "./timeline.js";

/** The x of the left edge of a stage: 0 is the embedding, l + 1 what follows layer l. */
export const stageX = (p, stage) => mix(p.box.river.x0, p.box.river.x1, stage / (p.story.layers + 1));

/** The width of a stage. */
export const stageWidth = (p) => (p.box.river.x1 - p.box.river.x0) / (p.story.layers + 1);

/** How many stages of a row's stream are drawn. */
export function front(p, row) {
  const { layers, layer } = p.story;
  const [first, second] = [arrival(p, STEP.stream, row, 0.12), arrival(p, STEP.onward, row, 0.12)];
  if (second > 0) return mix(layer + 2, layers + 1, second);
  return first * (layer + 1) + (stretch(p, STEP.feedForward, row, 0.66, 1) > 0.9 ? 1 : 0);
}

export function drawVectors(p) {
  const { ctx, box, art, colours } = p;
  for (let t = 0; t < p.story.n; t++) {
    const a = arrival(p, STEP.vectors, t);
    outline(ctx, colours.rule, box.embedding(t), lit(p, "embedding", t));
    put(ctx, art.embedding[t], box.embedding(t), (0.12 + 0.88 * a) * lit(p, "embedding", t));
    if (a > 0 && a < 1) fly(ctx, art.embedding[t], box.chip(t), box.embedding(t), a);
  }
}

export function drawStreams(p) {
  const { ctx, box, art, colours, story } = p;
  const r = box.river;
  ctx.fillStyle = colours.query;
  ctx.globalAlpha = 0.15 * Math.min(1, (story.layers + 1) / 8); // a layer of few is most of the band
  ctx.fillRect(stageX(p, story.layer), r.y0 - 2, stageWidth(p) * 2, r.bottom - r.y0 + 4);
  ctx.globalAlpha = 1;
  for (let t = 0; t < story.n; t++) {
    const y = box.y(t) - box.strip / 2;
    const x = stageX(p, front(p, t));
    const strength = lit(p, "stream", t);
    const whole = { x: r.x0, y, w: r.x1 - r.x0, h: box.strip };
    put(ctx, art.ribbon[t], whole, 0.1 * strength);
    ctx.save();
    ctx.beginPath();
    ctx.rect(r.x0, y - 1, x - r.x0, box.strip + 2);
    ctx.clip();
    put(ctx, art.ribbon[t], whole, strength);
    ctx.restore();
    if (x > r.x0 + 1 && x < r.x1 - 1) drawFront(p, x, y);
  }
  drawThreads(p);
  drawLayerWords(p);
}

function drawFront(p, x, y) {
  const { ctx, box, colours } = p;
  ctx.fillStyle = colours.accent;
  ctx.fillRect(x - 1, y - 1, 2, box.strip + 2);
  ctx.globalAlpha = 0.18;
  ctx.fillRect(x - 9, y - 1, 8, box.strip + 2);
  ctx.globalAlpha = 1;
}

const THREADS_PER_LAYER = 5;
const THINNEST = 0.035; // of the stream's length

/** What flows between tokens: the largest shares of each layer, those of the row that is pointed at before all others. */
function drawThreads(p) {
  const { ctx, box, story } = p;
  const h = shown(p);
  const counts = Array(story.layers).fill(0);
  const width = stageWidth(p);
  const unit = box.u * Math.min(1, box.pitch / 16);
  ctx.lineCap = "round";
  for (const { l, t, s, x } of p.threads) {
    if (x < THINNEST) break;
    let [alpha, weight] = [Math.min(0.75, 0.12 + x * 1.6), 1];
    if (h && isPart(h, l, t, s)) [alpha, weight] = [Math.min(1, alpha * 1.6), 1.5];
    else {
      if (counts[l] >= THREADS_PER_LAYER) continue;
      counts[l]++;
      if (h && h.kind !== "small") alpha *= 0.1;
    }
    const done = clamp(front(p, t) - l - 0.4);
    if (done <= 0) continue;
    const line = { x0: stageX(p, l + 0.5), y0: box.y(s), x1: stageX(p, l + 1.5), y1: box.y(t), bend: width * 0.75 };
    ctx.strokeStyle = p.colours.value;
    ctx.globalAlpha = alpha * (0.3 + 0.7 * done);
    ctx.lineWidth = Math.max(0.5, weight * unit * (0.6 + 4.5 * Math.min(0.6, x)));
    ctx.beginPath();
    ctx.moveTo(line.x0, line.y0);
    ctx.bezierCurveTo(line.x0 + line.bend, line.y0, line.x1 - line.bend, line.y1, line.x1, line.y1);
    ctx.stroke();
    if (done < 1) drawBead(p, line, done);
  }
  ctx.globalAlpha = 1;
}

/** Whether a thread has a share in what is pointed at. */
function isPart(h, l, t, s) {
  if (h.kind === "stream") return l === h.layer && (t === h.row || s === h.row);
  if (h.kind === "grid") return t === h.row && s === h.column;
  if (h.kind === "bar") return t === h.row;
  return h.kind !== "small" && (t === h.row || s === h.row);
}

function drawBead(p, { x0, y0, x1, y1, bend }, f) {
  const g = 1 - f;
  const along = (a, b, c, d) => g * g * g * a + 3 * g * g * f * b + 3 * g * f * f * c + f * f * f * d;
  p.ctx.globalAlpha = 1;
  p.ctx.fillStyle = p.colours.value;
  p.ctx.beginPath();
  p.ctx.arc(along(x0, x0 + bend, x1 - bend, x1), along(y0, y0, y1, y1), 2.4, 0, 7);
  p.ctx.fill();
}

/** The layers that have room for a number and a word beneath the streams. */
export function shownLayers(p) {
  const every = Math.max(1, Math.ceil((p.box.narrow ? 44 : 74 * p.box.u) / stageWidth(p)));
  const layers = [];
  for (let l = 0; l < p.story.layers; l += every) layers.push(l);
  const last = p.story.layers - 1;
  if (layers.at(-1) !== last) {
    if (last - layers.at(-1) < every * 0.7) layers.pop();
    layers.push(last);
  }
  return layers;
}

function drawLayerWords(p) {
  const { ctx, box, colours, story } = p;
  const row = story.predicted ?? story.n - 1;
  const [y1, y2] = [box.river.bottom + 11 * box.u, box.river.bottom + 26 * box.u];
  const reach = front(p, row);
  letters(ctx, box.u, colours.soft, 10, "right");
  if (!box.narrow) {
    ctx.fillText("after layer", box.river.x0 - 4, y1);
    if (story.lens) ctx.fillText(`next after ‘${clip(bare(story.labels[row]), 9)}’`, box.river.x0 - 4, y2);
  }
  for (const l of shownLayers(p)) {
    const x = stageX(p, l + 1) + stageWidth(p) / 2;
    letters(ctx, box.u, l === story.layer ? colours.ink : colours.soft, 10, "center", l === story.layer ? 700 : 400);
    ctx.fillText(String(l), x, y1);
    if (!story.lens || l + 1 > reach + 0.01) continue;
    const { piece, p: share } = story.lens[l + 1][0];
    ctx.globalAlpha = 0.6 + 0.4 * Math.sqrt(share);
    letters(ctx, box.u, colours.ink, 10, "center");
    ctx.fillText(clip(bare(piece), box.narrow ? 7 : 11), x, y2);
    ctx.globalAlpha = 1;
  }
}

/** Words leave the sentence and become tokens, each in its row. */
export function drawWords(p) {
  const { ctx, box, colours, story } = p;
  if (stepAt(p) !== STEP.tokens || story.grouped) return;
  const base = p.stage.getBoundingClientRect();
  for (let t = 0; t < story.n; t++) {
    const a = arrival(p, STEP.tokens, t, 0.6);
    const word = p.sentence.querySelector(`[data-row="${t}"]`);
    if (a <= 0 || a >= 0.98 || !word) continue;
    const from = word.getBoundingClientRect();
    const to = box.chip(t);
    const [x, y] = [mix(from.left - base.left, to.x, a), mix(from.top - base.top, to.y, a)];
    const [w, h] = [mix(from.width, to.w, a), mix(from.height, to.h, a)];
    ctx.fillStyle = colours[`word-${t % 2}`];
    ctx.strokeStyle = colours.edge;
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.roundRect(x, y, w, h, 5);
    ctx.fill();
    ctx.stroke();
    letters(ctx, box.u, colours.ink, mix(17, 12.5, a), "left");
    ctx.fillText(clip(story.labels[t], 12), x + 7, y + h / 2);
  }
}

/** The last vectors, and the lines from the one that predicts to the bars. */
export function drawLast(p) {
  const { ctx, box, art, colours, story } = p;
  const predicted = story.predicted ?? -1;
  for (let t = 0; t < story.n; t++) {
    const isLast = t === predicted;
    const here = arrival(p, STEP.onward, t, 0.12) >= 1 ? 1 : 0;
    outline(ctx, colours.rule, box.final(t), lit(p, "final", t) * (isLast ? 1 : 0.6));
    put(ctx, art.final[t], box.final(t), lit(p, "final", t) * (isLast ? 0.15 + 0.85 * here : 0.08 + 0.22 * here));
  }
  if (box.narrow || predicted < 0 || !p.words) return;
  const a = arrival(p, STEP.next, predicted, 0);
  const h = shown(p);
  const from = box.final(predicted);
  const [x0, y0] = [from.x + from.w + 2, box.y(predicted)];
  if (a <= 0) return;
  p.barMiddles.forEach((y, k) => {
    const x = mix(x0, box.bars.x, ease(a * 1.4 - k * 0.04));
    const mine = h?.kind === "bar" ? (h.bar === k ? 1 : 0.1) : h && h.kind !== "small" && h.row !== predicted ? 0.18 : 1;
    const share = p.words[k].p;
    ctx.strokeStyle = colours.accent;
    ctx.globalAlpha = mine * (0.15 + 0.75 * Math.sqrt(share));
    ctx.lineWidth = 0.7 + 5 * share;
    ctx.save();
    ctx.beginPath();
    ctx.rect(x0, 0, x - x0, box.height);
    ctx.clip();
    ctx.beginPath();
    ctx.moveTo(x0, y0);
    ctx.bezierCurveTo(x0 + 18 * box.u, y0, box.bars.x - 20 * box.u, y, box.bars.x, y);
    ctx.stroke();
    ctx.restore();
  });
  ctx.globalAlpha = 1;
}

/** The token that was drawn flies from its bar to the end of the sentence. */
export function drawTaken(p) {
  const { ctx, box, colours } = p;
  if (stepAt(p) !== STEP.draw || p.at >= ALL || !p.taken) return;
  const base = p.stage.getBoundingClientRect();
  const k = Math.max(0, p.words.findIndex((word) => word.id === p.taken.id));
  const from = p.bars.children[Math.min(p.bars.children.length - 1, k)].getBoundingClientRect();
  const to = p.caret.getBoundingClientRect();
  const a = ease((p.at - STEP.draw - 0.1) / 0.7);
  const x = mix(from.left - base.left + 20, to.left - base.left + 10, a);
  const y = mix(from.top - base.top + 9, to.top - base.top + 14, a) - Math.sin(a * Math.PI) * 20;
  const label = clip(p.taken.piece, 14);
  letters(ctx, box.u, colours["accent-on"], mix(12, 18, a), "center", 600);
  const w = ctx.measureText(label).width + 16;
  ctx.fillStyle = colours.accent;
  ctx.beginPath();
  ctx.roundRect(x - w / 2, y - 13, w, 26, 6);
  ctx.fill();
  ctx.fillStyle = colours["accent-on"];
  ctx.fillText(label, x, y + 1);
}

