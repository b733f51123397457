// Strip: vectors as rows of coloured numbers, every dimension a narrow column: blue above zero, red below, pale near it;
// the strength of a colour is the root of a number's share of the largest.

import { themeColor, el, redrawOnResize } from "../dom.js";
import { cellText } from "../format.js";

const [TALL, GAP] = [18, 2];

/**
 * data: {title, labels, values: {shape: [rows, columns], values}}. Pointing reads a number, arrows move, a click or Enter
 * tells onPick({row, column, pinned: true}).
 */
export function mount(root, data, { onPick = (_) => {} } = {}) {
  let view = data;
  let at = null;
  let layout = null;
  const base = el("canvas", { role: "img" });
  const over = el("canvas", { class: "over", "aria-hidden": "true" });
  const stack = el("div", { class: "stack strip", tabindex: "0", role: "application", onkeydown: keys }, base, over);
  const said = el("p", { class: "said", "aria-live": "polite" });
  root.replaceChildren(el("div", { class: "wide" }, stack), said);
  stack.addEventListener("pointermove", (event) => look(placeOf(event)));
  stack.addEventListener("pointerleave", () => look(null));
  stack.addEventListener("click", (event) => pick(placeOf(event)));
  const end = redrawOnResize(root, paint);

  function update(next) {
    view = next;
    at = null;
    paint(root.clientWidth || 600);
    say();
  }

  function paint(width) {
    const [rows, columns] = view.values.shape;
    const left = 14 + 7.4 * Math.min(18, Math.max(1, ...view.labels.map((each) => [...each].length)));
    const size = Math.max(1, Math.min(24, (width - left - 4) / Math.max(1, columns)));
    layout = { left, size, rows, columns };
    const [wide, high] = [Math.ceil(left + columns * size + 2), rows * (TALL + GAP) + 2];
    const sharp = Math.min(2, devicePixelRatio || 1);
    for (const each of [base, over]) {
      Object.assign(each, { width: wide * sharp, height: high * sharp });
      Object.assign(each.style, { width: `${wide}px`, height: `${high}px` });
    }
    Object.assign(stack.style, { width: `${wide}px`, height: `${high}px` });
    const pen = base.getContext("2d");
    pen.scale(sharp, sharp);
    const [above, below, ink] = [themeColor("bar"), themeColor("value"), themeColor("ink")];
    const numbers = view.values.values;
    let most = 0;
    for (const each of numbers) most = Math.max(most, Math.abs(each));
    for (let row = 0; row < rows; row++) {
      const y = row * (TALL + GAP) + 1;
      for (let column = 0; column < columns; column++) {
        const value = numbers[row * columns + column];
        pen.globalAlpha = most ? Math.sqrt(Math.abs(value) / most) : 0; // a few dimensions are far larger than all others
        pen.fillStyle = value < 0 ? below : above;
        pen.fillRect(left + column * size, y, Math.max(size, 1), TALL);
      }
      pen.globalAlpha = 1;
      pen.fillStyle = ink;
      pen.textAlign = "right";
      pen.font = '12px ui-monospace, "DejaVu Sans Mono", monospace';
      pen.fillText(cut(view.labels[row]), left - 6, y + 13);
    }
    base.setAttribute("aria-label", `${view.title}; the numbers are in the table behind Numbers`);
    Object.assign(root.dataset, { rows, columns });
    mark();
  }

  function mark() {
    const pen = over.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, over.width, over.height);
    const sharp = Math.min(2, devicePixelRatio || 1);
    pen.scale(sharp, sharp);
    if (!at) return;
    pen.strokeStyle = themeColor("query");
    pen.lineWidth = 1.5;
    pen.strokeRect(layout.left - 1, at.row * (TALL + GAP), layout.columns * layout.size + 2, TALL + 2);
    pen.strokeRect(layout.left + at.column * layout.size - 0.5, 0, Math.max(layout.size, 2), layout.rows * (TALL + GAP));
  }

  function placeOf(event) {
    const box = stack.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - layout.left) / layout.size);
    const row = Math.floor((event.clientY - box.top) / (TALL + GAP));
    const within = row >= 0 && row < layout.rows && column < layout.columns;
    return within ? { row, column: Math.max(0, column) } : null; // a row's name is its first number
  }

  function look(place) {
    at = place;
    mark();
    say();
    if (place) onPick({ ...place, pinned: false });
  }

  const pick = (place) => place && onPick({ ...place, pinned: true });

  function say() {
    if (!at) {
      said.textContent = `${layout.rows} vectors of ${layout.columns.toLocaleString("en-US")} numbers: blue is above zero, red below. Point at one to read it.`;
      return;
    }
    const value = view.values.values[at.row * layout.columns + at.column];
    root.dataset.value = value;
    said.textContent = `${view.labels[at.row]}, dimension ${at.column}: ${cellText(value)}`;
  }

  function keys(event) {
    const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (way) {
      event.preventDefault();
      const within = (value, most) => Math.max(0, Math.min(most - 1, value));
      look(at ? { row: within(at.row + way[0], layout.rows), column: within(at.column + way[1], layout.columns) } : { row: 0, column: 0 });
    } else if (event.key === "Enter") pick(at);
    else if (event.key === "Escape") look(null);
  }

  update(data);
  return { update, end, state: () => ({ ...at }), svg: () => null, csv: () => null };
}

function cut(text) {
  const letters = [...text];
  return letters.length <= 18 ? text : `${letters.slice(0, 17).join("")}…`;
}

/** The numbers of a strip as a table: a row a vector. */
export function vectorTable({ title, labels, values }) {
  const columns = values.shape[1];
  const rows = labels.map((label, row) => [label, ...values.values.subarray(row * columns, (row + 1) * columns)]);
  return { title, columns: ["", ...Array.from({ length: columns }, (_, place) => String(place))], rows };
}
