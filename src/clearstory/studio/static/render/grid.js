// Grid: numbers as a field of squares or dots, or of words. In SVG while they are few, on a canvas above.
//
// Squares are stronger for more; dots (view.dots) have the number as their area and are hollow below zero; words
// (view.texts) are coloured by their numbers. −∞, which is null here, is written in red. With view.readers, such as "is
// read by", a column's head can be pointed at and pinned as well: it tells the rows that have most of it.

import { el, redrawOnResize } from "../dom.js";
import { cellText } from "../format.js";
import { drawGridSvg, maxAbs, drawGridCanvas } from "./grid_drawing.js";

export const MAX_SVG_CELLS = 48;
const MAX_SVG_SQUARES = 400; // one head of 20 tokens; more of them are a picture sooner than they are elements
const MAX_READERS = 5;

/** data: a Grid. Hovering reads a cell, a click pins its row (`cell` says which cell it was), arrows move, Esc lets go. */
export function mount(root, data, { onPick = (_) => {}, onMove = (_) => {}, picked = null } = {}) {
  let view = data;
  let hovered = null; // the cell that is looked at
  let pinned = null; // the row that is pinned
  let pinnedColumn = null; // the column that is pinned
  let size = 0;
  let drawing = null;
  const container = el("div", { class: "grid-field", tabindex: "0", role: "application", onkeydown: onKeyDown });
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  root.replaceChildren(el("div", { class: "wide" }, container), readout);
  const stopRedraw = redrawOnResize(root, paint);
  const destroy = () => (stopRedraw(), drawing?.destroy?.());

  function update(next) {
    view = next;
    hovered = null;
    pinned = picked?.row ?? null;
    pinnedColumn = null;
    container.setAttribute("aria-label", `${view.title}; ${view.row_labels.length} rows, ${view.column_labels.length} columns`);
    paint(root.clientWidth || 600);
    updateReadout();
  }

  function paint(width) {
    const [rows, columns] = [view.row_labels.length, view.column_labels.length];
    if (!rows || !columns) {
      container.textContent = "There is nothing to draw.";
      return;
    }
    const hasTexts = Boolean(view.texts);
    const left = Math.min(hasTexts ? 150 : 170, 16 + 7.4 * Math.max(...view.row_labels.map((each) => each.length)));
    const longestLabel = Math.max(...view.column_labels.map((each) => each.length));
    const top = longestLabel > 2 && !hasTexts ? Math.min(110, 16 + 6.4 * longestLabel) : 24;
    const tilt = hasTexts || longestLabel <= 2 ? 8 : top / 2; // labels lean out to the right
    const space = Math.max(120, width - left - 12 - tilt);
    size = hasTexts ? Math.max(72, Math.min(120, space / columns)) : Math.min(34, space / columns);
    // Below three pixels a square is no square any more: the field scrolls instead.
    size = Math.max(size, hasTexts ? 72 : 3);
    // A square where tokens look at tokens; where a few rows meet many columns, rows that can be told apart.
    const rowHeight = hasTexts ? 22 : columns > rows ? Math.max(size, 15) : size;
    const layout = { rows, columns, left, top, size, tilt, rowHeight, max: maxAbs(view.values) };
    // Words are drawn as such however many rows they have; a canvas would hold them no better.
    const useCanvas = rows > MAX_SVG_CELLS || columns > MAX_SVG_CELLS || (!view.dots && rows * columns > MAX_SVG_SQUARES);
    drawing?.destroy?.();
    drawing = !hasTexts && useCanvas ? drawGridCanvas(view, layout) : drawGridSvg(view, layout);
    container.replaceChildren(drawing.node);
    drawing.node.addEventListener("pointermove", (event) => hover(drawing.cellAt(event)));
    drawing.node.addEventListener("pointerleave", () => hover(null));
    drawing.node.addEventListener("click", (event) => {
      const cell = drawing.cellAt(event);
      if (cell && cell.row === null) pinColumn(cell.column);
      else pinRow(cell?.row ?? null, cell);
    });
    Object.assign(root.dataset, { rows, columns, backend: drawing.backend });
    updateMarks();
  }

  /** What is looked at, or else the column that is held. */
  const updateMarks = () => drawing?.mark(hovered ?? (pinnedColumn === null ? null : { row: null, column: pinnedColumn }), pinned);

  /** What somebody else points at or has pinned: a chip of the sentence. Tells nobody. */
  function point({ row, pinned: now }) {
    pinned = now;
    hovered = row === null ? null : { row, column: hovered?.column ?? 0 };
    drawing?.mark(row === null ? null : { row, column: row }, pinned);
    updateReadout();
  }

  /** The same of a drawing beside this one, which shows the same cells. */
  function follow({ hovered: there, pinned: now }) {
    [hovered, pinned] = [there, now];
    root.dataset.pinned = pinned ?? "";
    updateMarks();
    updateReadout();
  }

  function hover(cell) {
    hovered = cell;
    updateMarks();
    updateReadout();
    onMove({ hovered, pinned });
    if (cell && cell.row !== null) onPick({ row: cell.row, column: cell.column, pinned: false });
  }

  function pinColumn(column) {
    pinnedColumn = column === pinnedColumn ? null : column;
    root.dataset.column = pinnedColumn ?? "";
    updateMarks();
    updateReadout();
  }

  function pinRow(row, cell = hovered) {
    pinned = row === pinned ? null : row;
    root.dataset.pinned = pinned ?? "";
    updateMarks();
    updateReadout();
    onMove({ hovered, pinned });
    onPick({ row: pinned, column: hovered?.column ?? null, pinned: pinned !== null, cell });
  }

  function updateReadout() {
    const hasTexts = [];
    if (hovered && hovered.row === null) hasTexts.push(describeColumn(hovered.column));
    else if (hovered) {
      const value = view.values[hovered.row][hovered.column];
      const text = view.texts ? `‘${view.texts[hovered.row][hovered.column].replace("\n", "’ ")}: ` : "";
      hasTexts.push(`${view.row_labels[hovered.row]} → ${view.column_labels[hovered.column]}: ${text}${cellNumber(value)} ${view.unit}`.trim());
      root.dataset.value = value ?? "";
    }
    if (pinnedColumn !== null && hovered?.row !== null) hasTexts.push(describeColumn(pinnedColumn));
    if (pinned !== null) hasTexts.push(`row ${view.row_labels[pinned]} pinned; Esc lets it go`);
    readout.textContent = hasTexts.join(" · ") || `Point at a cell to read it; a click pins its row${view.readers ? ", and one on a column’s head the column" : ""}.`;
  }

  /** Who has most of a column, in words. */
  function describeColumn(column) {
    const rows = view.values.map((row, cell) => [row[column], cell]).filter(([value]) => value);
    const most = rows.sort((a, b) => b[0] - a[0]).slice(0, MAX_READERS);
    root.dataset.readers = most.map(([value, cell]) => `${cell}:${value}`).join(" ");
    const named = most.map(([value, cell]) => `${view.row_labels[cell]} ${cellNumber(value)}`).join(", ");
    return `${view.column_labels[column]} ${view.readers} ${named || "nobody"}${rows.length > most.length ? ` and ${rows.length - most.length} more` : ""}`;
  }

  function onKeyDown(event) {
    const direction = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (direction) {
      event.preventDefault();
      const from = hovered ?? { row: pinned ?? 0, column: 0 };
      const clamp = (value, least, most) => Math.max(least, Math.min(most - 1, value));
      const top = view.readers ? -1 : 0; // above the first row stand the columns' heads
      const row = clamp((from.row ?? -1) + (hovered ? direction[0] : 0), top, view.row_labels.length);
      hover({ row: row < 0 ? null : row, column: clamp(from.column + (hovered ? direction[1] : 0), 0, view.column_labels.length) });
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (hovered && hovered.row === null) pinColumn(hovered.column);
      else pinRow(hovered?.row ?? 0);
    } else if (event.key === "Escape" && (pinned !== null || pinnedColumn !== null)) {
      event.stopPropagation();
      if (pinnedColumn !== null) pinColumn(pinnedColumn);
      if (pinned !== null) pinRow(pinned);
    }
  }

  update(data);
  return { update, destroy, point, follow, state: () => ({ row: pinned, hovered }), svg: () => null, csv: () => null };
}

const cellNumber = (value) => (value === null ? "−∞" : cellText(value));
