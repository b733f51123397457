// Selection: what is pointed at or pinned, what it came from, and how strongly each part of the picture is lit then.
//
// A selection is {kind, row, ...}: kind is a part of the picture (embedding, stream, query, grid, …), "token" or "bar".

const DIM = 0.16;

export const shown = (p) => p.pinned ?? p.hover;

/** The row that texts speak of. */
export const focusRow = (p) => Math.min(p.pinned?.row ?? p.chosenRow ?? p.clearest, p.story.n - 1);

const STREAM_PARTS = ["stream", "embedding", "before"];
const COLUMN_PARTS = ["key", "value"];

/** How strongly a part of a row, or a cell of the grid, is drawn: 1 if it has a share in what is pointed at. */
export function lit(p, part, row, column = row) {
  const h = shown(p);
  if (!h || h.kind === "small") return 1;
  const { pattern } = p.story;
  if (h.kind === "bar") {
    if (["final", "stream", "after"].includes(part)) return row === h.row ? 1 : DIM;
    return row === h.row ? 0.75 : DIM;
  }
  if (h.kind === "grid") return litByCell(h, part, row, column);
  if (COLUMN_PARTS.includes(h.kind)) {
    if (COLUMN_PARTS.includes(part)) return row === h.row ? (part === h.kind ? 1 : 0.5) : DIM;
    if (part === "grid") return column === h.row ? 1 : DIM;
    if (STREAM_PARTS.includes(part)) return row === h.row ? 1 : DIM;
    return Math.max(DIM, Math.sqrt(pattern[row][h.row]));
  }
  if (h.kind === "stream") {
    if (part === "stream" || part === "embedding") return row === h.row ? 1 : Math.max(0.2, Math.min(0.9, 3 * p.story.contributions[h.layer][h.row][row]));
    return row === h.row ? 0.8 : DIM;
  }
  return litByRow(pattern[h.row], h.row, part, row);
}

function litByCell(h, part, row, column) {
  if (COLUMN_PARTS.includes(part)) return row === h.column ? 1 : DIM;
  if (part === "grid") return row === h.row && column === h.column ? 1 : row === h.row || column === h.column ? 0.5 : DIM;
  if (STREAM_PARTS.includes(part)) return row === h.row || row === h.column ? 1 : DIM;
  return row === h.row ? 1 : DIM;
}

/** A row is lit with what it is and with what it takes from, by its weights. */
function litByRow(weights, chosen, part, row) {
  if (COLUMN_PARTS.includes(part)) return Math.max(DIM, Math.sqrt(weights[row]));
  if (part === "grid") return row === chosen ? 1 : DIM;
  if (STREAM_PARTS.includes(part)) return row === chosen ? 1 : Math.max(DIM, 0.8 * Math.sqrt(weights[row]));
  return row === chosen ? 1 : DIM;
}

/** The row and the column of the grid that stand out; −1 for none. */
export function cross(p) {
  const h = shown(p);
  if (!h || h.kind === "small") return { row: focusRow(p), column: -1 };
  if (h.kind === "grid") return { row: h.row, column: h.column };
  if (COLUMN_PARTS.includes(h.kind)) return { row: -1, column: h.row };
  return { row: h.row, column: -1 };
}

/** A pinned selection as text for the address: grid.3.2, query.3.17. */
export function selectionText(h) {
  return h ? [h.kind, h.row, h.column ?? h.layer ?? h.index ?? h.bar].filter((each) => each !== undefined).join(".") : null;
}

const SECOND = { grid: "column", stream: "layer", bar: "bar", token: null };

/** The selection of such a text; null if the story has no such part. */
export function parseSelection(text, story) {
  const [kind, row, second] = (text ?? "").split(".");
  const [at, other] = [Number(row), Number(second)];
  if (!kind || !(at >= 0 && at < story.n)) return null;
  const name = kind in SECOND ? SECOND[kind] : "index";
  if (name === null) return { kind, row: at };
  const limit = { grid: story.n, stream: story.layers, bar: 10 }[kind] ?? 1e9;
  return other >= 0 && other < limit ? { kind, row: at, [name]: other } : null;
}
