// Vector strip: vectors as rows of coloured cells, one narrow column per dimension: blue for positive values, red for negative
// ones; the opacity is the square root of the value relative to the largest that is no outlier.

import { themeColor, el, redrawOnResize } from "../dom.js";
import { cellText } from "../format.js";
import { robustScale } from "./grid_drawing.js";

const [ROW_HEIGHT, ROW_GAP] = [18, 2];

/**
 * data: {title, labels, values: {shape: [rows, columns], values}}. Hover to read a value, arrow keys move; a click or
 * Enter calls onPick({row, column, pinned: true}).
 */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  let view = data;
  let hovered = null;
  let layout = null;
  const canvas = el("canvas", { role: "img" });
  const overlay = el("canvas", { class: "over", "aria-hidden": "true" });
  const stack = el("div", { class: "stack strip", tabindex: "0", role: "application", onkeydown: onKeyDown }, canvas, overlay);
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  root.replaceChildren(el("div", { class: "wide" }, stack), readout);
  stack.addEventListener("pointermove", (event) => hover(cellAt(event)));
  stack.addEventListener("pointerleave", () => hover(null));
  stack.addEventListener("click", (event) => pinCell(cellAt(event)));
  const destroy = redrawOnResize(root, paint);

  function update(next) {
    view = next;
    hovered = null;
    paint(root.clientWidth || 600);
    updateReadout();
  }

  function paint(width) {
    const [rows, columns] = view.values.shape;
    const left = 14 + 7.4 * Math.min(18, Math.max(1, ...view.labels.map((each) => [...each].length)));
    const size = Math.max(1, Math.min(24, (width - left - 4) / Math.max(1, columns)));
    layout = { left, size, rows, columns, outliers: [] };
    const [canvasWidth, canvasHeight] = [Math.ceil(left + columns * size + 2), rows * (ROW_HEIGHT + ROW_GAP) + 2];
    const pixelRatio = Math.min(2, devicePixelRatio || 1);
    for (const each of [canvas, overlay]) {
      Object.assign(each, { width: canvasWidth * pixelRatio, height: canvasHeight * pixelRatio });
      Object.assign(each.style, { width: `${canvasWidth}px`, height: `${canvasHeight}px` });
    }
    Object.assign(stack.style, { width: `${canvasWidth}px`, height: `${canvasHeight}px` });
    const context = canvas.getContext("2d");
    context.scale(pixelRatio, pixelRatio);
    const [positiveColor, negativeColor, textColor] = [themeColor("bar"), themeColor("value"), themeColor("ink")];
    const numbers = view.values.values;
    const columnMaxima = new Array(columns).fill(0);
    numbers.forEach((value, index) => (columnMaxima[index % columns] = Math.max(columnMaxima[index % columns], Math.abs(value))));
    const { max, outliers } = robustScale(columnMaxima);
    layout.outliers = outliers;
    for (let row = 0; row < rows; row++) {
      const y = row * (ROW_HEIGHT + ROW_GAP) + 1;
      for (let column = 0; column < columns; column++) {
        const value = numbers[row * columns + column];
        context.globalAlpha = max ? Math.sqrt(Math.min(1, Math.abs(value) / max)) : 0;
        context.fillStyle = value < 0 ? negativeColor : positiveColor;
        context.fillRect(left + column * size, y, Math.max(size, 1), ROW_HEIGHT);
      }
      context.globalAlpha = 1;
      context.fillStyle = textColor;
      context.textAlign = "right";
      context.font = '12px ui-monospace, "DejaVu Sans Mono", monospace';
      context.fillText(truncateLabel(view.labels[row]), left - 6, y + 13);
    }
    canvas.setAttribute("aria-label", `${view.title}; the numbers are in the table behind Numbers`);
    Object.assign(root.dataset, { rows, columns });
    updateMarks();
  }

  function updateMarks() {
    const context = overlay.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, overlay.width, overlay.height);
    const pixelRatio = Math.min(2, devicePixelRatio || 1);
    context.scale(pixelRatio, pixelRatio);
    if (!hovered) return;
    context.strokeStyle = themeColor("query");
    context.lineWidth = 1.5;
    context.strokeRect(layout.left - 1, hovered.row * (ROW_HEIGHT + ROW_GAP), layout.columns * layout.size + 2, ROW_HEIGHT + 2);
    context.strokeRect(layout.left + hovered.column * layout.size - 0.5, 0, Math.max(layout.size, 2), layout.rows * (ROW_HEIGHT + ROW_GAP));
  }

  function cellAt(event) {
    const box = stack.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - layout.left) / layout.size);
    const row = Math.floor((event.clientY - box.top) / (ROW_HEIGHT + ROW_GAP));
    const inside = row >= 0 && row < layout.rows && column < layout.columns;
    return inside ? { row, column: Math.max(0, column) } : null; // the label counts as the first column
  }

  function hover(cell) {
    hovered = cell;
    updateMarks();
    updateReadout();
    if (cell) onPick({ ...cell, pinned: false });
  }

  const pinCell = (cell) => cell && onPick({ ...cell, pinned: true });

  function updateReadout() {
    if (!hovered) {
      readout.textContent = `${layout.rows} vectors of ${layout.columns.toLocaleString("en-US")} dimensions: blue is positive, red negative.${layout.outliers.length ? ` Dimension${layout.outliers.length > 1 ? "s" : ""} ${layout.outliers.slice(0, 6).join(", ")} exceed the scale.` : ""} Hover a cell to read it.`;
      return;
    }
    const value = view.values.values[hovered.row * layout.columns + hovered.column];
    root.dataset.value = value;
    readout.textContent = `${view.labels[hovered.row]}, dimension ${hovered.column}: ${cellText(value)}`;
  }

  function onKeyDown(event) {
    const direction = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (direction) {
      event.preventDefault();
      const clamp = (value, max) => Math.max(0, Math.min(max - 1, value));
      hover(hovered ? { row: clamp(hovered.row + direction[0], layout.rows), column: clamp(hovered.column + direction[1], layout.columns) } : { row: 0, column: 0 });
    } else if (event.key === "Enter") pinCell(hovered);
    else if (event.key === "Escape") hover(null);
  }

  update(data);
  return { update, destroy, state: () => ({ ...hovered }), svg: () => null, csv: () => null };
}

function truncateLabel(text) {
  const letters = [...text];
  return letters.length <= 18 ? text : `${letters.slice(0, 17).join("")}…`;
}

/** The vectors as a table with one row each. */
export function vectorTable({ title, labels, values }) {
  const columns = values.shape[1];
  const rows = labels.map((label, row) => [label, ...values.values.subarray(row * columns, (row + 1) * columns)]);
  return { title, columns: ["", ...Array.from({ length: columns }, (_, cell) => String(cell))], rows };
}
