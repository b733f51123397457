// Grid drawing: query · key as dots, ÷ √d, −∞, softmax; and the lines from what is pointed at to its sources and targets.

import { circle, letters, mix } from "./paint.js";
import { cross, lit, shown } from "./selection.js";
import { masked } from "./story.js";
import { stageX } from "./stream_drawing.js";
import { STEP, arrival, cellArrival, cellNow, stepAt, stretch } from "./timeline.js";

/** Below this size of a cell the grid is a heat map. */
const DOTS_FROM = 13;

/** Below this size −∞ is a tint. */
const MASKS_FROM = 15.5;

export function drawGrid(p) {
  const { ctx, box, colours, story } = p;
  const { grid, cell } = box;
  const chosen = cross(p);
  drawLines(p);
  ctx.fillStyle = colours.query;
  ctx.globalAlpha = 0.15;
  if (chosen.row >= 0) ctx.fillRect(grid.x, grid.y + chosen.row * cell, grid.w, cell);
  if (chosen.column >= 0) ctx.fillRect(grid.x + chosen.column * cell, grid.y, cell, grid.h);
  ctx.globalAlpha = 1;
  for (let t = 0; t < story.n; t++) for (let s = 0; s < story.n; s++) drawCell(p, t, s, chosen);
  if (stepAt(p) === STEP.dots && p.at - STEP.dots < 0.97) drawMeeting(p);
}

function drawLines(p) {
  const { ctx, box, colours, story } = p;
  const { grid, cell } = box;
  ctx.strokeStyle = colours.rule;
  ctx.lineWidth = 1;
  ctx.beginPath();
  const every = cell < 6 ? story.n : 1;
  for (let i = 0; i <= story.n; i += every) {
    const [x, y] = [Math.round(grid.x + i * cell) + 0.5, Math.round(grid.y + i * cell) + 0.5];
    ctx.moveTo(grid.x, y);
    ctx.lineTo(grid.x + grid.w, y);
    ctx.moveTo(x, grid.y);
    ctx.lineTo(x, grid.y + grid.h);
  }
  ctx.stroke();
}

function drawCell(p, t, s, chosen) {
  const { ctx, box, colours, story } = p;
  const c = box.cell;
  const [x, y] = [box.grid.x + (s + 0.5) * c, box.grid.y + (t + 0.5) * c];
  const strength = lit(p, "grid", t, s);
  const [dot, weight] = [story.dots[t][s], story.pattern[t][s]];
  const born = cellArrival(p, t, s);
  const [scaled, hidden, soft] = [stretch(p, STEP.mask, t, 0, 0.45), stretch(p, STEP.mask, t, 0.5, 1), arrival(p, STEP.softmax, t)];
  if (!born) {
    ctx.globalAlpha = 0.25;
    ctx.fillStyle = colours.soft;
    ctx.fillRect(x - 0.7, y - 0.7, 1.4, 1.4);
    ctx.globalAlpha = 1;
    return;
  }
  // The area of a dot shows the size of the product, and then that of the score.
  const size = Math.sqrt(Math.abs(dot) / p.art.largestDot) * mix(1, story.headDim ** -0.25, scaled) * born;
  if (masked(story, t, s)) {
    if (hidden < 1 && Number.isFinite(dot)) drawDot(p, x, y, size * (1 - hidden), colours.key, dot < 0, strength);
    if (hidden > 0) drawMask(p, x, y, strength * (0.5 + 0.5 * hidden * (1 - soft)) * hidden);
    return;
  }
  if (soft < 1) drawDot(p, x, y, size * (1 - soft), colours.key, dot < 0, strength);
  const isChosen = chosen.row === t && c > 16;
  if (soft > 0.9 && isChosen && weight >= 0.02) {
    ctx.globalAlpha = strength * (0.1 + 0.9 * weight);
    ctx.fillStyle = colours.query;
    ctx.fillRect(x - c / 2 + 1, y - c / 2 + 1, c - 1, c - 1);
    number(p, String(Math.round(weight * 100)), x, y, strength);
  } else if (soft > 0) drawDot(p, x, y, Math.sqrt(weight) * soft, colours.query, false, strength);
  else if (stepAt(p) === STEP.dots && p.at - STEP.dots > 0.8 && isChosen) number(p, String(Math.round(dot)).replace("-", "−"), x, y, 1);
}

/** A dot of a size from 0 to 1; in a heat map a square of that strength. */
function drawDot(p, x, y, size, colour, hollow, alpha) {
  const c = p.box.cell;
  if (c >= DOTS_FROM) return circle(p.ctx, x, y, size > 0 ? Math.max(0.8, c * 0.46 * size) : 0, colour, hollow, alpha);
  p.ctx.globalAlpha = alpha * size ** 1.5;
  p.ctx.fillStyle = hollow ? p.colours.soft : colour;
  p.ctx.fillRect(x - c / 2 + 0.5, y - c / 2 + 0.5, Math.max(1, c - 1), Math.max(1, c - 1));
  p.ctx.globalAlpha = 1;
}

