// Weight editor: one head's attention weights as dots that can be dragged. The area is the weight, the ring the weight before
// interventions; dragging up or right increases it. Keys: arrows move, Enter grabs a dot, arrows change it, Enter or Esc releases.

import { el, redrawOnResize, svg } from "../dom.js";
import { cellText } from "../format.js";

/** Drag distance in pixels from weight 0 to 1. */
const DRAG_PIXELS = 140;
const [STEP, FINE_STEP] = [0.05, 0.01];

/**
 * data: {rows, columns, weights, before, seen: {shape, values}, edited}; `edited` has "row,column" of cells set by an intervention.
 * onChange({row, column, weight}) reports every change; weight null removes the intervention. A cell that is the only visible
 * one of its row cannot be changed.
 */
export function mount(root, data, { onChange = (_) => {} } = {}) {
  let view = data;
  let hovered = null; // {row, column}
  let lastHeld = null; // the last grabbed cell, from which keys continue
  let heldWeight = null; // the weight of the grabbed cell
  let dragStart = null; // where the drag started
  let layout = null;
  let nodes = new Map();
  const container = el("div", { class: "grid-field weight-editor", tabindex: "0", role: "application", onkeydown: onKeyDown });
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  root.replaceChildren(el("div", { class: "wide" }, container), readout);
  const destroy = redrawOnResize(root, paint);

  const index = ({ row, column }) => row * view.columns.length + column;
  const cellKey = ({ row, column }) => `${row},${column}`;
  const isVisible = (cell) => view.visible.values[index(cell)] === 1;
  const visibleInRow = (row) => view.columns.reduce((sum, _, column) => sum + view.visible.values[row * view.columns.length + column], 0);
  const isEditable = (cell) => isVisible(cell) && visibleInRow(cell.row) > 1;
  const weight = (cell) => (heldWeight !== null && hovered && cellKey(hovered) === cellKey(cell) ? heldWeight : view.weights.values[index(cell)]);

  function update(next) {
    const same = next.rows.length === view.rows.length && next.columns.length === view.columns.length && nodes.size;
    view = next;
    if (!same) {
      hovered = lastHeld = heldWeight = dragStart = null;
      paint(root.clientWidth || 560);
    }
    refresh();
  }

  function paint(width) {
    const [rows, columns] = [view.rows.length, view.columns.length];
    const longest = (labels, maxRadius) => Math.min(maxRadius, Math.max(...labels.map((each) => [...each].length)));
    const left = 16 + 7.4 * longest(view.rows, 18);
    const top = 14 + 6.4 * longest(view.columns, 16);
    const size = Math.max(14, Math.min(36, (width - left - top / 2 - 8) / columns));
    layout = { left, top, size };
    const [svgWidth, svgHeight] = [left + columns * size + top / 2, top + rows * size + 4];
    const node = svg("svg", { width: svgWidth, height: svgHeight, viewBox: `0 0 ${svgWidth} ${svgHeight}`, role: "img", "aria-label": "weights; the numbers are in the table behind Numbers" });
    nodes = new Map();
    view.columns.forEach((label, column) => node.append(svg("text", { class: "mono", transform: `translate(${left + (column + 0.6) * size} ${top - 6}) rotate(-60)`, "font-size": 11 }, truncateLabel(label, 16))));
    view.rows.forEach((label, row) => {
      node.append(svg("text", { class: "mono end", x: left - 6, y: top + (row + 0.5) * size + 4, "font-size": 11 }, truncateLabel(label, 18)));
      view.columns.forEach((_, column) => {
        const cell = { row, column };
        const box = { x: left + column * size, y: top + row * size, width: size, height: size };
        const [cx, cy] = [box.x + size / 2, box.y + size / 2];
        if (!isVisible(cell)) return;
        const dot = svg("circle", { class: "bar", cx, cy });
        const ring = svg("circle", { class: "ring", cx, cy });
        const hitArea = svg("rect", { ...box, class: `cell${isEditable(cell) ? " turns" : ""}` });
        hitArea.addEventListener("pointerdown", (event) => grab(event, cell));
        hitArea.addEventListener("pointerenter", () => heldWeight === null && hover(cell));
        nodes.set(cellKey(cell), { dot, ring, cell: hitArea });
        node.append(hitArea, dot, ring);
      });
    });
    node.addEventListener("pointermove", drag);
    for (const name of ["pointerup", "pointercancel"]) node.addEventListener(name, release);
    node.addEventListener("pointerleave", () => heldWeight === null && hover(lastHeld));
    container.replaceChildren(node);
    refresh();
  }

  /** Updates the sizes of all dots. */
  function refresh() {
    if (!layout) return;
    const maxRadius = layout.size / 2 - 1;
    for (const [name, { dot, ring, cell: hitArea }] of nodes) {
      const [row, column] = name.split(",").map(Number);
      const cell = { row, column };
      const [current, original] = [weight(cell), view.before.values[index(cell)]];
      dot.setAttribute("r", current > 0 ? Math.max(0.6, maxRadius * Math.sqrt(current)) : 0);
      ring.setAttribute("r", Math.abs(current - original) > 0.02 ? Math.max(0.6, maxRadius * Math.sqrt(original)) : 0);
      dot.setAttribute("class", view.edited.has(name) || (heldWeight !== null && hovered && name === cellKey(hovered)) ? "query" : "bar");
      hitArea.classList.toggle("at", hovered !== null && name === cellKey(hovered));
    }
    updateReadout();
  }

  function hover(cell) {
    hovered = cell;
    refresh();
  }

  function grab(event, cell) {
    if (!isEditable(cell)) return hover(cell);
    event.preventDefault();
    container.focus();
    event.currentTarget.ownerSVGElement.setPointerCapture(event.pointerId);
    hovered = lastHeld = cell;
    heldWeight = weight(cell);
    dragStart = { x: event.clientX, y: event.clientY, from: heldWeight };
    return refresh();
  }

  function drag(event) {
    if (dragStart) setWeight(dragStart.from + (event.clientX - dragStart.x - (event.clientY - dragStart.y)) / DRAG_PIXELS);
  }

  function setWeight(value) {
    const next = Math.round(100 * Math.max(0, Math.min(1, value))) / 100;
    if (next === heldWeight) return;
    heldWeight = next;
    refresh();
    onChange({ ...hovered, weight: next });
  }

  function release() {
    heldWeight = dragStart = null;
    refresh();
  }

  function updateReadout() {
    Object.assign(root.dataset, { row: hovered?.row ?? "", column: hovered?.column ?? "", weight: hovered && isVisible(hovered) ? weight(hovered) : "", taken: String(heldWeight !== null) });
    if (!hovered) {
      readout.textContent = "Drag a dot to change an attention weight; the rest of its row is rescaled. Keys: arrows to move, Enter to grab a dot, arrows to change it.";
      return;
    }
    const pair = `${view.rows[hovered.row]} → ${view.columns[hovered.column]}`;
    if (!isVisible(hovered)) readout.textContent = `${pair}: masked.`;
    else if (!isEditable(hovered)) readout.textContent = `${pair}: ${cellText(weight(hovered))}; the only visible key, so its weight is always 1.`;
    else {
      const original = view.before.values[index(hovered)];
      const before = Math.abs(original - weight(hovered)) > 0.005 ? ` (was ${cellText(original)})` : "";
      readout.textContent = `${pair}: ${cellText(weight(hovered))}${before}${heldWeight === null ? "" : ", grabbed: arrows change it, Enter releases it"}${view.edited.has(cellKey(hovered)) ? "; Delete removes the change" : ""}.`;
    }
  }

  function onKeyDown(event) {
    const direction = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const cell = hovered ?? { row: view.rows.length - 1, column: 0 };
    if (direction && heldWeight !== null) setWeight(heldWeight + (direction[1] - direction[0]) * (event.shiftKey ? FINE_STEP : STEP));
    else if (direction) {
      const clamp = (value, maxRadius) => Math.max(0, Math.min(maxRadius - 1, value));
      hover(hovered ? { row: clamp(hovered.row + direction[0], view.rows.length), column: clamp(hovered.column + direction[1], view.columns.length) } : cell);
    } else if (event.key === "Enter" || event.key === " ") {
      if (heldWeight !== null) release();
      else if (isEditable(cell)) {
        hovered = lastHeld = cell;
        heldWeight = weight(cell);
        refresh();
      }
    } else if (event.key === "Delete" || event.key === "Backspace") {
      if (hovered && view.edited.has(cellKey(hovered))) onChange({ ...hovered, weight: null });
    } else if (event.key === "Escape" && heldWeight !== null) {
      event.stopPropagation();
      release();
    } else return;
    event.preventDefault();
  }

  update(data);
  paint(root.clientWidth || 560);
  return { update, destroy, state: () => ({ ...hovered, taken: heldWeight }), svg: () => null, csv: () => null };
}

function truncateLabel(text, maxRadius) {
  const letters = [...text];
  return letters.length <= maxRadius ? text : `${letters.slice(0, maxRadius - 1).join("")}…`;
}
