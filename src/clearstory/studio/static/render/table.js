// Table: rows of cells, one column also as bars.

import { el } from "../dom.js";
import { cellText } from "../format.js";

const FIRST_ROWS = 60;

/** data: a Table. The first rows are shown; a button shows the rest. */
export function mount(root, data, { onPick = (_) => {}, onMove = (_) => {} } = {}) {
  let view = data;
  let shownRows = FIRST_ROWS;
  let pinned = null;

  function update(next) {
    view = next;
    shownRows = FIRST_ROWS;
    pinned = null;
    paint();
  }

  function paint() {
    const bar = view.bar === null || view.bar === undefined ? -1 : view.columns.indexOf(view.bar);
    const numeric = view.columns.map((_, i) => view.rows.every((row) => row[i] === null || typeof row[i] === "number"));
    const max = Math.max(0, ...view.rows.map((row) => Math.abs(row[bar] ?? 0)));
    const signed = bar >= 0 && view.rows.some((row) => row[bar] < 0);
    const rows = view.rows.slice(0, shownRows).map((row, index) =>
      el(
        "tr",
        {
          tabindex: "0", "aria-selected": String(index === pinned), data: { row: index },
          onpointerenter: () => (onMove({ hovered: index, pinned }), onPick({ row: index, pinned: false })),
          onpointerleave: () => onMove({ hovered: null, pinned }),
          onfocus: () => onMove({ hovered: index, pinned }),
          onclick: () => togglePin(index),
          onkeydown: (event) => onKeyDown(event, index),
        },
        ...row.map((value, i) => (i === bar ? barCell(value, max, signed) : cell(value, numeric[i], i === 0))),
      ),
    );
    const remaining = view.rows.length - shownRows;
    root.replaceChildren(
      el(
        "div",
        { class: "wide" },
        el(
          "table",
          { class: "rendered" },
          el("thead", {}, el("tr", {}, ...view.columns.map((name, i) => head(name, numeric[i] && i !== bar)))),
          el("tbody", {}, ...rows),
        ),
      ),
      remaining > 0 ? el("button", { type: "button", class: "more", onclick: showAll }, `Show ${remaining.toLocaleString("en-US")} more rows`) : "",
    );
  }

  function showAll() {
    shownRows = view.rows.length;
    paint();
  }

  function togglePin(index) {
    pinned = pinned === index ? null : index;
    updateMarks();
    onMove({ hovered: index, pinned });
    onPick({ row: pinned, pinned: pinned !== null });
  }

  function updateMarks() {
    for (const each of root.querySelectorAll("tbody tr"))
      each.setAttribute("aria-selected", String(Number(each.dataset.row) === pinned));
  }

  /** Applies the move of a linked table, without reporting it. */
  function follow({ hovered, pinned: pinnedIndex }) {
    pinned = pinnedIndex;
    updateMarks();
    for (const each of root.querySelectorAll("tbody tr")) each.classList.toggle("pointed", Number(each.dataset.row) === hovered);
  }

  function onKeyDown(event, index) {
    const direction = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (direction) {
      event.preventDefault();
      root.querySelector(`tbody tr[data-row="${index + direction}"]`)?.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      togglePin(index);
    } else if (event.key === "Escape" && pinned !== null) {
      event.stopPropagation();
      togglePin(pinned);
    }
  }

  paint();
  return { update, follow, state: () => ({ row: pinned }), svg: () => null, csv: () => null };
}

const head = (name, isNumeric) => el("th", { scope: "col", class: isNumeric ? "n" : null }, name);

function cell(value, isNumeric, isFirst) {
  if (isNumeric) return el("td", { class: "n", title: value ?? "", data: { value: value ?? "" } }, cellText(value));
  return el("td", { class: isFirst ? "mono" : null }, cellText(value));
}

function barCell(value, max, signed) {
  const share = max ? Math.abs(value ?? 0) / max : 0;
  const barClass = value < 0 ? "bar below" : "bar";
  const barNode = el("span", { class: barClass, style: { width: `${(share * 100).toFixed(2)}%` } });
  const track = el("span", { class: "bar-room" }, barNode);
  return el(
    "td",
    { class: `bars${signed ? " signed" : ""}`, title: value ?? "", data: { value: value ?? "" } },
    track,
    el("span", { class: "n" }, cellText(value)),
  );
}
