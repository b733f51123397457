// Grid: a matrix of values as squares, dots or texts; small grids as SVG, large ones on a canvas.
//
// The opacity of squares and the area of dots (view.dots) show the absolute value; dots are hollow below zero; texts
// (view.texts) are coloured by their values. −∞, which is null here, is shown in red. With view.readers, such as "is attended
// to by", column labels can be hovered and pinned as well: the readout lists the rows with the largest values.

import { el, redrawOnResize } from "../dom.js";
import { cellText } from "../format.js";
import { drawGridSvg, gridScale, drawGridCanvas } from "./grid_drawing.js";

export const MAX_SVG_CELLS = 48;
const MAX_SVG_SQUARES = 400; // one head of 20 tokens; a canvas is faster above that
const MAX_READERS = 5;

/** data: a Grid. Hovering reads a cell, a click pins its row (onPick's `cell` is the clicked cell), arrow keys move, Esc releases. */
export function mount(root, data, { onPick = (_) => {}, onMove = (_) => {}, picked = null } = {}) {
  let view = data;
  let hovered = null; // the cell under the pointer
  let pinned = null; // index of the pinned row
  let pinnedColumn = null; // index of the pinned column
  let size = 0;
  let outlierNote = ""; // which columns exceed the scale
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
      container.textContent = "No data.";
      return;
    }
    const hasTexts = Boolean(view.texts);
    const left = Math.min(hasTexts ? 150 : 170, 16 + 7.4 * Math.max(...view.row_labels.map((each) => each.length)));
    const longestLabel = Math.max(...view.column_labels.map((each) => each.length));
    const top = longestLabel > 2 && !hasTexts ? Math.min(110, 16 + 6.4 * longestLabel) : 24;
    const tilt = hasTexts || longestLabel <= 2 ? 8 : top / 2; // rotated labels extend to the right
    const space = Math.max(120, width - left - 12 - tilt);
    size = hasTexts ? Math.max(72, Math.min(120, space / columns)) : Math.min(34, space / columns);
    // Cells are at least three pixels wide; larger grids scroll.
    size = Math.max(size, hasTexts ? 72 : 3);
    // Square cells, except for few rows with many columns, whose rows are higher.
    const rowHeight = hasTexts ? 22 : columns > rows ? Math.max(size, 15) : size;
    const { max, outliers } = gridScale(view);
    outlierNote = outliers.length ? `Dimension${outliers.length > 1 ? "s" : ""} ${outliers.slice(0, 6).map((column) => view.column_labels[column]).join(", ")}${outliers.length > 6 ? ` and ${outliers.length - 6} more` : ""} exceed the scale of ±${cellText(max)} and are drawn at full size. ` : "";
    root.dataset.outliers = outliers.map((column) => view.column_labels[column]).join(" ");
    const layout = { rows, columns, left, top, size, tilt, rowHeight, max };
    // Grids of texts are always SVG.
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

  /** Marks the hovered cell, or the pinned column. */
  const updateMarks = () => drawing?.mark(hovered ?? (pinnedColumn === null ? null : { row: null, column: pinnedColumn }), pinned);

  /** Marks the row of a token hovered or pinned elsewhere, without reporting it. */
  function point({ row, pinned: now }) {
    pinned = now;
    hovered = row === null ? null : { row, column: hovered?.column ?? 0 };
    drawing?.mark(row === null ? null : { row, column: row }, pinned);
    updateReadout();
  }

  /** Applies the move of a linked grid, without reporting it. */
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
    const parts = [];
    if (hovered && hovered.row === null) parts.push(describeColumn(hovered.column));
    else if (hovered) {
      const value = view.values[hovered.row][hovered.column];
      const text = view.texts ? `‘${view.texts[hovered.row][hovered.column].replace("\n", "’ ")}: ` : "";
      parts.push(`${view.row_labels[hovered.row]} → ${view.column_labels[hovered.column]}: ${text}${cellNumber(value)} ${view.unit}`.trim());
      root.dataset.value = value ?? "";
    }
    if (pinnedColumn !== null && hovered?.row !== null) parts.push(describeColumn(pinnedColumn));
    if (pinned !== null) parts.push(`row ${view.row_labels[pinned]} pinned; Esc releases it`);
    readout.textContent = parts.join(" · ") || `${outlierNote}Hover a cell to read it; click to pin its row${view.readers ? ", or a column label to pin the column" : ""}.`;
  }

  /** The rows with the largest values of a column, as text. */
  function describeColumn(column) {
    const rows = view.values.map((row, index) => [row[column], index]).filter(([value]) => value);
    const most = rows.sort((a, b) => b[0] - a[0]).slice(0, MAX_READERS);
    root.dataset.readers = most.map(([value, index]) => `${index}:${value}`).join(" ");
    const named = most.map(([value, index]) => `${view.row_labels[index]} ${cellNumber(value)}`).join(", ");
    return `${view.column_labels[column]} ${view.readers} ${named || "no row"}${rows.length > most.length ? ` and ${rows.length - most.length} more` : ""}`;
  }

  function onKeyDown(event) {
    const direction = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (direction) {
      event.preventDefault();
      const from = hovered ?? { row: pinned ?? 0, column: 0 };
      const clamp = (value, least, most) => Math.max(least, Math.min(most - 1, value));
      const top = view.readers ? -1 : 0; // row -1 is the column labels
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
