// Layout: where everything stands, for one width, height and number of rows. Every part is a box per token.

const box = (x, y, w, h) => ({ x, y, w, h });

export const NARROW = 860;

/**
 * @param {{width: number, height: number, top: number, n: number, heads: number}} room `top`: what stands above the picture
 */
export function layout(room) {
  return room.width < NARROW ? narrow(room) : wide(room);
}

function wide({ width, height, top, n, heads }) {
  const u = Math.max(0.8, Math.min(width / 1248, (height - top) / 690, 1.6));
  const left = 4 * u;
  const right = width - 4 * u;
  const base = top + 26 * u;
  // Few rows are no taller than the eye needs, many share the room; those of ten pixels may ask for a little more.
  const rowsHigh = Math.max(262 * u, Math.min(n, 20) * 11);
  const pitch = Math.min(30 * u, rowsHigh / n);
  const strip = pitch * 0.66;
  const chipW = 96 * u;
  const emb = left + chipW + 10 * u;
  const embW = 64 * u;
  const barsW = Math.max(236 * u, width * 0.19);
  const bars = right - barsW;
  const fin = bars - 74 * u;
  const r0 = emb + embW + 18 * u;
  const r1 = fin - 22 * u;
  const y = (t) => base + pitch * (t + 0.5);
  const mid = base + rowsHigh + 50 * u;
  const side = Math.max(252 * u, width * 0.2);
  const lensX = left + side + 14 * u;
  const lensW = right - lensX;
  const grow = lensW / (952 * u);
  const fit = Math.max(300 * u, height - mid - 6);
  const cell = Math.max(Math.min(23 * u * Math.min(grow, 1.15), (fit - 158 * u) / n), n > 14 ? 10 : 0);
  const lens = box(lensX, mid, lensW, Math.max(fit, 158 * u + cell * n));
  const kH = 42 * u;
  const gy = lens.y + 34 * u + kH + 27 * u;
  const my = (t) => gy + cell * (t + 0.5);
  const g = (x) => lens.x + x * u * grow;
  const gx = g(266);
  const gw = cell * n;
  const after = gx + gw;
  const rest = lens.x + lens.w - 14 * u - after;
  const at = (f) => after + rest * f;
  const h = cell * 0.62;
  const over = gy - 19 * u;
  const row = (from, to) => (t) => box(at(from), my(t) - h / 2, rest * (to - from), h);
  const left2 = (from, to) => (t) => box(g(from), my(t) - h / 2, g(to) - g(from), h);
  return {
    u, n, narrow: false, width, height: lens.y + lens.h + 4, cell, pitch, strip, y, my, tailY: my,
    title: {
      tokens: [left, base - 22 * u], vectors: [emb, base - 22 * u], stream: [r0, base - 22 * u], last: [fin - 8 * u, base - 22 * u], next: [bars, base - 22 * u],
      before: [g(92), over], query: [g(174), over], key: [gx, lens.y + 13 * u], value: [g(112), gy + gw + 18 * u], output: [at(0.04), over],
      added: [at(0.255), over], afterAttention: [at(0.44), over], feedForward: [at(0.615), over], after: [at(0.87), over],
    },
    chip: (t) => box(left, y(t) - pitch * (pitch < 16 ? 0.49 : 0.42), chipW, pitch * (pitch < 16 ? 0.98 : 0.84)),
    embedding: (t) => box(emb, y(t) - strip / 2, embW, strip),
    river: { x0: r0, x1: r1, y0: base, y1: base + pitch * n, bottom: base + rowsHigh },
    final: (t) => box(fin, y(t) - strip / 2, 44 * u, strip),
    bars: box(bars, base - 4 * u, barsW, rowsHigh + 4 * u),
    side: box(left, mid, side, fit),
    lens, label: (t) => [g(84), my(t)],
    before: left2(92, 156), query: left2(174, 258),
    grid: box(gx, gy, gw, gw),
    key: (s) => box(gx + cell * (s + 0.5) - h / 2, lens.y + 34 * u, h, kH),
    value: (s) => box(gx + cell * (s + 0.5) - h / 2, gy + gw + 5 * u, h, kH),
    note: gy + gw + 13 * u,
    headBar: box(lens.x + 10 * u, lens.y + 8 * u, gx - lens.x - 22 * u, 70 * u),
    small: smallPatterns({ x: at(0.04), y: lens.y + 11 * u, w: rest * 0.96, h: gy - lens.y - 40 * u }, heads, u),
    output: row(0.04, 0.205), added: row(0.255, 0.385), afterAttention: row(0.44, 0.57), neurons: row(0.615, 0.715),
    feedForward: row(0.735, 0.825), after: row(0.87, 1),
  };
}

