// Grid: numbers as a field of squares or dots, or of words. In SVG while they are few, on a canvas above.
//
// Squares are stronger for more; dots (view.dots) have the number as their area and are hollow below zero; words
// (view.texts) are coloured by their numbers. −∞, which is null here, is written in red. With view.readers, such as "is
// read by", a column's head can be pointed at and pinned as well: it tells the rows that have most of it.

import { el, redrawOnResize } from "../dom.js";
import { cellText } from "../format.js";
import { drawGridSvg, maxAbs, drawGridCanvas } from "./grid_drawing.js";

export const MAX_SVG_CELLS = 48;
const MOST_SQUARES = 400; // one head of 20 tokens; more of them are a picture sooner than they are elements
const MOST_READERS = 5;

/** data: a Grid. Hovering reads a cell, a click pins its row (`cell` says which cell it was), arrows move, Esc lets go. */
export function mount(root, data, { onPick = (_) => {}, onMove = (_) => {}, picked = null } = {}) {
  let view = data;
  let at = null; // the cell that is looked at
  let pinned = null; // the row that is pinned
  let held = null; // the column that is pinned
  let size = 0;
  let drawing = null;
  const field = el("div", { class: "grid-field", tabindex: "0", role: "application", onkeydown: keys });
  const said = el("p", { class: "said", "aria-live": "polite" });
  root.replaceChildren(el("div", { class: "wide" }, field), said);
  const still = redrawOnResize(root, paint);
  const end = () => (still(), drawing?.end?.());

  function update(next) {
    view = next;
    at = null;
    pinned = picked?.row ?? null;
    held = null;
    field.setAttribute("aria-label", `${view.title}; ${view.row_labels.length} rows, ${view.column_labels.length} columns`);
    paint(root.clientWidth || 600);
    say();
  }

  function paint(width) {
    const [rows, columns] = [view.row_labels.length, view.column_labels.length];
    if (!rows || !columns) {
      field.textContent = "There is nothing to draw.";
      return;
    }
    const words = Boolean(view.texts);
    const left = Math.min(words ? 150 : 170, 16 + 7.4 * Math.max(...view.row_labels.map((each) => each.length)));
    const longest = Math.max(...view.column_labels.map((each) => each.length));
    const top = longest > 2 && !words ? Math.min(110, 16 + 6.4 * longest) : 24;
    const lean = words || longest <= 2 ? 8 : top / 2; // labels lean out to the right
    const room = Math.max(120, width - left - 12 - lean);
    size = words ? Math.max(72, Math.min(120, room / columns)) : Math.min(34, room / columns);
    // Below three pixels a square is no square any more: the field scrolls instead.
    size = Math.max(size, words ? 72 : 3);
    // A square where tokens look at tokens; where a few rows meet many columns, rows that can be told apart.
    const tall = words ? 22 : columns > rows ? Math.max(size, 15) : size;
    const layout = { rows, columns, left, top, size, lean, tall, most: maxAbs(view.values) };
    // Words are drawn as such however many rows they have; a canvas would hold them no better.
    const many = rows > MAX_SVG_CELLS || columns > MAX_SVG_CELLS || (!view.dots && rows * columns > MOST_SQUARES);
    drawing?.end?.();
    drawing = !words && many ? drawGridCanvas(view, layout) : drawGridSvg(view, layout);
    field.replaceChildren(drawing.node);
    drawing.node.addEventListener("pointermove", (event) => look(drawing.place(event)));
    drawing.node.addEventListener("pointerleave", () => look(null));
    drawing.node.addEventListener("click", (event) => {
      const place = drawing.place(event);
      if (place && place.row === null) hold(place.column);
      else pin(place?.row ?? null, place);
    });
    Object.assign(root.dataset, { rows, columns, how: drawing.how });
    remark();
  }

  /** What is looked at, or else the column that is held. */
  const remark = () => drawing?.mark(at ?? (held === null ? null : { row: null, column: held }), pinned);

  /** What somebody else points at or has pinned: a chip of the sentence. Tells nobody. */
  function point({ row, pinned: now }) {
    pinned = now;
    at = row === null ? null : { row, column: at?.column ?? 0 };
    drawing?.mark(row === null ? null : { row, column: row }, pinned);
    say();
  }

  /** The same of a drawing beside this one, which shows the same cells. */
  function follow({ at: there, pinned: now }) {
    [at, pinned] = [there, now];
    root.dataset.pinned = pinned ?? "";
    remark();
    say();
  }

  function look(place) {
    at = place;
    remark();
    say();
    onMove({ at, pinned });
    if (place && place.row !== null) onPick({ row: place.row, column: place.column, pinned: false });
  }

  function hold(column) {
    held = column === held ? null : column;
    root.dataset.column = held ?? "";
    remark();
    say();
  }

  function pin(row, cell = at) {
    pinned = row === pinned ? null : row;
    root.dataset.pinned = pinned ?? "";
    remark();
    say();
    onMove({ at, pinned });
    onPick({ row: pinned, column: at?.column ?? null, pinned: pinned !== null, cell });
  }

  function say() {
    const words = [];
    if (at && at.row === null) words.push(readersOf(at.column));
    else if (at) {
      const value = view.values[at.row][at.column];
      const text = view.texts ? `‘${view.texts[at.row][at.column].replace("\n", "’ ")}: ` : "";
      words.push(`${view.row_labels[at.row]} → ${view.column_labels[at.column]}: ${text}${numberText(value)} ${view.unit}`.trim());
      root.dataset.value = value ?? "";
    }
    if (held !== null && at?.row !== null) words.push(readersOf(held));
    if (pinned !== null) words.push(`row ${view.row_labels[pinned]} pinned; Esc lets it go`);
    said.textContent = words.join(" · ") || `Point at a cell to read it; a click pins its row${view.readers ? ", and one on a column’s head the column" : ""}.`;
  }

  /** Who has most of a column, in words. */
  function readersOf(column) {
    const rows = view.values.map((row, place) => [row[column], place]).filter(([value]) => value);
    const most = rows.sort((a, b) => b[0] - a[0]).slice(0, MOST_READERS);
    root.dataset.readers = most.map(([value, place]) => `${place}:${value}`).join(" ");
    const named = most.map(([value, place]) => `${view.row_labels[place]} ${numberText(value)}`).join(", ");
    return `${view.column_labels[column]} ${view.readers} ${named || "nobody"}${rows.length > most.length ? ` and ${rows.length - most.length} more` : ""}`;
  }

  function keys(event) {
    const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (way) {
      event.preventDefault();
      const from = at ?? { row: pinned ?? 0, column: 0 };
      const within = (value, least, most) => Math.max(least, Math.min(most - 1, value));
      const top = view.readers ? -1 : 0; // above the first row stand the columns' heads
      const row = within((from.row ?? -1) + (at ? way[0] : 0), top, view.row_labels.length);
      look({ row: row < 0 ? null : row, column: within(from.column + (at ? way[1] : 0), 0, view.column_labels.length) });
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (at && at.row === null) hold(at.column);
      else pin(at?.row ?? 0);
    } else if (event.key === "Escape" && (pinned !== null || held !== null)) {
      event.stopPropagation();
      if (held !== null) hold(held);
      if (pinned !== null) pin(pinned);
    }
  }

  update(data);
  return { update, end, point, follow, state: () => ({ row: pinned, at }), svg: () => null, csv: () => null };
}

const numberText = (value) => (value === null ? "−∞" : cellText(value));