function drawMask(p, x, y, alpha) {
  const { ctx, box, colours } = p;
  ctx.globalAlpha = alpha * (box.cell >= MASKS_FROM ? 1 : 0.12);
  if (box.cell >= MASKS_FROM) {
    letters(ctx, box.u, colours.mask, 9.5, "center");
    ctx.fillText("−∞", x, y);
  } else {
    ctx.fillStyle = colours.mask;
    ctx.fillRect(x - box.cell / 2 + 0.5, y - box.cell / 2 + 0.5, Math.max(1, box.cell - 1), Math.max(1, box.cell - 1));
  }
  ctx.globalAlpha = 1;
}

/** A number over a dot, with a halo that keeps it legible. */
function number(p, text, x, y, alpha) {
  const { ctx, box, colours } = p;
  letters(ctx, box.u, colours.ink, 10.5, "center", 700);
  ctx.globalAlpha = alpha;
  ctx.lineWidth = 3;
  ctx.strokeStyle = colours.paper;
  ctx.lineJoin = "round";
  ctx.globalAlpha = alpha * 0.7;
  ctx.strokeText(text, x, y + 0.5);
  ctx.globalAlpha = alpha;
  ctx.fillText(text, x, y + 0.5);
  ctx.globalAlpha = 1;
}

/** The query and the key that meet now. */
function drawMeeting(p) {
  const { ctx, box, colours } = p;
  const { row, column } = cellNow(p);
  const [x, y] = [box.grid.x + (column + 0.5) * box.cell, box.grid.y + (row + 0.5) * box.cell];
  const [query, key] = [box.query(row), box.key(column)];
  ctx.globalAlpha = 0.85;
  stroke(ctx, colours.query, 2, [query.x + query.w, y], [x, y]);
  stroke(ctx, colours.key, 2, [x, key.y + key.h], [x, y]);
  ctx.globalAlpha = 1;
}

function stroke(ctx, colour, width, ...points) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  ctx.lineJoin = "round";
  ctx.beginPath();
  points.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
  ctx.stroke();
}

/** Lines from what is pointed at, back to what it came from and on to what it feeds. */
export function drawLinks(p) {
  const h = shown(p);
  if (!h || h.kind === "bar" || h.kind === "small") return;
  const { ctx, box, colours, story } = p;
  const { lens, u } = box;
  ctx.globalAlpha = 0.9;
  const down = (t, colour) => {
    if (!box.before) return;
    const [b, main] = [box.before(t), t === h.row];
    route(ctx, colour, [4, 3], [stageX(p, story.layer + 0.5) + (main ? 0 : 4), box.y(t) + box.strip / 2], [b.x + b.w / 2 + (main ? 0 : 6), b.y], lens.y - (main ? 8 : 13) * u);
  };
  const isColumn = h.kind === "key" || h.kind === "value";
  if (isColumn) down(h.row, colours[h.kind]);
  else if (box.before) {
    const b = box.after(h.row);
    down(h.row, colours.pos);
    route(ctx, colours.pos, [2, 4], [stageX(p, story.layer + 1.5), box.y(h.row) + box.strip / 2], [b.x + b.w / 2, b.y], lens.y - 8 * u);
  }
  if (h.kind === "grid" && !masked(story, h.row, h.column)) {
    if (h.column !== h.row) down(h.column, colours.value);
    drawCellLinks(p, h);
  }
  ctx.globalAlpha = 1;
}

function drawCellLinks(p, h) {
  const { ctx, box, colours, story } = p;
  const c = box.cell / 2;
  const [x, y] = [box.grid.x + (h.column + 0.5) * box.cell, box.my(h.row)];
  const [query, key, value, output] = [box.query(h.row), box.key(h.column), box.value(h.column), box.output(h.row)];
  const low = y + c - 2;
  stroke(ctx, colours.query, 2, [query.x + query.w, low], [x - c, low]);
  stroke(ctx, colours.key, 2, [x, key.y + key.h], [x, y - c]);
  stroke(ctx, colours.value, 1 + 3 * story.pattern[h.row][h.column], [x + c, low], [output.x, low]);
  stroke(ctx, colours.value, 2, [x, value.y], [x, y + c]);
  ctx.strokeStyle = colours.ink;
  ctx.lineWidth = 1.5;
  ctx.strokeRect(x - c, y - c, 2 * c, 2 * c);
}

/** A dashed way between the streams and the opened layer, with round corners, along its upper edge. */
function route(ctx, colour, dash, [x0, y0], [x1, y1], level) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1.5;
  ctx.setLineDash(dash);
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.arcTo(x0, level, x1, level, 10);
  ctx.arcTo(x1, level, x1, y1, 10);
  ctx.lineTo(x1, y1);
  ctx.stroke();
  ctx.setLineDash([]);
}