/** The boxes of the layer's heads, in as few rows as leave them a size to be seen. */
function smallPatterns(room, heads, u) {
  const lines = heads <= 13 ? 1 : heads <= 34 ? 2 : Math.ceil(heads / 20);
  const inLine = Math.ceil(heads / lines);
  const label = lines === 1 ? 14 * u : 0;
  const size = Math.max(8, Math.min(room.h / lines - label - (lines > 1 ? 3 : 0), room.w / inLine - 4));
  const pitch = Math.min((room.w - size) / Math.max(1, inLine - 1), size * 1.4);
  return Array.from({ length: heads }, (_, i) => box(room.x + (i % inLine) * pitch, room.y + Math.floor(i / inLine) * (size + label + 3), size, size));
}

function narrow({ width, top, n, heads }) {
  const off = Math.max(0, (width - 620) / 2);
  const left = 2 + off;
  const right = width - 2 - off;
  const base = top + 26;
  const pitch = n > 14 ? 16 : 23;
  const strip = pitch * 0.62;
  const chipW = 74;
  const emb = left + chipW + 4;
  const embW = 26;
  const r0 = emb + embW + 6;
  const finW = 20;
  const fin = right - finW;
  const r1 = fin - 6;
  const y = (t) => base + pitch * (t + 0.5);
  const bottom = base + pitch * n;
  const labelW = 62;
  const lensY = bottom + 48;
  const qx = left + labelW + 4;
  const qW = 34;
  const gx = qx + qW + 4;
  const cell = Math.min(22, (right - gx - 44) / n);
  const gw = cell * n;
  const rowOf = smallPatterns({ x: left + 4, y: lensY + 62, w: right - left - 8, h: heads <= 13 ? 46 : 60 }, heads, 1);
  const smallEnd = Math.max(...rowOf.map((b) => b.y + b.h)) + (heads <= 13 ? 16 : 6);
  const kY = smallEnd + 26;
  const gy = kY + 44 + 26;
  const my = (t) => gy + cell * (t + 0.5);
  const tail = Math.max(cell, 12);
  const h = cell * 0.62;
  const ty = gy + gw + 84;
  const tailY = (t) => ty + tail * (t + 0.5);
  const lens = box(0, lensY, width, ty + tail * n + 14 - lensY);
  const tx = (f) => left + labelW + (right - left - labelW) * f;
  const part = (from, to) => (t) => box(tx(from), tailY(t) - (tail * 0.62) / 2, tx(to) - tx(from), tail * 0.62);
  const bars = box(left, lens.y + lens.h + 34, right - left, 316);
  return {
    u: 1, n, narrow: true, width, height: bars.y + bars.h + 12, cell, pitch, strip, y, my, tailY,
    title: {
      tokens: [left, base - 22], vectors: [emb - 14, base - 22], stream: [r0 + 34, base - 22], last: null, next: [left, bars.y - 24],
      before: null, query: [qx - 22, gy - 18], key: [gx, kY - 21], value: [gx, gy + gw + 50], output: [gx + gw + 4, gy - 18],
      added: [tx(0.02), ty - 18], afterAttention: [tx(0.24), ty - 18], feedForward: [tx(0.46), ty - 18], after: [tx(0.84), ty - 18],
    },
    chip: (t) => box(left, y(t) - pitch * 0.43, chipW, pitch * 0.86),
    embedding: (t) => box(emb, y(t) - strip / 2, embW, strip),
    river: { x0: r0, x1: r1, y0: base, y1: bottom, bottom },
    final: (t) => box(fin, y(t) - strip / 2, finW, strip),
    bars, side: null, lens, label: (t) => [left + labelW - 2, my(t)],
    scroll: { opened: lensY - 12, tail: ty - 70, bars: bars.y - 70 },
    before: null, query: (t) => box(qx, my(t) - h / 2, qW, h),
    grid: box(gx, gy, gw, gw),
    key: (s) => box(gx + cell * (s + 0.5) - h / 2, kY, h, 44),
    value: (s) => box(gx + cell * (s + 0.5) - h / 2, gy + gw + 5, h, 40),
    note: null, headBar: box(left + 6, lensY + 8, right - left - 12, 50), small: rowOf,
    output: (t) => box(gx + gw + 6, my(t) - h / 2, right - gx - gw - 6, h),
    added: part(0.02, 0.2), afterAttention: part(0.24, 0.42), neurons: part(0.46, 0.62), feedForward: part(0.66, 0.8), after: part(0.84, 1),
  };
}
