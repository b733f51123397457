// Paint: canvas helpers of the picture. Colours come from the style sheet; a strip of numbers is a small image.

const NAMES = ["ink", "soft", "rule", "edge", "page", "paper", "accent", "accent-on", "pos", "neg", "query", "key", "value", "delta", "mask", "word-0", "word-1"];

/** The colours of the theme in force, read from the element that the style sheet gives them to. */
export function palette(element) {
  const style = getComputedStyle(element);
  return Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const swatch = document.createElement("canvas").getContext("2d");

/** Red, green and blue of a colour of the style sheet. */
function channels(colour) {
  swatch.fillStyle = colour; // normalised to #rrggbb
  const n = parseInt(String(swatch.fillStyle).slice(1), 16);
  return [(n >> 16) & 255, (n >> 8) & 255, n & 255];
}

/** Rows of numbers as an image, a pixel each: `up` above zero, `down` below, the fuller the larger, clear at zero. */
export function image(rows, up, down, full) {
  const canvas = document.createElement("canvas");
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const ctx = canvas.getContext("2d");
  const pixels = ctx.createImageData(canvas.width, canvas.height);
  const [above, below] = [channels(up), channels(down)];
  rows.forEach((row, y) => row.forEach((x, i) => {
    const strength = Math.round(255 * Math.min(1, (Math.abs(x) / full) ** 0.75));
    pixels.data.set([...(x >= 0 ? above : below), strength], 4 * (y * canvas.width + i));
  }));
  ctx.putImageData(pixels, 0, 0);
  return canvas;
}

/** The number at which a colour is full: four times the median size, so that one huge number hides no other. */
export function fullAt(rows) {
  const sizes = rows.flatMap((row) => [...row].map(Math.abs)).sort((a, b) => a - b);
  return Math.max(1e-6, 4 * sizes[Math.floor(sizes.length / 2)]);
}

/** Draws an image into a box. */
export function put(ctx, img, b, alpha = 1) {
  if (alpha <= 0.004) return;
  ctx.globalAlpha = alpha;
  ctx.drawImage(img, b.x, b.y, b.w, b.h);
  ctx.globalAlpha = 1;
}

/** Draws a strip that stands on end, its first number on top. */
export function upright(ctx, img, b, alpha) {
  if (alpha <= 0.004) return;
  ctx.save();
  ctx.translate(b.x + b.w / 2, b.y + b.h / 2);
  ctx.rotate(Math.PI / 2);
  ctx.globalAlpha = alpha;
  ctx.drawImage(img, -b.h / 2, -b.w / 2, b.h, b.w);
  ctx.restore();
}

/** Draws an image on its way between two boxes; `turn` 1 ends upright. */
export function fly(ctx, img, from, to, a, turn = 0) {
  const end = turn ? { x: to.x + to.w / 2 - to.h / 2, y: to.y + to.h / 2 - to.w / 2, w: to.h, h: to.w } : to;
  const b = between(from, end, a);
  ctx.save();
  ctx.translate(b.x + b.w / 2, b.y + b.h / 2 - Math.sin(a * Math.PI) * (turn ? 20 : 6));
  ctx.rotate((a * turn * Math.PI) / 2);
  ctx.globalAlpha = Math.sin(a * Math.PI) ** 0.5;
  ctx.drawImage(img, -b.w / 2, -b.h / 2, b.w, b.h);
  ctx.restore();
}

/** The thin frame of a strip. */
export function outline(ctx, colour, b, alpha = 1) {
  ctx.globalAlpha = 0.9 * alpha;
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1;
  ctx.strokeRect(Math.round(b.x) - 0.5, Math.round(b.y) - 0.5, Math.round(b.w) + 1, Math.round(b.h) + 1);
  ctx.globalAlpha = 1;
}

/** A circle of a signed number: hollow below zero. */
export function circle(ctx, x, y, r, colour, hollow, alpha) {
  if (r < 0.4) return;
  ctx.globalAlpha = alpha;
  ctx.beginPath();
  ctx.arc(x, y, Math.max(0.6, hollow ? r - 0.6 : r), 0, 7);
  if (hollow) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.2;
    ctx.stroke();
  } else {
    ctx.fillStyle = colour;
    ctx.fill();
  }
  ctx.globalAlpha = 1;
}

/** Sets colour, size and alignment of the text that follows; nothing is below ten pixels. */
export function letters(ctx, unit, colour, size, align, weight = 400) {
  ctx.fillStyle = colour;
  ctx.textAlign = align;
  ctx.textBaseline = "middle";
  ctx.font = `${weight} ${Math.max(10, size * Math.min(1.25, unit))}px ui-monospace, "DejaVu Sans Mono", Menlo, monospace`;
}

export const ease = (x) => (x <= 0 ? 0 : x >= 1 ? 1 : x * x * (3 - 2 * x));
export const clamp = (x) => Math.max(0, Math.min(1, x));
export const mix = (a, b, f) => a + (b - a) * f;
export const between = (a, b, f) => ({ x: mix(a.x, b.x, f), y: mix(a.y, b.y, f), w: mix(a.w, b.w, f), h: mix(a.h, b.h, f) });
export const inside = (b, x, y, pad = 0) => Boolean(b) && x >= b.x - pad && x <= b.x + b.w + pad && y >= b.y - pad && y <= b.y + b.h + pad;

/** A text of at most n characters. */
export const clip = (text, n) => ([...text].length > n ? `${[...text].slice(0, n - 1).join("")}…` : text);

/** A token without the sign for a space before it. */
export const bare = (piece) => piece.replace(/^␣(?=.)/, "");
