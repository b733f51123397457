// Dial: one head's weights as dots that can be pulled: area is the weight, a ring is what it was before the edits. Up or to
// the right makes a dot larger. With the keyboard: arrows move, Enter takes a dot, arrows turn it, Enter or Esc lets it go.

import { el, redrawOnResize, svg } from "../dom.js";
import { cellText } from "../format.js";

/** Pixels from 0 to 1. */
const TRAVEL = 140;
const [STEP, SMALL] = [0.05, 0.01];

/**
 * data: {rows, columns, weights, before, seen: {shape, values}, edited}; `edited` has "row,column" of cells that an edit has set.
 * onTurn({row, column, weight}) is told of every turn, weight null where the cell is to be as it was. A cell whose row
 * sees nothing else cannot be turned.
 */
export function mount(root, data, { onTurn = (_) => {} } = {}) {
  let view = data;
  let at = null; // {row, column}
  let last = null; // the cell that was in hand last: keys go on from there
  let taken = null; // the weight in hand, of the cell at `at`
  let grip = null; // where the pointer took it
  let layout = null;
  let nodes = new Map();
  const field = el("div", { class: "grid-field dial", tabindex: "0", role: "application", onkeydown: keys });
  const said = el("p", { class: "said", "aria-live": "polite" });
  root.replaceChildren(el("div", { class: "wide" }, field), said);
  const end = redrawOnResize(root, paint);

  const index = ({ row, column }) => row * view.columns.length + column;
  const key = ({ row, column }) => `${row},${column}`;
  const seen = (place) => view.seen.values[index(place)] === 1;
  const seenIn = (row) => view.columns.reduce((sum, _, column) => sum + view.seen.values[row * view.columns.length + column], 0);
  const turns = (place) => seen(place) && seenIn(place.row) > 1;
  const weight = (place) => (taken !== null && at && key(at) === key(place) ? taken : view.weights.values[index(place)]);

  function update(next) {
    const same = next.rows.length === view.rows.length && next.columns.length === view.columns.length && nodes.size;
    view = next;
    if (!same) {
      at = last = taken = grip = null;
      paint(root.clientWidth || 560);
    }
    refresh();
  }

  function paint(width) {
    const [rows, columns] = [view.rows.length, view.columns.length];
    const longest = (labels, most) => Math.min(most, Math.max(...labels.map((each) => [...each].length)));
    const left = 16 + 7.4 * longest(view.rows, 18);
    const top = 14 + 6.4 * longest(view.columns, 16);
    const size = Math.max(14, Math.min(36, (width - left - top / 2 - 8) / columns));
    layout = { left, top, size };
    const [wide, high] = [left + columns * size + top / 2, top + rows * size + 4];
    const node = svg("svg", { width: wide, height: high, viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": "weights; the numbers are in the table behind Numbers" });
    nodes = new Map();
    view.columns.forEach((label, column) => node.append(svg("text", { class: "mono", transform: `translate(${left + (column + 0.6) * size} ${top - 6}) rotate(-60)`, "font-size": 11 }, cut(label, 16))));
    view.rows.forEach((label, row) => {
      node.append(svg("text", { class: "mono end", x: left - 6, y: top + (row + 0.5) * size + 4, "font-size": 11 }, cut(label, 18)));
      view.columns.forEach((_, column) => {
        const place = { row, column };
        const box = { x: left + column * size, y: top + row * size, width: size, height: size };
        const [cx, cy] = [box.x + size / 2, box.y + size / 2];
        if (!seen(place)) return;
        const dot = svg("circle", { class: "bar", cx, cy });
        const ring = svg("circle", { class: "ring", cx, cy });
        const cell = svg("rect", { ...box, class: `cell${turns(place) ? " turns" : ""}` });
        cell.addEventListener("pointerdown", (event) => take(event, place));
        cell.addEventListener("pointerenter", () => taken === null && look(place));
        nodes.set(key(place), { dot, ring, cell });
        node.append(cell, dot, ring);
      });
    });
    node.addEventListener("pointermove", pull);
    for (const name of ["pointerup", "pointercancel"]) node.addEventListener(name, drop);
    node.addEventListener("pointerleave", () => taken === null && look(last));
    field.replaceChildren(node);
    refresh();
  }

  /** Every dot as large as its weight is now. */
  function refresh() {
    if (!layout) return;
    const most = layout.size / 2 - 1;
    for (const [name, { dot, ring, cell }] of nodes) {
      const [row, column] = name.split(",").map(Number);
      const place = { row, column };
      const [now, was] = [weight(place), view.before.values[index(place)]];
      dot.setAttribute("r", now > 0 ? Math.max(0.6, most * Math.sqrt(now)) : 0);
      ring.setAttribute("r", Math.abs(now - was) > 0.02 ? Math.max(0.6, most * Math.sqrt(was)) : 0);
      dot.setAttribute("class", view.edited.has(name) || (taken !== null && at && name === key(at)) ? "query" : "bar");
      cell.classList.toggle("at", at !== null && name === key(at));
    }
    say();
  }

  function look(place) {
    at = place;
    refresh();
  }

  function take(event, place) {
    if (!turns(place)) return look(place);
    event.preventDefault();
    field.focus();
    event.currentTarget.ownerSVGElement.setPointerCapture(event.pointerId);
    at = last = place;
    taken = weight(place);
    grip = { x: event.clientX, y: event.clientY, from: taken };
    return refresh();
  }

  function pull(event) {
    if (grip) turn(grip.from + (event.clientX - grip.x - (event.clientY - grip.y)) / TRAVEL);
  }

  function turn(value) {
    const next = Math.round(100 * Math.max(0, Math.min(1, value))) / 100;
    if (next === taken) return;
    taken = next;
    refresh();
    onTurn({ ...at, weight: next });
  }

  function drop() {
    taken = grip = null;
    refresh();
  }

  function say() {
    Object.assign(root.dataset, { row: at?.row ?? "", column: at?.column ?? "", weight: at && seen(at) ? weight(at) : "", taken: String(taken !== null) });
    if (!at) {
      said.textContent = "Pull a dot to change how much a token takes; the rest of its row shares what is left. Keys: arrows, Enter to take a dot, arrows to turn it.";
      return;
    }
    const pair = `${view.rows[at.row]} → ${view.columns[at.column]}`;
    if (!seen(at)) said.textContent = `${pair}: it cannot look there.`;
    else if (!turns(at)) said.textContent = `${pair}: ${cellText(weight(at))}; the only token that it sees, so nothing can be taken from it.`;
    else {
      const was = view.before.values[index(at)];
      const before = Math.abs(was - weight(at)) > 0.005 ? ` (was ${cellText(was)})` : "";
      said.textContent = `${pair}: ${cellText(weight(at))}${before}${taken === null ? "" : ", in hand: arrows turn it, Enter lets it go"}${view.edited.has(key(at)) ? "; Delete gives it back" : ""}.`;
    }
  }

  function keys(event) {
    const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const place = at ?? { row: view.rows.length - 1, column: 0 };
    if (way && taken !== null) turn(taken + (way[1] - way[0]) * (event.shiftKey ? SMALL : STEP));
    else if (way) {
      const within = (value, most) => Math.max(0, Math.min(most - 1, value));
      look(at ? { row: within(at.row + way[0], view.rows.length), column: within(at.column + way[1], view.columns.length) } : place);
    } else if (event.key === "Enter" || event.key === " ") {
      if (taken !== null) drop();
      else if (turns(place)) {
        at = last = place;
        taken = weight(place);
        refresh();
      }
    } else if (event.key === "Delete" || event.key === "Backspace") {
      if (at && view.edited.has(key(at))) onTurn({ ...at, weight: null });
    } else if (event.key === "Escape" && taken !== null) {
      event.stopPropagation();
      drop();
    } else return;
    event.preventDefault();
  }

  update(data);
  paint(root.clientWidth || 560);
  return { update, end, state: () => ({ ...at, taken }), svg: () => null, csv: () => null };
}

function cut(text, most) {
  const letters = [...text];
  return letters.length <= most ? text : `${letters.slice(0, most - 1).join("")}…`;
}
